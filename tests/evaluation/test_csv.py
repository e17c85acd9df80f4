"""Names in a CSV file are text for a spreadsheet, whatever they begin with; numbers stay numbers."""

import csv

import numpy as np
import pytest

from cdm4mi.evaluation.protocol import load_protocol
from cdm4mi.evaluation.resolve import resolve
from cdm4mi.evaluation.scores import score_stack
from cdm4mi.evaluation.study import study_of, write_csv
from cdm4mi.evaluation.table import text_cell
from cdm4mi.io import Volume


@pytest.mark.parametrize("text", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1"])
def test_a_formula_is_text(text):
    assert text_cell(text) == f"'{text}"


@pytest.mark.parametrize("text", ["sub-01", "-3.5", "+2e-3", "-inf", "", "a=b"])
def test_other_cells_stay(text):
    assert text_cell(text) == text


def test_scores_of_a_scan_that_is_named_like_a_formula(tmp_path):
    clean = np.linspace(-900, 900, 2 * 32 * 32, dtype=np.float32).reshape(2, 32, 32)
    protocol = load_protocol("ct-1000")
    resolved = resolve(protocol, Volume(clean, np.eye(4), "CT"))
    rows = score_stack("=patient", "@scan", {"-method": clean + 20}, clean, resolved)
    write_csv(tmp_path / "scores.csv", study_of(protocol, rows, {"@scan": resolved}, "-method"))
    lines = list(csv.DictReader((tmp_path / "scores.csv").open(newline="")))
    assert {line["patient"] for line in lines} == {"'=patient"}
    assert {line["scan"] for line in lines} == {"'@scan", ""}
    assert {line["method"] for line in lines} == {"'-method"}
    assert {float(line["range_low"]) for line in lines if line["range_low"]} == {-1000.0}
