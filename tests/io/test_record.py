"""The record beside an output, and outputs that replace a file only when they are whole."""

from __future__ import annotations

import json

import pytest
from dicom_series import save, slices

from cdm4mi import __version__, io
from cdm4mi.files import replacing_file, replacing_folder
from cdm4mi.io.record import record_path


@pytest.mark.parametrize(
    "output, record",
    [("scan.nii.gz", "scan.nii.gz.cdm4mi.json"), ("a.b.mha", "a.b.mha.cdm4mi.json"), ("out", "out.cdm4mi.json")],
)
def test_record_path(output, record, tmp_path):
    assert record_path(tmp_path / output) == tmp_path / record


def test_record_of_an_input_is_json_without_a_patient(tmp_path):
    volume = io.read(save(slices(positions=[0, 1, 3.7, 5, 6]), tmp_path / "in"))
    place = io.write_record(tmp_path / "out", io.OutputRecord(warnings=["odd"], input=io.input_record(volume)))
    read = json.loads(place.read_text())
    assert (read["version"], read["format"], read["warnings"]) == (__version__, 1, ["odd"])
    assert read["input"]["shape"] == [5, 14, 18] and "uneven" in read["input"]["warnings"][0]
    assert "SECRET" not in place.read_text() and str(tmp_path) not in place.read_text()
    same = io.input_record(io.read(tmp_path / "in")).sha256
    assert same == read["input"]["sha256"]
    assert same != io.input_record(volume.with_array(volume.array + 1)).sha256


def test_a_stop_in_the_middle_leaves_the_old_file(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(RuntimeError), replacing_file(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    with pytest.raises(RuntimeError), replacing_folder(tmp_path / "b") as temporary:
        (temporary / "x").write_text("half")
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"
