"""Augmentation: what it does to the clean image, that noise comes after it, and that seed and index decide it."""

import hashlib

import numpy as np
import pytest
import torch

from cdm4mi.config import parse_config
from cdm4mi.config.schema import AugmentConfig
from cdm4mi.data.pairs import PairDataset
from cdm4mi.data.patient import Patient
from cdm4mi.degradation import GaussianNoise
from cdm4mi.degradation.noises.identity import Identity
from cdm4mi.errors import UserError
from cdm4mi.training.run import PairData

SIZE = 16


def patient(image, name="a", conditions=None):
    image = np.asarray(image, np.float16)
    mask = np.ones(image.shape, bool)
    return Patient(name, "MR-a", [image], [mask], conditions=conditions)


def numbered(side=40):
    """A slice whose pixels are all different, in steps that float16 holds exactly."""
    return (np.arange(side * side).reshape(side, side) % 2048 - 1024) / 1024


def ramp(side=96):
    row, column = np.indices((side, side)) - (side - 1) / 2
    return (0.5 * row + 0.25 * column) / side


def pairs(image, noise=0.0, validation=False, **augment):
    options = {key: augment.pop(key) for key in ("patches_per_slice",) if key in augment}
    config = AugmentConfig(**augment) if augment else None
    return PairDataset(
        [patient(image)], GaussianNoise(variance=noise), SIZE, 3, validation=validation, augment=config, **options
    )


@pytest.mark.parametrize("block", [None, 4])
def test_the_default_is_what_it_was_bit_for_bit(block):
    """The digests are of patches that were made before there was anything to choose."""
    dataset = pairs(numbered(), patches_per_slice=block)
    made = b"".join(dataset[i]["x0"].numpy().tobytes() for i in range(40))
    assert hashlib.sha256(made).hexdigest()[:16] == {None: "12e11e7406b5e77b", 4: "0cce0c74d91b76e6"}[block]


def test_without_flips_and_turns_patches_are_as_in_the_slice():
    image = torch.from_numpy(numbered().astype(np.float32))
    windows = image.unfold(0, SIZE, 1).unfold(1, SIZE, 1)

    def upright(x0):
        return bool((windows == x0[0]).flatten(2).all(-1).any())

    assert all(upright(pairs(numbered(), flip=False, rotation=0)[i]["x0"]) for i in range(20))
    turned, flipped = pairs(numbered(), flip=False), pairs(numbered(), rotation=0)
    assert 1 < sum(upright(turned[i]["x0"]) for i in range(20)) < 12
    assert 3 < sum(upright(flipped[i]["x0"]) for i in range(20)) < 17
    for i in range(20):
        x0 = flipped[i]["x0"]
        assert upright(x0) or upright(x0.flip(2))


@pytest.mark.parametrize("block", [1, 3])
def test_an_angle_turns_by_at_most_that_and_leaves_no_corners_inside_the_slice(block):
    dataset = pairs(ramp(), flip=False, rotation=20, patches_per_slice=block)
    angles = []
    for i in range(60):
        x0 = dataset[i]["x0"][0].double()
        if x0.min() < ramp().min() - 0.01:  # a corner beyond the slice's edge
            continue
        inside = x0[3:-3, 3:-3]
        down, right = inside.diff(dim=0).mean() * 96, inside.diff(dim=1).mean() * 96
        assert float(torch.hypot(down, right)) == pytest.approx(np.hypot(0.5, 0.25), rel=0.02)
        angles.append(np.degrees(np.arctan2(right, down) - np.arctan2(0.25, 0.5)))
    assert len(angles) > 30
    assert 12 < np.max(np.abs(angles)) <= 20.2
    assert min(angles) < -5 < 5 < max(angles)


