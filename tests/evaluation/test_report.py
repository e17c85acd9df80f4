"""A report is one small file that needs no network, with every part of the study in it."""

import csv
import json
import re
from html.parser import HTMLParser

import pytest

from cdm4mi.errors import UserError
from cdm4mi.evaluation.benchmark.config import parse_benchmark
from cdm4mi.evaluation.benchmark.record import Record
from cdm4mi.evaluation.benchmark.run import run_benchmark
from cdm4mi.evaluation.report import write_report
from cdm4mi.evaluation.report.tables import tables, verdicts
from cdm4mi.evaluation.table import as_latex


class Page(HTMLParser):
    """The tags of a page, checked for balance, and every attribute that could load something."""

    VOID = ("meta", "img", "br", "link", "input", "hr")

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.loads = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        self.loads += [value for name, value in attributes if name in ("src", "href", "xlink:href")]

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture
def finished(study, tmp_path):
    """The folder of a study without trained models, but with one that is slow to tell from the rest."""
    study["methods"] = [{"type": "noisy"}, {"type": "gaussian_filter"}, {"type": "tv", "name": "<TV & co>"}]
    run_benchmark(parse_benchmark(study), tmp_path / "run", command="cdm4mi benchmark study.yaml")
    return tmp_path / "run"


def test_one_page_with_every_part(finished, tmp_path):
    page = write_report(finished)
    text = page.read_text()
    assert len(text) < 20_000_000
    found = Page(text)
    assert all(load.startswith(("#", "data:")) for load in found.loads)
    assert not re.search(r"url\((?!data:|#)", text) and "@import" not in text
    assert found.tags.count("svg") == 3  # no model: nothing over network calls
    panels = json.loads((finished / "study.json").read_text())["panels"]
    assert found.tags.count("section") == len(panels) >= 4  # a typical and the worst slice of each level
    record = Record(finished)
    assert text.count(record.study.split) > 5 and text.count(record.study.protocols[0].label) > 5
    assert "&lt;TV &amp; co&gt;" in text and "<TV" not in text
    for word in ("typical", "worst", "Provenance", "Leakage", "cdm4mi benchmark study.yaml"):
        assert word in text
    assert "sub-2" not in text and str(tmp_path) not in text


def test_tables_beside_it_hold_the_means_over_patients(finished):
    write_report(finished)
    with open(finished / "tables/small-image.csv", encoding="utf-8") as file:
        note, *lines = file.read().splitlines()
    assert note.startswith("# protocol small v1")
    rows = list(csv.DictReader(lines))
    scores = json.loads((finished / "scores/small-1.json").read_text())
    for row in rows:
        by_patient = [
            p["scores"]["psnr"] for p in scores["patients"] if p["method"] == row["method"] and p["region"] == "image"
        ]
        assert len(by_patient) == 3
        mean, low, high = (float(row[f"variance 0.02: PSNR (dB){end}"]) for end in ("", ", low", ", high"))
        assert mean == pytest.approx(sum(by_patient) / 3, rel=1e-5)
        assert min(by_patient) - 1e-3 < low <= mean <= high < max(by_patient) + 1e-3
    latex = (finished / "tables/small-image.tex").read_text()
    assert r"<TV \& co>" in latex and r"\textbf{" in latex
    record = Record(finished)
    for table in tables(record):
        heads = 1 + any(column.group for column in table.columns)
        lines = [line for line in as_latex(table).splitlines() if line.endswith(r"\\")]
        assert len(lines) == len(table.rows) + heads
        assert all(line.count(" & ") == len(table.columns) - 1 for line in lines[heads:])


def test_the_summary_says_where_the_main_method_loses(finished):
    record = Record(finished)
    record.study.main = "noisy input"
    lines = list(verdicts(record))
    assert len(lines) == 2
    assert all("noisy input has" in line and "loses to" in line for line in lines)


def in_format_1(folder):
    """Rewrites a study as the first format had it: no number in the scores, spaces in the keys of a method."""
    record = json.loads((folder / "study.json").read_text())
    record["format"] = 1
    record["methods"] = [
        {key.replace("_", " "): value for key, value in method.items() if value is not None}
        for method in record["methods"]
    ]
    (folder / "study.json").write_text(json.dumps(record))
    for file in (folder / "scores").glob("*.json"):
        scores = json.loads(file.read_text())
        del scores["format"], scores["protocol"]["described"], scores["protocol"]["main_metrics"]
        file.write_text(json.dumps(scores))


def test_a_study_of_the_first_format_gives_the_same_report(finished):
    text = write_report(finished).read_text()
    in_format_1(finished)
    assert write_report(finished).read_text() == text


def test_a_study_of_a_later_format_or_with_a_damaged_field_is_refused(finished):
    record = json.loads((finished / "study.json").read_text())
    for key, value, message in (("format", 3, "format: found 3, which a newer version"), ("levels", 7, "levels: ")):
        (finished / "study.json").write_text(json.dumps(record | {key: value}))
        with pytest.raises(UserError, match=rf"study.json: {message}.*, expected a study of format 1 to 2"):
            write_report(finished)


def test_what_is_no_study_is_refused(tmp_path, finished):
    with pytest.raises(UserError, match=r"study.json is missing or damaged"):
        write_report(tmp_path)
    (finished / "images.npz").unlink()
    with pytest.raises(UserError, match=r"images.npz is missing"):
        write_report(finished)
    with pytest.raises(UserError, match=r"page.pdf: expected"):
        write_report(finished, tmp_path / "page.pdf")
