"""The noise power spectrum has the right height, area and units; wrong ways to average it are told apart."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from cdm4mi.data.phantoms import phantom
from cdm4mi.errors import UserError
from cdm4mi.measure.spectrum import noise_power_spectrum, radial_mean, regions_inside, spectrum_error

SIGMA = 12.0


@pytest.fixture(scope="module")
def white():
    return SIGMA * np.random.default_rng(0).standard_normal((2000, 32, 32))


def power_of_mean(regions):
    """Wrong: averages before it squares, so that noise cancels."""
    return np.abs(np.fft.fft2(regions).mean(axis=0)) ** 2 / regions[0].size


def square_of_mean_magnitude(regions):
    """Wrong: squares the mean of |DFT|, pi/4 of the power of Gaussian noise."""
    return np.abs(np.fft.fft2(regions)).mean(axis=0) ** 2 / regions[0].size


def is_flat(spectrum):
    return bool(np.abs(radial_mean(spectrum)[1] / SIGMA**2 - 1).max() < 0.02)


def test_white_noise_is_flat_at_its_variance(white):
    assert is_flat(noise_power_spectrum(white, detrend=False))
    # detrending takes 3 of the 1024 degrees of freedom, all next to the zero frequency
    for taper in (False, True):
        assert np.abs(radial_mean(noise_power_spectrum(white, taper=taper))[1][2:] / SIGMA**2 - 1).max() < 0.02
    assert not is_flat(power_of_mean(white))
    assert not is_flat(square_of_mean_magnitude(white))
    assert square_of_mean_magnitude(white)[1:, 1:].mean() == pytest.approx(np.pi / 4 * SIGMA**2, rel=0.01)


def test_it_integrates_to_the_variance_in_any_spacing(white):
    """Correlated noise too, on pixels that are not square: an error of units or of the number of pixels shows."""
    noise = gaussian_filter(white[:200], (0, 1.0, 2.0))[:, :24]
    variance = np.mean((noise - noise.mean(axis=(1, 2), keepdims=True)) ** 2)
    for dy, dx in ((1.0, 1.0), (0.7, 0.5)):
        spectrum = noise_power_spectrum(noise, (dy, dx), detrend=False)
        cell = 1 / (24 * dy) / (32 * dx)
        assert spectrum.sum() * cell == pytest.approx(variance, rel=1e-9)
    assert power_of_mean(noise).sum() / noise[0].size < 0.1 * variance


def test_a_wave_lies_at_its_frequency_and_a_ramp_is_no_noise():
    columns = np.arange(64)
    wave = 5 * np.sin(2 * np.pi * columns / 8) * np.ones((64, 1))
    frequency, power = radial_mean(noise_power_spectrum(wave[None], (0.5, 0.5), detrend=False), (0.5, 0.5))
    assert frequency[power.argmax()] == pytest.approx(1 / (8 * 0.5), rel=0.03)  # cycles per millimetre
    assert frequency[-1] <= 1.0
    ramp = (3.0 * columns + 7.0 * columns[:, None])[None]
    assert noise_power_spectrum(ramp).max() < 1e-16
    assert noise_power_spectrum(ramp, detrend=False).max() > 1


def test_regions_lie_inside_the_mask():
    image = np.arange(40 * 40.0).reshape(40, 40)
    mask = np.zeros((40, 40), bool)
    mask[:, :24] = True
    found = regions_inside(image, mask, 16)
    assert len(found) == 4 * 2
    assert all(mask.ravel()[region.astype(int)].all() for region in found)
    assert regions_inside(image, mask, 32).shape == (0, 32, 32)
    assert len(regions_inside(image, None, 16)) == 16


def test_distance_tells_blur_and_noise_from_texture():
    rng = np.random.default_rng(1)
    texture = [phantom("CT", 2, 128) + 20 * rng.standard_normal((128, 128)) for _ in range(2)]
    same = spectrum_error(texture[1], texture[0])
    assert spectrum_error(texture[0], texture[0]) == 0
    assert same < 0.7  # another draw of the same texture, although every pixel differs
    blurred = spectrum_error(gaussian_filter(texture[0], 1.0), texture[0])
    assert blurred > 5
    assert spectrum_error(texture[0] + 60 * rng.standard_normal((128, 128)), texture[0]) > 1.5
    # ten times the power is ten decibels at every frequency
    assert spectrum_error(np.sqrt(10) * texture[0], texture[0]) == pytest.approx(10)
    # power over all frequencies together hides what blur does: anatomy holds nearly all of it
    total = [noise_power_spectrum(x[None]).sum() for x in (gaussian_filter(texture[0], 1.0), texture[0])]
    assert abs(10 * np.log10(total[0] / total[1])) < 0.5


def test_mistakes_are_named():
    good = np.random.default_rng(2).standard_normal((16, 16))
    for call, message in (
        (lambda: noise_power_spectrum(good[0]), r"\(16,\)"),
        (lambda: noise_power_spectrum(np.where(good > 2, np.nan, good)), "not finite"),
        (lambda: spectrum_error(good, good[:8]), r"\(1, 8, 16\)"),
        (lambda: spectrum_error(good, 0 * good), "constant"),
        (lambda: radial_mean(good[None]), r"\(1, 16, 16\)"),
    ):
        with pytest.raises(UserError, match=message):
            call()
