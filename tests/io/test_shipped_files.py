"""Every file that pydicom and nibabel ship and that can be read survives a round trip, bit-equal and in its place."""

from __future__ import annotations

import numpy as np
import pytest

from cdm4mi import io
from cdm4mi.errors import UserError
from experiments.bad_files import shipped_files

# Headers that a derived image cannot be made of: no SOP class or instance UID, or a text that does not decode.
REFUSED = ("SOPClassUID", "malformed", "cannot be written")


def readable(kind):
    for path in shipped_files():
        try:
            for info, volume in io.read_all(path):
                if info.kind == kind:
                    yield path.name, volume
        except UserError:
            continue


@pytest.mark.parametrize("kind, least", [("dicom", 60), ("nifti", 7)])
def test_round_trip(kind, least, tmp_path):
    came_back, refused = 0, []
    for number, (name, volume) in enumerate(readable(kind)):
        target = tmp_path / (f"{number}.nii" if kind == "nifti" else f"{number}")
        try:
            io.write(volume, target)
        except UserError as error:
            assert any(reason in str(error) for reason in REFUSED), (name, error)
            refused.append(name)
            continue
        again = io.read(target)
        assert np.array_equal(again.array, volume.array, equal_nan=True), name
        assert np.array_equal(again.affine, volume.affine), name
        came_back += 1
    assert came_back >= least and len(refused) <= came_back // 10, (came_back, refused)
