"""The noise of a scan as it comes: padded, in whole numbers, smoothed by its kernel, with air around the patient."""

import numpy as np
import pytest
from real_scans import needs_scans
from scipy.ndimage import gaussian_filter

from cdm4mi.data.phantoms import phantom
from cdm4mi.measure.noise_level import NoiseEstimate, estimate_noise, estimate_sigma
from experiments.shared import SCANS


def noise(shape, smoothing, seed=0):
    """Unit noise, white or smoothed by a Gaussian of so many pixels."""
    white = np.random.default_rng(seed).standard_normal(shape)
    smooth = gaussian_filter(white, smoothing, mode="wrap") if smoothing else white
    return smooth / smooth.std()


@pytest.mark.parametrize("kind, sigma", [("CT", 60), ("CT", 200), ("MR", 60), ("MR", 200)])
@pytest.mark.parametrize("smoothing", [0, 0.7, 1.0])
def test_level_and_correlation_of_smoothed_noise(kind, sigma, smoothing):
    clean = phantom(kind, 3, 256)
    added = noise(clean.shape, smoothing)
    found = estimate_noise(clean + sigma * added)
    assert found.sigma == pytest.approx(sigma, rel=0.12)
    correlation = np.fft.ifft(np.abs(np.fft.fft(added)) ** 2).real.mean(0)  # along the rows (Wiener, Khinchin)
    width = 1 + 2 * correlation[1:6].sum() / correlation[0]
    assert found.correlation == pytest.approx(width, rel=0.12)


def test_a_padded_head_in_whole_numbers_with_the_noise_of_a_soft_kernel():
    """What once read 1 HU of 5: a soft kernel leaves little at the finest scale, padding and quiet air diluted it."""
    row, column = np.mgrid[-1:1:256j, -1:1:256j]
    radius = np.hypot(row, column)
    head = np.select([radius < 0.7, radius < 0.78], [35.0, 900.0], -1000.0)
    hu = gaussian_filter(head, 0.7) + 5 * noise(head.shape, 0.9) * np.where(radius < 0.78, 1, 0.3)
    hu = np.where(radius > 1, -1500, np.round(hu)).astype(np.int16)
    found = estimate_noise(hu)
    assert found.sigma == pytest.approx(5, rel=0.1)
    assert found.correlation == pytest.approx(3.2, rel=0.15)


def test_zeros_around_the_brain_do_not_count():
    brain = phantom("MR", 3, 256)
    noisy = brain + 80 * noise(brain.shape, 0)
    skull_stripped = np.zeros((400, 320))
    skull_stripped[70:326, 30:286] = noisy
    assert estimate_sigma(skull_stripped) == pytest.approx(80, rel=0.08)


def test_units_and_zero_point_change_nothing():
    clean = phantom("CT", 5, 128)
    noisy = clean + 50 * noise(clean.shape, 0.7)
    one, other = estimate_noise(noisy), estimate_noise(noisy / 1000 + 7)
    assert other.sigma == pytest.approx(one.sigma / 1000, rel=1e-6)
    assert other.correlation == pytest.approx(one.correlation, rel=1e-6)


@pytest.mark.parametrize("image", [np.full((64, 64), 7.3), np.zeros((8, 8)), np.eye(2) * 0])
def test_an_image_of_one_value_has_no_noise(image):
    assert estimate_noise(image) == NoiseEstimate(0.0, 1.0)


@pytest.mark.parametrize("side", [16, 32, 64])
def test_small_patches(side):
    levels = [estimate_sigma(3 * noise((side, side), 0, seed)) for seed in range(20)]
    assert np.median(levels) == pytest.approx(3, rel=0.15)


@needs_scans
def test_the_real_padded_head_ct():
    from cdm4mi import io

    scan = io.read(SCANS / "dicom" / "ge_head_ct_uneven")
    hu = scan.slices()[14]
    # the quietest blocks of the brain, a plane taken out of each, hold noise and hardly anything else
    side = 16
    u = np.linspace(-1, 1, side)
    plane = np.stack([np.ones(side * side), np.repeat(u, side), np.tile(u, side)], 1)
    blocks = [
        hu[r : r + side, c : c + side].ravel() for r in range(150, 350, side) for c in range(170, 340, side)
    ]  # fmt: skip
    rest = [
        block - plane @ np.linalg.lstsq(plane, block, rcond=None)[0] for block in blocks if abs(block - 30).max() < 40
    ]
    by_hand = np.median(np.std(rest, axis=1))
    assert len(rest) > 20
    assert estimate_sigma(hu) == pytest.approx(by_hand, rel=0.25)
