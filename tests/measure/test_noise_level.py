"""The noise of a scan as it comes: padded, in whole numbers, smoothed by its kernel, with air around the patient."""

import numpy as np
import pytest
import torch
from pydicom.data import get_testdata_file
from real_scans import needs_scans
from scipy.ndimage import gaussian_filter

from cdm4mi import io
from cdm4mi.data.phantoms import phantom
from cdm4mi.degradation import Frame
from cdm4mi.degradation.registry import NOISES
from cdm4mi.errors import UserError
from cdm4mi.intensity import foreground, window_for
from cdm4mi.measure.noise_level import NONE, estimate_noise
from cdm4mi.window import IntensityWindow
from experiments.shared import SCANS

MR = Frame.of(IntensityWindow(0.0, 1000.0, "MR"))
CT = Frame.of(IntensityWindow(-1000.0, 1000.0, "CT"), (0.8, 0.8))


def white(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def smoothed(shape, smoothing, seed=0):
    """Unit noise, white or smoothed by a Gaussian of so many pixels."""
    noise = gaussian_filter(white(shape, seed), smoothing, axes=(-2, -1), mode="wrap") if smoothing else white(shape)
    return noise / noise.std()


def noisy(images, frame, seed=0, **keys):
    """Simulated noise on (N, rows, columns) in the frame's units, and what was drawn."""
    kind = NOISES[keys["type"]](**keys)
    x0 = torch.from_numpy(frame.normalised(np.asarray(images, np.float32)))
    generator = torch.Generator().manual_seed(seed)
    parameter = kind.draw(generator)
    return frame.physical(kind.apply(x0, parameter, generator, frame).numpy()), kind, parameter


def brain(texture=0.0, count=4, side=192):
    """Heads (count, side, side) of MR phantoms on exact zeros; texture: folds with edges, of this height."""
    heads = np.zeros((count, side, side))
    inner = slice(side // 8, side - side // 8)
    for k in range(count):
        heads[k, inner, inner] = phantom("MR", 3 + k, side - 2 * (side // 8))
    folds = gaussian_filter(white(heads.shape, 9), (0, 3, 3))
    return heads + texture * np.sign(folds) * (np.abs(folds) > 0.4 * folds.std()) * (heads > 300)


def neighbours(added):
    """Correlations of neighbouring pixels (next row, next column)."""
    power = np.mean(added**2)
    return (added[..., 1:, :] * added[..., :-1, :]).mean() / power, (added[..., 1:] * added[..., :-1]).mean() / power


@pytest.mark.parametrize("percent", [3, 9, 15])
def test_air_of_a_magnitude_is_not_taken_for_flat_tissue(percent):
    """What once read two thirds of the level: air has 0.65 of the standard deviation of tissue."""
    y, _, _ = noisy(brain(), MR, type="rician", percent=percent)
    found = estimate_noise(y)
    assert found.sigma == pytest.approx(10 * percent, rel=0.06)
    assert found.magnitude
    assert found.correlation == pytest.approx(0, abs=0.1)


def test_what_cannot_be_a_magnitude_is_not_taken_for_one():
    y, _, _ = noisy(brain(), MR, type="rician", percent=9)
    found = estimate_noise(y, may_be_magnitude=False)
    assert not found.magnitude and found.texture[2] == 0


def test_several_coils_are_told_from_one():
    y, _, _ = noisy(brain(), MR, type="noncentral_chi", percent=6, coils=2)
    found = estimate_noise(y)
    assert found.magnitude
    assert found.sigma == pytest.approx(60, rel=0.06)


def test_dark_tissue_without_air_has_less_noise_than_the_level_says():
    """Tissue of two and four times the noise, which the correction of Koay and Basser needs the air for."""
    row = np.arange(256)[:, None] * np.ones(256)
    y, _, _ = noisy(np.select([row < 64, row < 160], [0.0, 100.0], 200.0)[None], MR, type="rician", percent=5)
    assert estimate_noise(y).sigma == pytest.approx(50, rel=0.06)


def test_texture_is_not_taken_for_correlated_noise():
    """What once read 1.3 to 1.55 times white noise of 3 %, and called it correlated."""
    clean = brain(texture=80)
    found = estimate_noise(clean + 30 * white(clean.shape))
    assert found.sigma == pytest.approx(30, rel=0.2)
    assert found.correlation == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize("smoothing", [0, 0.7, 1.0])
@pytest.mark.parametrize("kind, sigma", [("CT", 60), ("CT", 200), ("MR", 60), ("MR", 200)])
def test_level_and_correlation_of_smoothed_noise(kind, sigma, smoothing):
    clean = phantom(kind, 3, 256)
    added = smoothed(clean.shape, smoothing)
    found = estimate_noise(clean + sigma * added)
    assert found.sigma == pytest.approx(sigma, rel=0.12)
    assert found.correlations == pytest.approx(neighbours(added), abs=0.08)


def test_zero_filling_along_one_axis_is_seen_along_that_axis():
    y, kind, parameter = noisy(brain(), MR, 3, type="coloured", spectrum="zero_filled", percent=8, magnitude=1)
    found = estimate_noise(y)
    assert found.sigma == pytest.approx(80, rel=0.06)
    assert found.correlations == pytest.approx(kind.correlations(None, None, parameter, MR), abs=0.08)


@pytest.mark.parametrize("cutoff", [0.15, 0.25, 0.45])
def test_noise_of_a_ct_kernel(cutoff):
    clean = np.stack([phantom("CT", k, 256) for k in range(3)])
    y, kind, parameter = noisy(clean, CT, type="coloured", spectrum="ct_kernel", sigma_hu=40, cutoff=cutoff, order=3)
    found = estimate_noise(y)
    assert found.sigma == pytest.approx(40, rel=0.2)
    assert found.correlations == pytest.approx(kind.correlations(None, None, parameter, CT), abs=0.1)
    assert not found.magnitude


@pytest.mark.parametrize("dose", [0.1, 0.25])
def test_noise_of_a_low_dose(dose):
    """Projected noise of a head, correlated, streaky, and stronger in the middle: once 0.5 to 1.25 of the truth."""
    scan = io.read(str(get_testdata_file("J2K_pixelrep_mismatch.dcm", download=False)))
    frame = Frame.of(window_for(scan), scan.spacing[1:])
    y, _, _ = noisy(scan.slices(), frame, type="low_dose_ct", dose=dose, views=180)
    added = y - scan.slices()
    found = estimate_noise(y)
    assert found.sigma == pytest.approx(np.std(added[foreground(scan.slices(), "CT")]), rel=0.15)
    assert found.correlations == pytest.approx(neighbours(added), abs=0.12)
    assert not found.magnitude


def test_a_level_that_varies_is_mapped():
    clean = np.stack([phantom("MR", k, 256) for k in range(6)])
    factor = np.linspace(0.5, 1.5, 256)[:, None]
    found = estimate_noise(clean + 60 * factor * white(clean.shape))
    assert found.varying
    assert found.map.shape == (256, 256)
    body = (clean > 100).any(0)
    assert found.sigma == pytest.approx(60 * np.sqrt(np.mean((factor * np.ones(256))[body] ** 2)), rel=0.12)
    assert np.median(np.abs(found.map / (60 * factor) - 1)[body]) < 0.12
    assert not estimate_noise(clean + 60 * white(clean.shape)).varying


def test_a_padded_head_in_whole_numbers_with_the_noise_of_a_soft_kernel():
    """What once read 1 HU of 5: a soft kernel leaves little at the finest scale, padding and quiet air diluted it."""
    row, column = np.mgrid[-1:1:256j, -1:1:256j]
    radius = np.hypot(row, column)
    head = np.select([radius < 0.7, radius < 0.78], [35.0, 900.0], -1000.0)
    added = smoothed(head.shape, 0.9)
    hu = gaussian_filter(head, 0.7) + 5 * added * np.where(radius < 0.78, 1, 0.3)
    hu = np.where(radius > 1, -1500, np.round(hu)).astype(np.int16)
    found = estimate_noise(hu)
    assert found.sigma == pytest.approx(5, rel=0.12)
    assert found.correlations == pytest.approx(neighbours(added), abs=0.1)


def test_zeros_around_the_brain_do_not_count():
    image = phantom("MR", 3, 256)
    skull_stripped = np.zeros((400, 320))
    skull_stripped[70:326, 30:286] = image + 80 * white(image.shape)
    assert estimate_noise(skull_stripped).sigma == pytest.approx(80, rel=0.08)


def test_padding_that_a_scan_states_does_not_count():
    image = phantom("CT", 3, 128) + 50 * white((128, 128))
    padding = np.zeros(image.shape, bool)
    padding[:, :60] = True
    filled = np.where(padding, 1 * white(image.shape, 1), image)
    assert estimate_noise(filled, padding).sigma == pytest.approx(50, rel=0.12)


@pytest.mark.parametrize("shift", [0, 7, -3000])
def test_units_and_zero_point_change_nothing(shift):
    image = phantom("CT", 5, 128) + 50 * smoothed((128, 128), 0.7)
    one, other = estimate_noise(image), estimate_noise(image / 1000 + shift)
    assert other.sigma == pytest.approx(one.sigma / 1000, rel=1e-3)
    assert other.correlations == pytest.approx(one.correlations, abs=1e-3)


def test_units_of_a_magnitude_change_nothing():
    y, _, _ = noisy(brain(), MR, type="rician", percent=9)
    one, other = estimate_noise(y), estimate_noise(37 * y)
    assert other.magnitude
    assert other.sigma == pytest.approx(37 * one.sigma, rel=1e-3)


def test_slices_are_taken_together_and_a_broken_one_does_not_count():
    slices = 0.1 * white((40, 64, 64))
    for factor in (30, 1 / 30, 0):
        broken = slices.copy()
        broken[[0, 13]] *= factor
        assert estimate_noise(broken).sigma == pytest.approx(0.1, rel=0.06)


@pytest.mark.parametrize("smoothing", [0, 0.8])
@pytest.mark.parametrize("repeats", [1, 3])
def test_noise_that_differs_from_slice_to_slice_is_measured_by_slice(repeats, smoothing):
    """What once read the level of the quietest slices."""
    sigmas = np.repeat([20.0, 60.0, 120.0], repeats)
    clean = np.stack([phantom("CT", k, 192) for k in range(len(sigmas))])
    added = sigmas[:, None, None] * smoothed(clean.shape, smoothing)
    found = estimate_noise(clean + added)
    ratio = (found.by_slice / sigmas).reshape(3, repeats)
    assert np.median(ratio, 1) == pytest.approx(1, rel=0.15)
    assert found.sigma == pytest.approx(np.sqrt(np.mean(found.by_slice**2)))
    assert found.correlations == pytest.approx(neighbours(added), abs=0.1)
    even = estimate_noise(clean + 60 * smoothed(clean.shape, smoothing))
    assert even.by_slice is None
    assert even.of_slices(2).tolist() == [even.sigma] * 2


def test_levels_between_the_slices_that_are_looked_at():
    sigmas = np.geomspace(60, 240, 40)
    clean = np.stack([phantom("CT", k % 3, 96) for k in range(40)])
    found = estimate_noise(clean + sigmas[:, None, None] * white(clean.shape))
    assert np.median(np.abs(found.by_slice / sigmas - 1)) < 0.1
    assert found.by_slice == pytest.approx(sigmas, rel=0.3)


@pytest.mark.parametrize("image", [np.full((64, 64), 7.3), np.zeros((8, 8)), np.eye(2), np.full((3, 32, 32), -1000.0)])
def test_an_image_of_one_value_has_no_noise(image):
    assert estimate_noise(image) == NONE


@pytest.mark.parametrize("side", [16, 32, 64])
def test_small_patches(side):
    levels = [estimate_noise(3 * white((side, side), seed)).sigma for seed in range(9)]
    assert np.median(levels) == pytest.approx(3, rel=0.15)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_pixels_that_are_not_finite_are_refused(wrong):
    image = white((32, 32))
    image[3, 4] = wrong
    with pytest.raises(UserError, match="not finite"):
        estimate_noise(image)


@needs_scans
def test_the_real_padded_head_ct():
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
    assert estimate_noise(hu).sigma == pytest.approx(by_hand, rel=0.25)


@needs_scans
def test_a_scan_acquired_twice():
    """What once read 1.37 times the level: texture of the brain at 2 mm."""
    volumes = io.read(SCANS / "repeats" / "dti_21x2.nii.gz").array
    patient = volumes[1:21].mean(0) > 1.2 * volumes[1:21].mean()
    levels, true = [], []
    for k in (1, 9, 17):
        noise = (volumes[k] - volumes[k + 21]) / 2**0.5
        true.append(np.median(np.abs(noise[patient])) / 0.6745)
        levels.append(estimate_noise(volumes[k]).sigma)
    assert np.median(levels) == pytest.approx(np.median(true), rel=0.15)
