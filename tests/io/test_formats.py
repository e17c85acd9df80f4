"""A format is one module and one name: the one that CONTRIBUTING.md adds is then read, written, listed and restored."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from dicom_series import noise

from cdm4mi import io
from cdm4mi.archive.find import find_archive
from cdm4mi.errors import UserError
from cdm4mi.inference.denoise import denoise_file
from cdm4mi.io import formats
from cdm4mi.io.formats.format import Format
from experiments.bad_files import small_model

CONTRIBUTING = Path(__file__).parents[2] / "CONTRIBUTING.md"


@pytest.fixture
def npy(tmp_path, monkeypatch):
    """The module of CONTRIBUTING.md as a file of the folder of formats, which is then loaded afresh."""
    section = CONTRIBUTING.read_text(encoding="utf-8").split("## Add a format")[1]
    source = re.search(r"```python\n(.*?)```", section, flags=re.DOTALL)[1]
    folder = tmp_path / "formats"
    folder.mkdir()
    (folder / "npy.py").write_text(source, encoding="utf-8")
    monkeypatch.setattr(formats, "__path__", [*formats.__path__, str(folder)])
    for entry in formats.entries((*formats.MODULES, "npy")):
        monkeypatch.setitem(formats.FORMATS, entry.name, entry)


@pytest.fixture
def scan(tmp_path):
    values = noise((3, 32, 40), 0, 250).astype(np.int16)
    np.save(tmp_path / "scan.npy", values)
    return tmp_path / "scan.npy", values


def test_without_it_the_file_is_not_known(scan):
    with pytest.raises(UserError, match=r"scan.npy: not in a format that is known, expected DICOM, NIfTI"):
        io.read(scan[0])


def test_it_is_read_and_written_and_what_is_not_a_scan_is_refused(npy, scan, tmp_path):
    path, values = scan
    volume = io.read(path)
    assert (volume.kind, volume.source.paths) == ("npy", (path,))
    assert np.array_equal(volume.array, values)
    io.write(volume, tmp_path / "again.npy")
    assert np.array_equal(io.read((tmp_path / "again.npy").read_bytes()).array, values)
    np.save(path, np.array([{}]))
    with pytest.raises(UserError, match=r"scan.npy: not a readable NPY file, or damaged"):
        io.read(path)


def test_it_is_listed_where_formats_are(npy, scan, tmp_path, command):
    (tmp_path / "text").write_text("no scan")
    code, _, err = command("inspect", tmp_path / "text")
    assert code == 2 and re.search(r"expected DICOM, NIfTI, .*, NPY or a zip of them", err)
    code, _, err = command("denoise", scan[0], tmp_path / "out.txt")
    assert code == 2 and re.search(r"out.txt: names no format, expected an ending \.nii\.gz, .*\.npy", err)
    assert [info.kind for info in io.list_scans(scan[0]).scans] == ["npy"]


def test_it_is_restored_to_its_own_format(npy, scan, tmp_path):
    path, values = scan
    archive = find_archive(path, tmp_path / "restored", always=True)
    (series,) = archive.series
    assert series.target == path.name
    denoise_file(series.read(), tmp_path / series.target.replace(".npy", "-restored.npy"), small_model())
    assert io.read(tmp_path / series.target.replace(".npy", "-restored.npy")).shape == values.shape


def test_every_module_of_the_folder_is_registered_under_its_own_name():
    files = {file.stem for file in Path(formats.__file__).parent.glob("*.py")} - {"__init__", "format", "raw_data"}
    assert files == set(formats.MODULES)
    assert all(isinstance(entry, Format) and name == entry.name for name, entry in formats.FORMATS.items())
    endings = [ending for entry in formats.FORMATS.values() for ending in entry.endings]
    assert len(endings) == len(set(endings))


@pytest.mark.parametrize("name", ["a.nii.gz", "a.mhd", "a.tif", "a.h5", "a.png"])
def test_a_file_that_exists_is_replaced_when_asked_for_only(name, tmp_path):
    one, other = (io.Volume(np.full((1, 16, 16), value), np.eye(4)) for value in (3, 4))
    io.write(one, tmp_path / name)
    with pytest.raises(UserError, match=r"exists, expected a new name for the output \(`force` replaces the file\)"):
        io.write(other, tmp_path / name)
    assert (io.read(tmp_path / name).array == 3).all()
    io.write(other, tmp_path / name, force=True)
    assert (io.read(tmp_path / name).array == 4).all()
