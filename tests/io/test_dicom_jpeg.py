"""JPEG inside DICOM: exact where it is lossless, and no damage ends the process, as it does in GDCM."""

from __future__ import annotations

import imagecodecs
import numpy as np
import pydicom
import pytest
from dicom_series import save_one, slices
from pydicom.encaps import encapsulate
from pydicom.uid import UID, JPEGBaseline8Bit, JPEGLossless, JPEGLosslessSV1

from cdm4mi import io
from cdm4mi.errors import UserError


def jpeg_file(path, syntax, bits=16, signed=False):
    """Save a slice with a pattern of stored values in a JPEG stream, and return the values."""
    save_one(slices(count=1, rows=32, columns=40, bits=bits, signed=signed, slope=1.0, intercept=0.0)[0], path)
    rows, columns = np.mgrid[:32, :40]
    stored = (rows * 37 + columns * 11) % (1 << (bits - signed)) - (1 << (bits - 1)) * signed
    width = 1 if bits == 8 else 2
    lossless = {} if syntax == JPEGBaseline8Bit else {"lossless": True, "predictor": 1}
    ds = pydicom.dcmread(path)
    ds.file_meta.TransferSyntaxUID = UID(syntax)
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 8 * width, bits, bits - 1
    ds.PixelData = encapsulate([imagecodecs.jpeg8_encode(stored.astype(f"i{width}").view(f"u{width}"), **lossless)])
    ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    ds.save_as(path)
    return stored


@pytest.mark.parametrize("syntax", [JPEGLossless, JPEGLosslessSV1])
@pytest.mark.parametrize("bits, signed", [(16, False), (16, True), (12, False), (12, True), (8, False)])
def test_lossless_is_exact(syntax, bits, signed, tmp_path):
    stored = jpeg_file(tmp_path / "in.dcm", syntax, bits, signed)
    assert np.array_equal(io.read(tmp_path / "in.dcm").array[0], stored)


def test_baseline_is_near(tmp_path):
    stored = jpeg_file(tmp_path / "in.dcm", JPEGBaseline8Bit, bits=8)
    error = np.abs(io.read(tmp_path / "in.dcm").array[0] - stored)
    assert np.median(error) <= 1 and error.max() < 25  # the values jump from 255 to 0 here and there


@pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, JPEGLosslessSV1, "1.2.840.10008.1.2.4.90"])
def test_damage_ends_with_one_line(syntax, tmp_path, capfd):
    path = tmp_path / "in.dcm"
    if syntax.endswith("90"):
        save_one(slices(count=1, rows=32, columns=40, bits=12, signed=False)[0], path, UID(syntax))
    else:
        jpeg_file(path, syntax, bits=8)
    whole = path.read_bytes()
    start = whole.index(b"\xff\x4f\xff\x51" if syntax.endswith("90") else b"\xff\xd8")
    rng = np.random.default_rng(1)
    refused = 0
    for _ in range(300):
        damaged = bytearray(whole)
        for at in rng.integers(start, min(len(whole), start + 400), size=rng.integers(1, 8)):
            damaged[at] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            io.read(path)
        except UserError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > 50
    assert capfd.readouterr().err == ""
