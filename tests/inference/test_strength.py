"""Strength below 1: as much of a small lesion comes back as of a blend, with less noise."""

import numpy as np
import pytest
from scipy import fft, ndimage

from cdm4mi.inference.filtering import cosine_frequencies, put_back
from cdm4mi.inference.strength import AREA, CELL, response, weakened

SHAPE = (128, 160)


def noise(smoothing, seed=0):
    white = np.random.default_rng(seed).normal(0, 1, SHAPE)
    smooth = ndimage.gaussian_filter(white, smoothing) if smoothing else white
    return smooth / smooth.std()


def ramp(seed=0):
    """Noise with power that rises with the frequency, as of filtered backprojection."""
    f = np.hypot(np.fft.fftfreq(SHAPE[0])[:, None], np.fft.rfftfreq(SHAPE[1]))
    shaped = np.fft.irfft2(np.fft.rfft2(noise(0, seed)) * np.sqrt(f + 0.01) * (f < 0.4), s=SHAPE)
    return shaped / shaped.std()


NOISES = {"white": noise(0), "smoothed": noise(1.0), "ramp": ramp()}


def blob():
    """A Gaussian whose squared sum over the sum of squares is AREA: its squared spectrum is exp(-pi AREA f^2)."""
    y, x = np.indices(SHAPE) - np.array(SHAPE)[:, None, None] / 2
    return np.exp(-2 * np.pi * (y**2 + x**2) / AREA)


@pytest.mark.parametrize("strength", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("kind", NOISES)
def test_of_a_small_lesion_as_much_comes_back_as_of_a_blend_and_less_noise(kind, strength):
    taken = NOISES[kind]
    filtered = response(taken, strength)
    lesion = blob()
    assert lesion.sum() ** 2 / np.square(lesion).sum() == pytest.approx(AREA, rel=1e-3)
    back = put_back(np.zeros(SHAPE), lesion, filtered)
    assert np.sum(back * lesion) / np.square(lesion).sum() == pytest.approx(1 - strength, rel=0.05)
    with_noise = put_back(np.zeros(SHAPE), taken, filtered)
    assert with_noise.std() < (0.96 if kind == "smoothed" else 0.75) * (1 - strength)


def test_where_noise_is_weak_at_low_frequencies_these_come_back_first():
    low, high = (response(NOISES["ramp"], s)[0, 1] for s in (0.5, 0.95))
    assert low > 0.9 and high > 0.3
    assert response(NOISES["ramp"], 0.95)[100].max() < 1e-3


def test_no_filter_with_as_much_of_a_lesion_brings_less_error_back():
    """The Wiener filter has the least error b^2 N + mu (1 - b)^2 L, so any change that keeps sum(b L) adds to it."""
    taken = NOISES["smoothed"]
    b = response(taken, 0.5)
    frequencies = cosine_frequencies(*SHAPE)
    cells = (frequencies / CELL).astype(int)
    counts = np.bincount(cells.ravel())
    power, f = (
        np.bincount(cells.ravel(), v.ravel()) / counts for v in (fft.dctn(taken, norm="ortho") ** 2, frequencies)
    )
    first = np.array([b[cells == k][0] for k in range(len(counts))])
    lesion = np.exp(-np.pi * AREA * f**2)
    mu = np.median(first[:20] * power[:20] / (1 - first[:20]) / lesion[:20])

    def error(b):
        return np.sum(counts * (b**2 * power + mu * (1 - b) ** 2 * lesion))

    rng = np.random.default_rng(0)
    for _ in range(20):
        change = rng.normal(0, 0.02, len(first))
        change -= lesion * np.sum(counts * change * lesion) / np.sum(counts * lesion**2)
        assert error(first + change) > error(first)


def test_ends_and_every_image_for_itself():
    rng = np.random.default_rng(1)
    scan = rng.normal(0, 30, (3, 2, 40, 52)).astype(np.float32)
    restored = (0.1 * scan).astype(np.float32)
    assert np.array_equal(weakened(restored, scan, 1.0), restored)
    assert np.array_equal(weakened(restored, scan, 0.0), scan)
    half = weakened(restored, scan, 0.5)
    assert half.shape == scan.shape and half.dtype == np.float32
    for k in range(3):
        assert np.array_equal(half[k : k + 1], weakened(restored[k : k + 1], scan[k : k + 1], 0.5))
    assert np.array_equal(weakened(scan, scan, 0.5), scan), "nothing was taken away"
