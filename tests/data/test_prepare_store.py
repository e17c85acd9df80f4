"""What goes into a store comes out: physical values within the stated error, on any read of a part of a slice."""

import nibabel as nib
import numpy as np
import pytest
import scans_to_prepare as made
from hypothesis import given, settings
from hypothesis import strategies as st
from stores_to_plan import rewritten

from cdm4mi.data import store
from cdm4mi.data.manifest import read_manifest
from cdm4mi.data.prepare import prepare
from cdm4mi.data.records import ScanContent
from cdm4mi.data.store import choose_grid, slice_hash, write_scan
from cdm4mi.data.stored import scan_of
from cdm4mi.data.tasks import all_scans
from cdm4mi.errors import UserError
from cdm4mi.io.volume import Source
from cdm4mi.window import IntensityWindow


def stored(path, out):
    """(record, reader) of the only scan of a store made of one file."""
    report = prepare(all_scans([path], out), out, workers=1)
    assert report.bad == []
    folder, manifest = read_manifest(out)
    (record,) = manifest.scans
    return record, scan_of(record, folder, [-1000.0, 1000.0])


def physical(record, reader):
    return np.stack([reader.read("target", k, np.s_[:, :]) for k in range(record.slices)])


def test_hounsfield_units_come_back_exactly_as_int16(tmp_path):
    hu = made.slices("CT", 1)
    hu[:, :4] = -3024  # a scanner's padding
    record, reader = stored(made.nifti(tmp_path / "a.nii.gz", hu), tmp_path / "store")
    assert record.stored["target"].model_dump() == {"dtype": "int16", "scale": 1.0, "offset": 0.0, "error": 0.0}
    assert np.array_equal(physical(record, reader), hu)


@pytest.mark.parametrize(
    ("values", "dtype", "exact"),
    [
        (lambda mr: mr * 60, np.uint16, True),  # whole numbers beyond int16, which need an offset
        (lambda mr: mr * np.float32(0.731), np.float32, False),
        (lambda mr: mr * np.float32(1e-9), np.float32, False),
    ],
)
def test_other_units_come_back_within_the_stated_error(values, dtype, exact, tmp_path):
    array = values(made.slices("MR", 1)).astype(dtype)
    record, reader = stored(made.nifti(tmp_path / "a.nii.gz", array, dtype=dtype), tmp_path / "store")
    how, found = record.stored["target"], physical(record, reader)
    off = np.abs(found.astype(np.float64) - array).max()
    assert how.dtype == "int16"
    assert off <= how.error * (1 + 1e-6)
    assert (how.error == 0) == exact
    window = record.normalisation
    assert how.error <= (window.high - window.low) * 2**-13


def test_the_steps_of_a_scaled_file_are_kept(tmp_path):
    image = nib.Nifti1Image(made.slices("MR", 1).astype(np.int16).T, np.eye(4))
    image.header.set_slope_inter(0.0173, -2.5)
    nib.save(image, tmp_path / "a.nii.gz")
    record, _ = stored(tmp_path / "a.nii.gz", tmp_path / "store")
    assert record.stored["target"].error == 0
    assert record.stored["target"].scale == pytest.approx(0.0173)


def test_values_too_far_apart_for_16_bits_are_float32():
    values = np.random.default_rng(0).normal(size=(1, 8, 8)).astype(np.float32)
    values[0, 0, 0] = 1e7
    assert choose_grid(values, None, IntensityWindow(0, 1, "MR")) is None
    assert choose_grid(values.clip(-3, 3), None, IntensityWindow(0, 1, "MR")) is not None


@settings(deadline=None, max_examples=30)
@given(st.floats(-1e5, 1e5), st.floats(1, 1e5), st.floats(1e-4, 10), st.floats(-2000, 2000))
def test_int16_never_is_off_by_more_than_half_its_step(low, span, slope, intercept):
    values = np.random.default_rng(0).uniform(low, low + span, (2, 9, 7)).astype(np.float32)
    source = Source("nifti", dtype=np.dtype(np.int16), slope=slope, intercept=intercept)
    grid = choose_grid(values, source, IntensityWindow(low, low + span, "MR"))
    assert grid is not None
    rounding = np.spacing(np.float32(abs(low) + span))
    assert np.abs(grid.decode(grid.encode(values)) - values).max() <= grid.slope / 2 + 2 * rounding


def test_a_part_of_a_slice_is_the_part_of_the_slice(tmp_path):
    record, reader = stored(made.nifti(tmp_path / "a.nii.gz", made.slices("CT", 1, side=150)), tmp_path / "store")
    plane, mask = store.StoredSlice(reader, 1), store.StoredForeground(reader, 1)
    whole = plane[:, :]
    assert plane.shape == whole.shape == (150, 150)
    assert whole.dtype == np.float32
    expected = (physical(record, reader)[1] / 1000).clip(-1, 1)
    assert np.allclose(whole, expected, atol=1e-6)
    assert np.array_equal(mask[:, :], physical(record, reader)[1] > -500)
    for place in (np.s_[0:64, 0:64], np.s_[37:101, 70:134], np.s_[149:150, 3:4]):
        assert np.array_equal(plane[place], whole[place])
        assert np.array_equal(mask[place], mask[:, :][place])


def test_a_slice_is_known_again_mirrored_turned_and_from_another_file_format():
    image = np.round(made.slices("CT", 3)[0])
    for turned in (image[::-1], image[:, ::-1], image.T, np.rot90(image, 3), image.astype(np.float32) * 1.0):
        assert slice_hash(turned) == slice_hash(image)
    other = image.copy()
    other[5, 5] += 1
    assert slice_hash(other) != slice_hash(image)


def test_a_scan_file_is_the_same_to_the_byte_each_time(tmp_path):
    values = made.slices("MR", 2).astype(np.float32)
    record, _ = stored(made.nifti(tmp_path / "a.nii.gz", values), tmp_path / "store")
    content = ScanContent(**{name: getattr(record, name) for name in ScanContent.model_fields})
    files = [tmp_path / folder / "scans" / "a.h5" for folder in ("one", "two")]
    for file in files:
        write_scan(file, content, {"target": (values, None)})
    assert files[0].read_bytes() == files[1].read_bytes()


def test_slices_that_show_nothing_are_left_out(tmp_path):
    hu = np.concatenate([made.slices("CT", 1), np.full((2, made.SIDE, made.SIDE), -1000)])
    record, reader = stored(made.nifti(tmp_path / "a.nii.gz", hu), tmp_path / "store")
    assert record.shape == [5, made.SIDE, made.SIDE]
    assert record.index == [0, 1, 2]
    assert len(physical(record, reader)) == 3


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m["scans"][0].pop("patient"), "scans.0.patient: Field required"),
        (lambda m: m["scans"][0].update(split="all"), "scans.0.split: Input should be 'train', 'val' or 'test'"),
        (lambda m: m["scans"][0].update(normalisation={"low": 1, "high": 0}), "found 1 to 0, expected low below high"),
        (lambda m: m["settings"].update(window_hu=None), "settings.window_hu"),
        (lambda m: m.update(weights="x"), "weights: Extra inputs are not permitted"),
        (lambda m: m.update(format=2), "is not a manifest of format 1"),
    ],
)
def test_a_manifest_of_another_program_is_refused_in_one_line(change, words, tmp_path):
    stored(made.nifti(tmp_path / "a.nii.gz", made.slices("CT", 1)), tmp_path / "store")
    rewritten(tmp_path / "store", change)
    with pytest.raises(UserError) as error:
        read_manifest(tmp_path / "store")
    assert words in str(error.value) and "\n" not in str(error.value)
