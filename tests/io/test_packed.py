"""Scans that gzip packs: DICOM, and the two files of a NIfTI pair; their checksum counts."""

from __future__ import annotations

import gzip

import nibabel as nib
import numpy as np
import pytest
from dicom_series import noise, save, slices

from cdm4mi import io
from cdm4mi.errors import UserError

AFFINE = np.diag([0.8, 0.7, 2.5, 1.0])


def pack(path):
    packed = path.with_name(f"{path.name}.gz")
    packed.write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    return packed


def test_a_series_of_packed_dicom_files_is_the_series(tmp_path):
    folder = save(slices(), tmp_path / "in")
    plain = io.read(folder)
    for path in list(folder.iterdir()):
        pack(path.rename(path.with_suffix(".dcm")))
    packed = io.read(folder)
    assert np.array_equal(packed.array, plain.array) and np.array_equal(packed.affine, plain.affine)
    io.write(packed, tmp_path / "out")
    assert np.array_equal(io.read(tmp_path / "out").array, plain.array)


def test_a_cut_packed_dicom_file_is_one_line(tmp_path):
    folder = save(slices(1), tmp_path / "in")
    path = pack(next(folder.iterdir()).rename(folder / "a.dcm"))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"a\.dcm\.gz: the gzip data are damaged or cut short"):
        io.read(path)


@pytest.mark.parametrize("kind", [nib.Nifti1Pair, nib.Nifti2Pair])
@pytest.mark.parametrize("packed", [(".img",), (".hdr",), (".hdr", ".img")])
def test_pairs_of_which_either_file_is_packed(kind, packed, tmp_path):
    data = noise((9, 10, 11), 0, 200).astype(np.int16)
    nib.save(kind(data, AFFINE), tmp_path / "a.hdr")
    for ending in packed:
        pack(tmp_path / f"a{ending}")
    for path in list(tmp_path.iterdir()):
        volume = io.read(path)
        assert np.array_equal(volume.array, data.T)
        assert len(volume.source.paths) == 2
        with pytest.raises(UserError, match="overwrite"):
            io.write(volume, path)
    assert len(io.list_scans(tmp_path).scans) == 1


def test_a_packed_pair_is_written_as_one(tmp_path):
    data = noise((9, 10, 11), 0, 200).astype(np.int16)
    nib.save(nib.Nifti1Image(data, AFFINE), tmp_path / "a.nii")
    io.write(io.read(tmp_path / "a.nii"), tmp_path / "b.img.gz")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.nii", "b.hdr.gz", "b.img.gz"]
    assert np.array_equal(nib.load(tmp_path / "b.img.gz").get_fdata(), data)


def test_analyze_is_refused_for_what_it_lacks(tmp_path):
    image = nib.AnalyzeImage(noise((9, 10, 11), 0, 200).astype(np.int16), AFFINE)
    nib.save(image, tmp_path / "a.hdr")
    for name in ("a.hdr", "a.img"):
        with pytest.raises(UserError, match=r"a\.\w+: .*Analyze 7\.5, which does not tell left from right"):
            io.read(tmp_path / name)


def test_the_checksum_of_packed_voxels_counts(tmp_path):
    data = noise((9, 10, 11), 0, 200).astype(np.int16)
    nib.save(nib.Nifti1Image(data, AFFINE), tmp_path / "a.nii.gz")
    content = bytearray((tmp_path / "a.nii.gz").read_bytes())
    content[-8] ^= 1
    (tmp_path / "a.nii.gz").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.nii\.gz: the gzip data are damaged"):
        io.read(tmp_path / "a.nii.gz")
