"""What goes onto a page: values that come back, axes of the patient, windows, and volumes that do not fit."""

import base64
import re
import zlib

import numpy as np
import pytest
from corner_phantom import SPACING, as_dicom, as_nifti, corner_phantom, lps_volume

from cdm4mi import io
from cdm4mi.errors import UserError
from cdm4mi.io import Volume
from cdm4mi.viewer import make_scene, write_page
from cdm4mi.viewer.codes import NO_VALUE, encoded
from cdm4mi.viewer.oriented import oriented
from cdm4mi.viewer.page import packed
from cdm4mi.viewer.windows import greatest, presets


def unpacked(text):
    """The codes of an element of the page, by another way than the page's."""
    planes = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8).astype(int)
    folded = planes[: planes.size // 2] + 256 * planes[planes.size // 2 :]
    steps = np.where(folded % 2 == 0, folded // 2, -(folded + 1) // 2)
    return (np.cumsum(steps) % 65536).astype(np.uint16)


def values(coded):
    return np.where(coded.codes == NO_VALUE, np.nan, coded.low + (coded.codes.astype(float) - 1) * coded.step)


def test_whole_numbers_come_back_exactly_and_others_to_half_a_step():
    rng = np.random.default_rng(0)
    hu = rng.integers(-32000, 33000, 5000).astype(np.float32)
    assert np.array_equal(values(encoded(hu)), hu)
    floats = rng.normal(0, 1e-3, 5000).astype(np.float32)
    assert np.abs(values(encoded(floats)) - floats).max() <= 0.51 * np.ptp(floats) / 65534
    assert np.array_equal(values(encoded(np.full(3, 0.3, np.float32))), np.full(3, np.float64(np.float32(0.3))))
    odd = np.array([np.nan, 1.0, np.inf, 70000.0], np.float32)
    assert np.array_equal(np.isnan(values(encoded(odd))), [True, False, True, False])
    assert values(encoded(odd))[3] == pytest.approx(70000)


@pytest.mark.parametrize("axes", ["RAS", "LPS", "PSL", "IRA", "SAL"])
def test_axes_run_to_left_back_and_head_whatever_the_file_stores(tmp_path, axes):
    turned = oriented(io.read(as_nifti(tmp_path / "scan.nii.gz", axes)))
    assert np.array_equal(turned.array[0], corner_phantom())
    assert turned.spacing == pytest.approx(SPACING)
    assert turned.letters == [["R", "L"], ["A", "P"], ["I", "S"]]
    assert turned.corners()[0] == pytest.approx([-10, -20, 30])


def test_dicom_too_and_the_acquired_plane(tmp_path):
    turned = oriented(io.read(as_dicom(tmp_path / "series")))
    assert np.array_equal(turned.array[0], corner_phantom())
    assert turned.corners()[0] == pytest.approx([-10, -20, 30])
    assert turned.acquired == 1  # coronal slices follow each other along y


def test_an_oblique_axis_has_two_letters_and_a_picture_none(tmp_path):
    angle = np.radians(30)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([-1, -1, 1])
    assert oriented(Volume(corner_phantom(), affine)).letters == [["RA", "LP"], ["AL", "PR"], ["I", "S"]]
    io.write(Volume(np.arange(20, dtype=np.float32).reshape(1, 4, 5), np.eye(4)), tmp_path / "picture.png")
    plain = oriented(io.read(tmp_path / "picture.png"))
    assert plain.letters is None
    assert np.array_equal(plain.array[0, 0], np.arange(20).reshape(4, 5))


def test_a_restored_scan_in_another_order_is_laid_on_the_input(tmp_path):
    scan, restored = io.read(as_dicom(tmp_path / "series")), io.read(as_nifti(tmp_path / "restored.nii.gz", "PSL"))
    scene = make_scene(scan, [restored])
    assert [p.title for p in scene.pictures] == ["input", "restored"]
    assert np.array_equal(scene.pictures[0].codes, scene.pictures[1].codes)


@pytest.mark.parametrize(
    "other, message",
    [
        (lps_volume(corner_phantom((6, 20, 25))), "b.nii: has 6 x 20 x 25 voxels, expected the 6 x 20 x 24 of a.nii"),
        (Volume(corner_phantom(), np.diag([-0.5, -1.0, 3.0, 1.0])), "b.nii: lies elsewhere in the patient than a.nii"),
        (lps_volume(np.stack([corner_phantom()] * 2)), "b.nii: has 2 time point(s), expected the 1 of a.nii"),
        (
            Volume(np.zeros((6, 20, 24, 3), np.float32), np.eye(4), channel_axis=-1),
            "b.nii: is a colour image, expected a grey one",
        ),
    ],
)
def test_what_does_not_fit_is_named(other, message):
    with pytest.raises(UserError, match=re.escape(message)):
        make_scene(lps_volume(corner_phantom()), [other], names=["a.nii", "b.nii"])


def test_titles_windows_and_ranges():
    scan = lps_volume(corner_phantom())
    higher = [lps_volume(scan.array + shift) for shift in (10, -30)]
    facts = make_scene(scan, higher, lps_volume(np.full_like(scan.array, 7.0))).described()
    assert [p["title"] for p in facts["pictures"]] == ["input", "restored 1", "restored 2", "uncertainty"]
    assert (facts["difference"], facts["uncertainty"], facts["unit"]) == (30.0, 7.0, "HU")
    assert {p["name"]: (p["low"], p["high"]) for p in facts["presets"]}["Brain"] == (0, 80)


def test_uneven_and_tilted_slices_are_named():
    scan = lps_volume(corner_phantom())
    assert make_scene(scan).facts["notes"] == []
    scan.slice_origins = np.zeros((6, 3))
    scan.affine[1, 2] = 1.0  # 3 mm up and 1 mm to the front
    assert [note[:24] for note in make_scene(scan).facts["notes"]] == [
        "The slices are spaced un",
        "The slices are stacked a",
    ]


def test_percentiles_are_of_the_foreground():
    rng = np.random.default_rng(0)
    image = np.where(rng.random((4, 50, 50)) < 0.5, 0, rng.uniform(100, 200, (4, 50, 50))).astype(np.float32)
    found = {preset.name: (preset.low, preset.high) for preset in presets(image, "MR")}
    assert found["0–99.5 %"] == pytest.approx((0, 199.5), abs=0.5)
    assert found["5–95 %"] == pytest.approx((105, 195), abs=1)
    assert found["All"] == (0, float(image.max()))
    constant = presets(np.zeros((1, 4, 4), np.float32), "MR")
    assert all(preset.low < preset.high for preset in constant)
    assert greatest(np.zeros(5)) == 1.0


def test_codes_of_any_size_can_be_packed():
    codes = np.random.default_rng(0).integers(0, 65536, 10000).astype("<u2")
    codes[:4] = 0, 65535, 0, 32768
    assert np.array_equal(unpacked(base64.b64encode(packed(codes))), codes)


def test_the_elements_of_the_page_hold_every_voxel_those_in_the_middle_first(tmp_path):
    rng = np.random.default_rng(0)
    scan = Volume(rng.integers(-1000, 3000, (70, 300, 300)).astype(np.float32), np.eye(4), "CT")
    scene = make_scene(scan)
    write_page(scene, tmp_path / "page.html")
    parts = re.findall(r'data-block="0-0" data-start="(\d+)">([^<]*)<', (tmp_path / "page.html").read_text("utf-8"))
    assert len(parts) > 2
    whole = np.zeros(scan.array.size, np.uint16)
    for start, text in parts:
        codes = unpacked(text)
        whole[int(start) : int(start) + codes.size] = codes
    assert np.array_equal(whole, scene.pictures[0].codes.reshape(-1))
    first = int(parts[0][0])
    assert first <= 35 * 300 * 300 < first + unpacked(parts[0][1]).size