def test_contrast_scales_about_the_mean_and_noise_comes_after_it():
    plain, changed = pairs(ramp(), 0.01), pairs(ramp(), 0.01, contrast=1.0)
    factors, noises = [], []
    for i in range(40):
        before, after = plain[i], changed[i]
        torch.testing.assert_close(after["x0"].mean(), before["x0"].mean(), atol=1e-5, rtol=0)
        factors.append(float(after["x0"].std() / before["x0"].std()))
        noises.append(after["y"] - after["x0"])
        assert after["sigma"] == before["sigma"]
        torch.testing.assert_close(noises[-1], before["y"] - before["x0"], atol=1e-6, rtol=0)
    assert 0.5 <= min(factors) < 0.7 < 1.4 < max(factors) <= 2.0


def test_sharpness_changes_edges_alone_and_stays_on_the_scale():
    edge = np.where(np.arange(64) < 32, -0.5, 0.5) * np.ones((64, 1))
    dataset = pairs(edge, sharpness=1.0, flip=False, rotation=0)
    plain = pairs(edge, flip=False, rotation=0)
    steps = []
    for i in range(60):
        before, after = plain[i]["x0"][0, 4], dataset[i]["x0"][0, 4]
        if float(before.min()) == float(before.max()):
            torch.testing.assert_close(after, before, atol=1e-6, rtol=0)
            continue
        at = int(before.argmax())
        if 2 <= at < SIZE - 2:
            steps.append(float(after[at] - after[at - 1]))
            torch.testing.assert_close(after[at + 1 :], before[at + 1 :], atol=1e-6, rtol=0)
    # a 3 x 3 mean leaves a third of a step of 1: the whole of what it takes away is two thirds
    assert 1 / 3 <= min(steps) < 0.8 < 1.2 < max(steps) <= 5 / 3
    black = pairs(np.where(np.arange(64) < 32, -1.0, 1.0) * np.ones((64, 1)), sharpness=1.0)
    assert all(float(black[i]["x0"].abs().max()) <= 1 for i in range(20))


def test_seed_and_index_decide_and_validation_is_left_as_it_is():
    settings = {"contrast": 0.5, "sharpness": 0.5, "rotation": 30}
    forward, again = pairs(ramp(), 0.01, **settings), pairs(ramp(), 0.01, **settings)
    expected = [forward[i] for i in range(8)]
    for i in reversed(range(8)):
        assert all(torch.equal(again[i][key], expected[i][key]) for key in expected[i])
    judged, plain = (pairs(ramp(), 0.01, validation=True, **s) for s in (settings, {"rotation": 0}))
    assert all(torch.equal(judged[i]["x0"], plain[i]["x0"]) for i in range(8))


def test_real_noisy_scans_are_flipped_and_turned_only():
    image = np.asarray(ramp(), np.float16)
    people = [patient(image, conditions=[image])]
    for key, value in (("contrast", 0.5), ("sharpness", 0.5), ("rotation", 10)):
        with pytest.raises(
            UserError, match=f"data.augment.{key}: found {value:g} with real noisy scans, expected none"
        ):
            PairDataset(people, Identity(), SIZE, 0, augment=AugmentConfig(**{key: value}))
    PairDataset(people, Identity(), SIZE, 0, augment=AugmentConfig(rotation=0, flip=False))


def test_a_configuration_reaches_training_and_mistakes_are_named():
    data = {"kind": "phantoms", "augment": {"flip": False, "rotation": 0, "contrast": 0.3}}
    varied = PairData(parse_config({"model": {"image_size": 32}, "data": data}))
    plain = PairData(parse_config({"model": {"image_size": 32}, "data": {"kind": "phantoms"}}))
    assert not torch.equal(varied.train_pairs[0]["x0"], plain.train_pairs[0]["x0"])
    assert parse_config({}, ["augment.rotation=15", "sharpness=0.5"]).data.augment.rotation == 15
    for wrong, message in (
        ("rotation=half", "rotation: found 'half', expected 'quarter' or a number"),
        ("rotation=270", "rotation: found 270, expected at most 180"),
        ("contrast=-1", "contrast: found -1, expected at least 0"),
        ("flip=maybe", "flip: found 'maybe', expected true or false"),
        ("lesion_weight=30", "lesion_weight is 30 with lesions 0, expected lesions above 0"),
    ):
        with pytest.raises(UserError, match=message):
            parse_config({}, [f"data.augment.{wrong}"])
