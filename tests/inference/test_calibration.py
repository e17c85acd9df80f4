"""Calibrated intervals cover what they claim, on images that the fit has not seen."""

from __future__ import annotations

import numpy as np
import pytest

from cdm4mi.config.schema import SamplingConfig
from cdm4mi.inference.calibration import HALF_WIDTH, LEAST_IMAGES, calibrated, fit_calibration, fits, noise_kind
from cdm4mi.models.about import Calibration

SAMPLING = SamplingConfig(estimate="mean-of-k", samples=8, steps=10)


def world(n, seed, overconfidence=2.0):
    """Errors of a known, varying standard deviation, and what 8 overconfident samples show of it."""
    rng = np.random.default_rng(seed)
    true = 0.02 + 0.1 * (np.indices((48, 48)).sum(0) % 24 > 11)[None].repeat(n, 0)
    error = true * rng.standard_normal(true.shape)
    samples = true / overconfidence * rng.standard_normal((8, *true.shape))
    return error, samples.std(0, ddof=1), true


def fitted(**kind):
    error, spread, _ = world(20, 0, **kind)
    groups = [f"patient {k % 2}" for k in range(20)]
    return fit_calibration(error, spread, [0.2] * 20, np.ones(error.shape, bool), groups, ["white"] * 20, SAMPLING)


@pytest.mark.parametrize("overconfidence", [0.5, 1.0, 3.0])
def test_intervals_cover_ninety_percent_of_unseen_images(overconfidence):
    calibration = fitted(overconfidence=overconfidence)
    error, spread, _ = world(10, 1, overconfidence)
    covered = np.abs(error) <= HALF_WIDTH * calibrated(calibration, spread, 0.2, "white")
    assert covered.mean() == pytest.approx(0.9, abs=0.01)
    assert calibration.coverage_after == pytest.approx(0.9, abs=0.01)


def test_overconfident_samples_are_told_of():
    assert fitted(overconfidence=3.0).coverage_before < 0.5
    # the spread of eight samples is itself uncertain, so that even honest samples cover less than their intervals say
    assert 0.8 < fitted(overconfidence=1.0).coverage_before < 0.9


def test_the_calibrated_deviation_follows_the_error():
    calibration = fitted()
    _, spread, true = world(1, 2)
    predicted = calibrated(calibration, spread, 0.2, "white")
    noisy, quiet = true > 0.05, true < 0.05
    assert predicted[noisy].mean() > 3 * predicted[quiet].mean()
    assert np.corrcoef(predicted.ravel(), true.ravel())[0, 1] > 0.85


def test_it_is_for_the_settings_it_was_fitted_on_and_survives_a_checkpoint():
    calibration = fitted()
    again = Calibration.model_validate_json(calibration.model_dump_json())
    assert again == calibration and fits(again, SAMPLING)
    assert not fits(again, SAMPLING.model_copy(update={"steps": 20}))
    assert fits(again, SAMPLING.model_copy(update={"tile": 64}))


def test_noise_is_named_by_its_texture():
    assert noise_kind("CT", (0.0, 0.1, 0.0)) == "white noise in CT images"
    assert noise_kind("PT", (0.5, 0.0, 0.0)) == "correlated noise in PT images"
    assert noise_kind("MR", (-0.1, 0.0, 1.0)) == "white noise in MR magnitudes"
    assert noise_kind("MR", (0.3, 0.3, 1.0)) == "correlated noise in MR magnitudes"


def test_each_kind_of_noise_has_intervals_of_its_own():
    """Samples that are surer of one kind than of the other, and one kind that was seen too seldom."""
    honest, sure = world(20, 0, 1.0), world(20, 1, 3.0)
    few = world(LEAST_IMAGES - 1, 2, 1.0)
    error, spread = (np.concatenate([part[k] for part in (honest, sure, few)]) for k in (0, 1))
    kinds = ["white"] * 20 + ["correlated"] * 20 + ["white magnitude"] * len(few[0])
    groups = [f"patient {k % 2}" for k in range(len(error))]
    calibration = fit_calibration(
        error, spread, [0.2] * len(error), np.ones(error.shape, bool), groups, kinds, SAMPLING
    )
    assert set(calibration.kinds) == {"white", "correlated"}
    for kind, overconfidence in (("white", 1.0), ("correlated", 3.0)):
        error, spread, _ = world(10, 3, overconfidence)
        covered = np.abs(error) <= HALF_WIDTH * calibrated(calibration, spread, 0.2, kind)
        assert covered.mean() == pytest.approx(0.9, abs=0.015)
        assert calibration.kinds[kind].coverage == pytest.approx(0.9, abs=0.015)


def test_intervals_cover_at_every_level_and_kind():
    """Samples whose overconfidence falls with the level in one kind of noise, and grows in another."""
    powers = {"white": 0.1, "correlated": -0.15}

    def drawn(level, n, seed, kind):
        rng = np.random.default_rng(seed)
        true = level * (0.2 + 0.5 * (np.indices((48, 48)).sum(0) % 24 > 11))[None].repeat(n, 0)
        samples = true * (level / 0.1) ** powers[kind] / 2 * rng.standard_normal((8, *true.shape))
        return true * rng.standard_normal(true.shape), samples.std(0, ddof=1)

    cases = [(level, kind) for kind in powers for level in (0.01, 0.05, 0.1, 0.4)]
    error, spread = (
        np.concatenate(part)
        for part in zip(*(drawn(level, 8, k, kind) for k, (level, kind) in enumerate(cases)), strict=True)
    )
    levels, kinds = ([case[k] for case in cases for _ in range(8)] for k in (0, 1))
    groups = [f"patient {k % 2}" for k in range(64)]
    calibration = fit_calibration(error, spread, levels, np.ones(error.shape, bool), groups, kinds, SAMPLING)
    assert {kind: found.exponent for kind, found in calibration.kinds.items()} == pytest.approx(powers)
    for k, (level, kind) in enumerate(cases):
        error, spread = drawn(level, 8, 10 + k, kind)
        covered = np.abs(error) <= HALF_WIDTH * calibrated(calibration, spread, level, kind)
        assert covered.mean() == pytest.approx(0.9, abs=0.015)


def test_one_level_says_nothing_of_others():
    assert fitted().kinds["white"].exponent == 0
