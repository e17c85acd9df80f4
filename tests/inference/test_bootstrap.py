"""The parametric bootstrap: its noise is the scan's, its errors those of the restoration, its intervals narrower where
the model errs less."""

import numpy as np
import pytest
from calibrated_model import with_calibration
from scipy.ndimage import gaussian_filter

from cdm4mi.config.schema import SamplingConfig
from cdm4mi.data.phantoms import phantom
from cdm4mi.inference.bootstrap import PARTS, SIDE, noisy_again, parts_of, repeated
from cdm4mi.inference.calibration import (
    HALF_WIDTH,
    LEAST_RATIO,
    bootstrap_ratio,
    calibrated,
    fit_calibration,
)
from cdm4mi.inference.restorer import Restorer
from cdm4mi.inference.settings import changed
from cdm4mi.io import Volume

SAMPLING = SamplingConfig(estimate="mean-of-k", samples=8, steps=10)


def neighbours(noise):
    """Correlation with the next row."""
    return float((noise[..., 1:, :] * noise[..., :-1, :]).mean() / (noise**2).mean())


@pytest.mark.parametrize("smoothing", [0.0, 0.8])
def test_new_noise_has_the_spectrum_of_what_was_removed_and_the_level_asked_for(smoothing):
    noise = np.random.default_rng(0).standard_normal((4, 96, 96))
    removed = 0.7 * gaussian_filter(noise, (0, smoothing, smoothing), mode="wrap") / (1 if smoothing == 0 else 0.35)
    clean = np.zeros((4, 96, 96))
    added = noisy_again(clean + removed, clean, 0.2, 1) - clean
    assert added.std() == pytest.approx(0.2, rel=0.02) and abs(added.mean()) < 0.01
    assert neighbours(added) == pytest.approx(neighbours(removed), abs=0.03)
    assert abs((added * removed).mean()) < 0.02 * added.std() * removed.std() * 3  # and is another draw


def test_new_noise_of_magnitudes_is_rician():
    """Without signal the mean is that of a Rayleigh distribution; far above the noise it is the signal."""
    rng = np.random.default_rng(0)
    clean = np.full((2, 96, 96), -1.0)
    clean[:, :, 48:] = 0.5
    noisy = np.hypot(clean + 1 + 0.1 * rng.standard_normal(clean.shape), 0.1 * rng.standard_normal(clean.shape)) - 1
    again = noisy_again(noisy, clean, 0.1, 1, zero=-1.0)
    assert (again[:, :, :48] + 1).mean() == pytest.approx(0.1 * np.sqrt(np.pi / 2), rel=0.02)
    assert again[:, :, 48:].mean() == pytest.approx(0.5 + 0.1**2 / 3, abs=0.003)
    assert again.min() >= -1


def test_the_error_of_a_filter_is_its_own():
    """Of a linear filter what the second restoration gets wrong is known: bias, and half of the new noise."""
    noisy = 0.3 + 0.1 * np.random.default_rng(1).standard_normal((1, 1, 96, 96))

    def halved(condition, number):
        return 0.5 * condition, np.full(condition.shape, 0.1)

    found = repeated(halved, noisy, 0.1, None, 0)
    np.testing.assert_allclose(found.mean, 0.5 * noisy[0])
    noise = found.error + 0.5 * found.mean  # 0.5 (mean + noise) - mean
    assert noise.std() == pytest.approx(0.05, rel=0.05)
    again = repeated(halved, noisy, 0.1, None, 0)
    np.testing.assert_array_equal(again.error, found.error)
    other = repeated(halved, noisy, 0.1, None, 0, seed=1)
    assert (other.error != found.error).mean() > 0.9


def test_other_channels_stay_as_they_are():
    seen = []

    def restore(condition, number):
        seen.append(condition.copy())
        return condition[:, :1] * 0.9, 0 * condition[:, :1]

    condition = np.random.default_rng(0).standard_normal((1, 3, 32, 32)) * 0.1
    repeated(restore, condition, 0.1, None, 0)
    first, second = seen
    np.testing.assert_array_equal(first, condition)
    np.testing.assert_array_equal(second[:, 1:], condition[:, 1:])
    assert (second[:, 0] != condition[:, 0]).all()


def test_parts_lie_in_the_patient_and_are_spread_over_the_scan():
    volume = np.zeros((40, 200, 180))
    volume[10:, 60:, 40:] = 1.0
    parts = parts_of(volume, lambda image: image > 0.5)
    assert len(parts) == PARTS and parts == parts_of(volume, lambda image: image > 0.5)
    assert parts != parts_of(volume, lambda image: image > 0.5, seed=1)
    assert len({part.number for part in parts}) > 3
    for part in parts:
        piece = volume[part.number][part.crop]
        assert piece.shape == (SIDE, SIDE) and piece.mean() >= 0.5


def test_small_slices_are_taken_whole_and_small_scans_once():
    assert len(parts_of(np.ones((1, 128, 200)), lambda image: image > 0)) == 2
    (part,) = parts_of(np.ones((1, 50, 120)), lambda image: image > 0)
    assert part.number == 0 and np.ones((50, 120))[part.crop].shape == (50, SIDE)
    (part,) = parts_of(np.zeros((1, 50, 60)), lambda image: image > 0)
    assert np.ones((50, 60))[part.crop].shape == (50, 60)


