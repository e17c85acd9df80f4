"""File names that are no UTF-8 work: on the terminal, in records, tables, configurations and headers of two files."""

from __future__ import annotations

import csv
import json
import os
import shutil

import numpy as np
import pytest

from cdm4mi import io
from cdm4mi.config import load_config, parse_config
from cdm4mi.config.load import save_config
from cdm4mi.data.prepare import prepare
from cdm4mi.data.sources import load_patients

NAME = os.fsdecode(b"Br\xfcll")
SHOWN = r"Br\udcfcll"


@pytest.fixture
def scan(save_nifti, tmp_path):
    array = np.random.default_rng(0).normal(100, 10, (3, 24, 24))
    return save_nifti(tmp_path / NAME / f"{NAME}.nii.gz", array)


def test_inspect_and_noise(command, scan, tmp_path):
    shutil.copyfile(scan, scan.with_name(f"{NAME}-2.nii.gz"))
    code, out, _ = command("inspect", scan.parent)
    assert code == 0 and SHOWN in out
    noisy = tmp_path / f"{NAME}-noisy.nii.gz"
    code, out, _ = command("noise", scan, noisy, "--type", "gaussian", "--variance", 0.01, "--modality", "MR")
    assert code == 0 and SHOWN in out and noisy.is_file()
    assert json.loads(noisy.with_name(f"{noisy.name}.cdm4mi.json").read_text(encoding="utf-8"))


def test_evaluate_writes_its_tables(command, scan, tmp_path):
    table, record = tmp_path / f"{NAME}.csv", tmp_path / f"{NAME}.json"
    arguments = ("evaluate", scan, scan, "--csv", table, "--json", record)
    record.write_text("precious")
    code, _, err = command(*arguments)
    assert code == 2 and "exists, expected a new name" in err and record.read_text() == "precious"
    code, _, err = command(*arguments, "--force")
    assert code == 0, err
    with table.open(encoding="utf-8", newline="") as file:
        assert SHOWN in {row["scan"] for row in csv.DictReader(file)}
    assert SHOWN in {row["scan"] for row in json.loads(record.read_text(encoding="utf-8"))["rows"]}


def test_prepare_names_it_in_the_record_of_what_was_passed_over(scan, tmp_path):
    (scan.parent / f"{NAME}-bad.nii").write_bytes(b"none")
    report = prepare([scan.parent], tmp_path / f"{NAME}-store", workers=1)
    assert report.manifest is not None and len(report.manifest.scans) == 1
    assert len(report.bad) == 1


def test_a_configuration_names_it(scan, tmp_path):
    config = load_config("precond", [f"data.paths={scan}", "data.kind=volumes"])
    assert config.data.paths == [str(scan)]
    save_config(config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == config
    assert parse_config(config.model_dump(), where="test") == config
    assert [patient.name for patient in load_patients(config.data, 16, 0)] == [SHOWN.lower()]


@pytest.mark.parametrize("ending", [".mhd", ".nhdr"])
def test_headers_that_name_a_data_file(ending, scan, tmp_path):
    io.write(io.read(scan), tmp_path / f"{NAME}{ending}")
    assert np.array_equal(io.read(tmp_path / f"{NAME}{ending}").array, io.read(scan).array)
    io.write(io.read(scan), tmp_path / f"köln{ending}")
    assert np.array_equal(io.read(tmp_path / f"köln{ending}").array, io.read(scan).array)
    assert "köln".encode() in (tmp_path / f"köln{ending}").read_bytes()
