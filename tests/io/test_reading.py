"""``io.read`` takes a path, bytes and open files alike, and leaves the process as it found it."""

from __future__ import annotations

import io as streams
import logging
import os
import warnings
import zipfile

import numpy as np
import pytest
from dicom_series import noise, save, save_one, slices

from cdm4mi import io
from cdm4mi.errors import UserError
from cdm4mi.io.formats import FORMATS
from experiments.bad_files import good_files


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    made = good_files(tmp_path_factory.mktemp("good"))
    return [path for path in made if path.name != "echoes.dcm"]  # which holds two scans


def same(one, other):
    facts = [(volume.kind, volume.modality, volume.units, volume.warnings) for volume in (one, other)]
    return np.array_equal(one.array, other.array) and np.array_equal(one.affine, other.affine) and facts[0] == facts[1]


def test_bytes_and_open_files_are_read_as_their_path(files):
    for path in files:
        volume, content = io.read(path), path.read_bytes()
        with path.open("rb") as opened:
            for given in (str(path), content, bytearray(content), streams.BytesIO(content), opened):
                again = io.read(given)
                assert same(again, volume), path.name
        assert again.source.paths == () and volume.source.paths


def test_a_volume_from_memory_is_written_with_its_header(tmp_path):
    path = save_one(slices(count=1)[0], tmp_path / "in.dcm")
    io.write(io.read(path.read_bytes()), tmp_path / "out.dcm")
    assert np.array_equal(io.read(tmp_path / "out.dcm").array, io.read(path).array)


def test_a_zip_in_memory(tmp_path):
    folder = save(slices(), tmp_path / "in")
    content = streams.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, file.name)
    assert np.array_equal(io.read(content.getvalue()).array, io.read(folder).array)


def test_errors_name_what_was_given(tmp_path):
    (tmp_path / "note.txt").write_text("no scan")
    for given, name in (
        (b"no scan", "the given bytes"),
        (streams.BytesIO(b"no scan"), "the given file"),
        (tmp_path / "note.txt", "note.txt"),
    ):
        with pytest.raises(UserError, match=rf"^{name}: not in a format that is known, expected DICOM, NIfTI"):
            io.read(given)
    with (tmp_path / "note.txt").open("rb") as opened, pytest.raises(UserError, match=r"^note.txt: not in a format"):
        io.read(opened)
    with (tmp_path / "note.txt").open() as text, pytest.raises(UserError, match=r"^note.txt: .*opened as text"):
        io.read(text)


def test_a_header_in_memory_has_no_data_beside_it(tmp_path):
    volume = io.Volume(noise((3, 9, 8), 0, 250), np.eye(4))
    for name in ("a.mhd", "b.nhdr", "c.hdr"):
        io.write(volume, tmp_path / name)
        with pytest.raises(UserError, match=r"beside it|the path of one"):
            io.read((tmp_path / name).read_bytes())


def test_a_format_given_by_hand(tmp_path):
    volume = io.Volume(noise((3, 9, 8), 0, 250), np.eye(4))
    io.write(volume, tmp_path / "scan.mha")
    content = b"Comment = one line more\n" * 9 + (tmp_path / "scan.mha").read_bytes()
    with pytest.raises(UserError, match="not in a format"):
        io.read(content)  # the first lines do not tell
    assert np.array_equal(io.read(content, format="mha").array, volume.array)
    with pytest.raises(UserError, match=r"`format`: found jpg, expected dicom, nifti, .*, zip"):
        io.read(content, format="jpg")
    for kind in ("dicom", "zip", *FORMATS):
        with pytest.raises(UserError, match="the given bytes"):
            io.read(b"nothing of the kind", format=kind)


def test_reading_and_writing_change_nothing_of_the_process(files, tmp_path, monkeypatch):
    def refuse(*_):
        raise AssertionError("a setting of the whole process was touched")

    io.write(io.read(files[0]), tmp_path / "first.nii")  # what libraries set when they are imported is theirs
    before = list(warnings.filters)
    with monkeypatch.context() as patch:
        for owner, name in ((os, "umask"), (os, "dup2"), (os, "chdir"), (logging.Logger, "setLevel")):
            patch.setattr(owner, name, refuse)
        for number, path in enumerate(files):
            volume = io.read(path)
            kind = volume.kind
            io.write(volume, tmp_path / f"{number}{FORMATS[kind].endings[0] if kind in FORMATS else '.dcm'}")
    assert warnings.filters == before


def test_an_output_has_the_permissions_of_any_new_file(tmp_path):
    (tmp_path / "plain").write_text("")
    (tmp_path / "folder").mkdir()
    io.write(io.read(save(slices(), tmp_path / "in")), tmp_path / "out")
    io.write(io.Volume(np.zeros((1, 8, 8)), np.eye(4)), tmp_path / "out.nii")
    assert (tmp_path / "out.nii").stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "folder").stat().st_mode