def world(rng, images, told=True):
    """Errors whose size differs from image to image, samples that do not know it, and a bootstrap that does."""
    factors = rng.lognormal(0.0, 0.6, (images, 1, 1))
    error = 0.1 * factors * rng.standard_normal((images, 48, 48))
    spread = (0.1 * rng.standard_normal((8, images, 48, 48))).std(0, ddof=1)
    seen = factors if told else rng.lognormal(0.0, 0.6, (images, 1, 1))
    return error, spread, 0.07 * seen * rng.standard_normal((images, 48, 48))


def fitted(told=True, repeated=True):
    error, spread, again = world(np.random.default_rng(0), 40, told)
    everywhere = np.ones(error.shape, bool)
    groups = [f"patient {k % 2}" for k in range(40)]
    options = {"repeated": again} if repeated else {}
    return fit_calibration(error, spread, [0.2] * 40, everywhere, groups, ["white"] * 40, SAMPLING, **options)


@pytest.fixture(scope="module")
def calibration():
    return fitted()


def coverages(calibration, rng):
    """Of unseen images the share inside the interval: its mean, first and last tenth."""
    error, spread, again = world(rng, 100)
    covered = []
    for e, s, a in zip(error, spread, again, strict=True):
        ratio = bootstrap_ratio(calibration.kinds["white"], a[None], s[None], 0.2, np.ones((1, 48, 48), bool))
        covered.append((np.abs(e) <= HALF_WIDTH * calibrated(calibration, s[None], 0.2, "white", ratio)[0]).mean())
    return np.mean(covered), np.quantile(covered, 0.1), np.quantile(covered, 0.9)


def test_intervals_follow_what_the_model_errs_on_each_scan(calibration):
    rng = np.random.default_rng(1)
    assert calibration.kinds["white"].bootstrap_power == 1
    mean, low, high = coverages(calibration, rng)
    assert mean == pytest.approx(0.9, abs=0.01) and low > 0.86 and high < 0.94
    without = fitted(repeated=False)
    assert without.kinds["white"].bootstrap_power == 0
    _, low, high = coverages(without, rng)
    assert low < 0.75 and high > 0.99


def test_a_bootstrap_that_says_nothing_is_not_used():
    assert fitted(told=False).kinds["white"].bootstrap_power == 0


def test_the_power_is_that_of_a_modality():
    """A bootstrap that tells the errors of CT and says nothing of those of MR."""
    rng = np.random.default_rng(0)
    both = [world(rng, 40), world(rng, 40, told=False)]
    error, spread, again = (np.concatenate(parts) for parts in zip(*both, strict=True))
    kinds = ["white noise in CT images", "correlated noise in CT images"] * 20 + ["white noise in MR images"] * 40
    groups = [f"patient {k % 4}" for k in range(80)]
    everywhere = np.ones(error.shape, bool)
    found = fit_calibration(error, spread, [0.2] * 80, everywhere, groups, kinds, SAMPLING, again).kinds
    assert [found[kind].bootstrap_power for kind in dict.fromkeys(kinds)] == [1, 1, 0]
    assert all(kind.coverage == pytest.approx(0.9, abs=0.03) for kind in found.values())


def test_nothing_inside_is_no_ratio(calibration):
    nothing, kind = np.zeros((1, 8, 8)), calibration.kinds["white"]
    assert bootstrap_ratio(kind, nothing, nothing + 1, 0.2, nothing > 0) == 1
    assert bootstrap_ratio(kind, nothing, nothing + 1, 0.2, nothing == 0) == LEAST_RATIO


def test_the_map_is_scaled_by_the_ratio_that_the_record_states(tiny):
    sampling = changed(tiny.config.sampling, estimate="mean-of-k", steps=2, samples=2)
    ct = phantom("CT", 50, 64)[None] + 150 * np.random.default_rng(0).standard_normal((3, 64, 64))
    volume = Volume(ct.astype(np.float32), np.diag([0.7, 0.7, 3.0, 1.0]), "CT")

    def restored(power):
        restorer = Restorer(with_calibration(tiny, sampling, bootstrap_power=power), sampling)
        calls = []
        handle = restorer.slices.network.register_forward_hook(lambda *_: calls.append(1))
        found = restorer.restore(volume, noise=150)
        handle.remove()
        return found, len(calls)

    plain, calls = restored(0.0)
    scaled, more = restored(1.0)
    again, _ = restored(1.0)
    ratio = scaled.record.uncertainty.bootstrap
    assert plain.record.uncertainty.bootstrap is None and 0.05 < ratio < 20 and ratio != 1
    assert more > calls
    np.testing.assert_array_equal(scaled.volume.array, plain.volume.array)
    np.testing.assert_allclose(scaled.spread.array, ratio * plain.spread.array, rtol=1e-4)
    np.testing.assert_array_equal(scaled.spread.array, again.spread.array)


def test_intervals_are_those_of_scans():
    """Made-up images, of which the model errs less than the samples say, make those of scans no narrower."""
    rng = np.random.default_rng(0)
    error, spread, again = world(rng, 40)
    error[20:] = error[20:] / 2
    groups = [f"patient {k % 2}" for k in range(40)]
    common = (error, spread, [0.2] * 40, np.ones(error.shape, bool), groups, ["white"] * 40, SAMPLING)
    halves = [k < 20 for k in range(40)]
    mixed = fit_calibration(*common, again)
    scans = fit_calibration(*common, again, scans=halves)
    assert scans.kinds["white"].bootstrap_power == mixed.kinds["white"].bootstrap_power
    assert scans.kinds["white"].scale > 1.1 * mixed.kinds["white"].scale
    assert scans.kinds["white"].coverage == pytest.approx(0.9, abs=0.015)
