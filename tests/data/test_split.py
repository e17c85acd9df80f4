"""Splits are by patient: nobody is in two of them, and the seed decides."""

import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdm4mi.config.schema import Config
from cdm4mi.data.split import split_patients
from cdm4mi.errors import UserError
from cdm4mi.training.run import PairData

NAMES = [f"sub-{i:02d}" for i in range(20)]


@settings(deadline=None)
@given(st.integers(2, 60), st.floats(0, 1), st.integers(0, 1000))
def test_disjoint_complete_and_neither_empty(count, fraction, seed):
    names = [f"p{i}" for i in range(count)]
    train, val = split_patients(names, fraction, seed)
    assert train
    assert val
    assert not set(train) & set(val)
    assert sorted(train + val) == sorted(names)


def test_same_seed_same_split_in_any_order_of_files_another_seed_another():
    assert split_patients(NAMES, 0.2, 1) == split_patients(NAMES[::-1] + NAMES[:3], 0.2, 1)
    assert split_patients(NAMES, 0.2, 1) != split_patients(NAMES, 0.2, 2)
    assert len(split_patients(NAMES, 0.2, 1)[1]) == 4


def test_named_patients_are_the_ones_kept_apart():
    train, val = split_patients(NAMES, 0.5, 0, ["sub-03", "sub-01"])
    assert val == ["sub-01", "sub-03"]
    assert len(train) == 18


@pytest.mark.parametrize(
    ("names", "val", "message"),
    [
        ([], None, "found no patient"),
        (NAMES, ["sub-99"], "found 'sub-99', expected one of sub-00"),
        (NAMES, NAMES, "expected at least one left to train on"),
    ],
)
def test_a_split_that_cannot_be_is_one_clear_line(names, val, message):
    with pytest.raises(UserError, match=message) as error:
        split_patients(names, 0.1, 0, val)
    assert "\n" not in str(error.value)


def test_a_single_patient_is_in_both_and_it_is_said(hdf5_folder, caplog):
    folder = hdf5_folder(people=1)
    with caplog.at_level(logging.WARNING, "cdm4mi.training"):
        data = PairData(Config.model_validate(settings(folder)))
    assert "one patient only" in caplog.text
    assert data.train_names == data.val_names


def test_patches_of_one_patient_stay_together(hdf5_folder):
    data = PairData(Config.model_validate(settings(hdf5_folder(people=6))))
    assert not set(data.train_names) & set(data.val_names)
    assert set(data.train_names) | set(data.val_names) == {f"sub-{i:02d}" for i in range(6)}
    held = {int(p.slices[0][0, 0] * 100) for group in data.val_pairs.sources for p in group}
    seen = {int(p.slices[0][0, 0] * 100) for group in data.train_pairs.sources for p in group}
    assert not held & seen


def settings(folder):
    return {"model": {"image_size": 16}, "data": {"kind": "hdf5", "paths": [str(folder)], "val_fraction": 0.3}}
