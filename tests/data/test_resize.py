"""Slices resized for training: anatomy keeps its shape and its millimetres, foregrounds and conditions follow."""

import nibabel as nib
import numpy as np
import pytest

from cdm4mi.config import parse_config
from cdm4mi.config.schema import DataConfig
from cdm4mi.data.patient import Patient
from cdm4mi.data.prepare import prepare
from cdm4mi.data.resize import resized_patient
from cdm4mi.data.sources import limited, load_patients
from cdm4mi.data.tasks import all_scans
from cdm4mi.degradation import Frame
from cdm4mi.training.run import PairData


def disc(rows, columns, radius):
    """A disc of value 1 on -1, in the middle; its foreground."""
    row, column = np.indices((rows, columns))
    inside = (row - (rows - 1) / 2) ** 2 + (column - (columns - 1) / 2) ** 2 < radius**2
    return np.where(inside, 1, -1).astype(np.float16), inside


def patient(rows=60, columns=90, radius=24, name="a", count=1, conditions=None):
    image, mask = disc(rows, columns, radius)
    frame = Frame(0.0, 100.0, "MR", (2.0, 1.0))
    noisy = None if conditions is None else [image + np.float16(conditions)] * count
    return Patient(name, "MR-a", [image] * count, [mask] * count, (3.0, 2.0, 1.0), [frame] * count, noisy)


def extent(image):
    """Rows and columns that the bright part takes."""
    return tuple(int((image > 0).any(axis=axis).sum()) for axis in (1, 0))


def test_a_side_keeps_the_shape_of_the_anatomy_and_its_millimetres():
    one = resized_patient(patient(), 45)
    assert one.slices[0].shape == (45, 45)
    assert extent(one.slices[0]) == pytest.approx((24, 24), abs=1)
    assert one.frame(0).spacing == (4.0, 2.0)
    assert one.spacing == (3.0, 4.0, 2.0)
    assert one.foregrounds[0].dtype == bool
    assert np.mean(one.foregrounds[0] == (one.slices[0] > 0)) > 0.99
    assert one.slices[0].dtype == np.float16
    assert np.abs(one.slices[0]).max() <= 1


def test_rows_and_columns_stretch_to_exactly_that():
    one = resized_patient(patient(), [60, 45])
    assert one.slices[0].shape == (60, 45)
    assert extent(one.slices[0]) == pytest.approx((48, 24), abs=1)
    assert one.frame(0).spacing == (2.0, 2.0)


def test_real_conditions_follow_and_are_not_clipped():
    one = resized_patient(patient(conditions=0.5), 45)
    inside = one.slices[0] > 0.99
    np.testing.assert_allclose(one.conditions[0][22, 22], 1.5, atol=0.01)
    assert inside[22, 22]
    assert one.conditions[0].shape == (45, 45)


def test_the_same_size_changes_nothing_and_shrinking_does_not_alias():
    same = patient(64, 64)
    np.testing.assert_array_equal(resized_patient(same, 64).slices[0], same.slices[0])
    stripes = patient(64, 64)
    stripes.slices = [np.tile(np.array([-0.8, 0.8], np.float16), (64, 32))]
    shrunk = resized_patient(stripes, 16).slices[0].astype(float)
    assert np.abs(shrunk[:, 2:-2]).max() < 0.05


def volumes(folder, people=2, count=4):
    for person in range(people):
        slices = np.stack([disc(48, 36, 14)[1] * (300.0 + 100 * person) + 5 for _ in range(count)])
        scan = nib.Nifti1Image(slices.T.astype(np.float32), np.diag([2.0, 1.0, 3.0, 1.0]))
        nib.save(scan, folder / f"sub-{person}.nii.gz")
    return folder


def test_scans_and_hdf5_patches_are_read_at_the_size(tmp_path, hdf5_folder):
    read = load_patients(DataConfig(paths=[str(volumes(tmp_path))], resize=32), 32, 0)
    assert {s.shape for p in read for s in p.slices} == {(32, 32)}
    assert read[0].frame(0).spacing == pytest.approx((1.5, 3.0))
    patches = load_patients(DataConfig(kind="hdf5", paths=[str(hdf5_folder(2))], resize=[16, 32]), 16, 0)
    assert {s.shape for p in patches for s in p.slices} == {(16, 32)}


def test_a_store_is_read_resized_and_gives_what_its_scans_do(tmp_path):
    folder = volumes(tmp_path, people=3)
    prepare(all_scans([folder], tmp_path / "store"), tmp_path / "store", workers=1)
    stored = load_patients(DataConfig(kind="store", paths=[str(tmp_path / "store")], resize=24), 24, 0)
    read = load_patients(DataConfig(paths=[str(folder)], resize=24), 24, 0)
    known = [plane.astype(float) for p in read for plane in p.slices]
    for one in stored:
        assert one.slices[0].shape == (24, 24)
        whole = one.slices[0][:, :].astype(float)
        np.testing.assert_array_equal(one.slices[0][4:9, 3:], whole[4:9, 3:])
        assert min(np.abs(whole - other).max() for other in known) < 0.02
        assert one.foregrounds[0][:, :].dtype == bool


def test_so_many_slices_are_trained_on_spread_over_the_patients(tmp_path):
    people = [patient(name=name, count=count) for name, count in (("a", 5), ("b", 3), ("c", 2))]
    assert [(p.name, len(p.slices), len(p.frames)) for p in limited(people, 3)] == [("a", 2, 2), ("c", 1, 1)]
    assert sum(len(p.slices) for p in limited(people, 7)) == 7
    assert limited(people, 50) == people
    assert limited(people, None) == people
    beside = patient(name="a", count=4)
    beside.neighbours = [[plane, plane] for plane in beside.slices]
    beside.contrasts = [[plane] for plane in beside.slices]
    (less,) = limited([beside], 2)
    assert all(above is plane for plane, (above, _) in zip(less.slices, less.neighbours, strict=True))
    assert all(other is plane for plane, (other,) in zip(less.slices, less.contrasts, strict=True))
    data = {"paths": [str(volumes(tmp_path, people=3))], "train_slices": 1, "val_patches": 2, "val_fraction": 0.3}
    pairs = PairData(parse_config({"model": {"image_size": 32}, "data": data}))
    assert pairs.summary.slices_train == 1
    assert len(pairs.summary.patients_train) == 1
    assert pairs.summary.slices_val == 4
