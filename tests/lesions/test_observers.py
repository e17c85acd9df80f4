"""The observers against closed forms: white and coloured Gaussian noise, channels, and the area under the curve."""

import numpy as np
import pytest
from scipy.stats import norm

from cdm4mi.errors import UserError
from cdm4mi.lesions.channels import channel_outputs, dog_channels
from cdm4mi.lesions.ideal import ideal_detectability, noise_density
from cdm4mi.lesions.observer import hotelling_observer, hotelling_template
from cdm4mi.lesions.shapes import Site, lesion

SIDE, SIGMA = 32, 20.0
F = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.fftfreq(SIDE))
RAMP = (F + 0.02) * np.exp(-((3 * F) ** 2))
"""Amplitude of noise with the look of a CT's."""


def disc(contrast=-15.0, diameter=7):
    return contrast * lesion((1, SIDE, SIDE), Site(0, SIDE // 2, SIDE // 2), diameter)[0]


def noise(count, amplitude=None, seed=0):
    """Stationary and periodic, of unit mean power on ``amplitude``, times SIGMA."""
    white = np.random.default_rng(seed).normal(0, SIGMA, (count, SIDE, SIDE))
    return white if amplitude is None else np.fft.ifft2(np.fft.fft2(white) * amplitude).real


def expected_through_channels(signal, density):
    """d'^2 = s_c^T K_c^-1 s_c with K_c = U K U^T, K diagonal in the DFT of periodic noise."""
    u = np.fft.fft2(dog_channels(SIDE)).reshape(-1, SIDE**2)
    covariance = (u * density.ravel() @ u.conj().T).real / SIDE**2
    s = channel_outputs(signal, dog_channels(SIDE))
    return np.sqrt(s @ np.linalg.solve(covariance, s))


def test_the_ideal_observer_of_white_noise_has_the_signals_norm_over_sigma():
    expected = np.linalg.norm(disc()) / SIGMA
    assert ideal_detectability(disc(), np.full((SIDE, SIDE), SIGMA**2)) == pytest.approx(expected, rel=1e-12)
    assert ideal_detectability(disc(), noise_density(noise(1000), SIDE)) == pytest.approx(expected, rel=0.02)


def test_the_ideal_observer_of_coloured_noise_is_the_prewhitened_norm():
    density = (SIGMA * (RAMP + 0.05)) ** 2
    whitened = np.fft.ifft2(np.fft.fft2(disc()) / (RAMP + 0.05)).real
    assert ideal_detectability(disc(), density) == pytest.approx(np.linalg.norm(whitened) / SIGMA, rel=1e-12)
    measured = ideal_detectability(disc(), noise_density(noise(1000, RAMP + 0.05), SIDE))
    assert measured == pytest.approx(ideal_detectability(disc(), density), rel=0.08)  # what is steep leaks


def test_regions_smaller_than_the_signals_are_measured_on_its_frequencies():
    density = noise_density(noise(400)[:, :16, :16], SIDE)
    assert density.shape == (SIDE, SIDE)
    assert density.mean() == pytest.approx(SIGMA**2, rel=0.02)


def test_a_template_of_the_true_covariance_is_the_matched_filter():
    s = np.array([1.0, 2.0, 0.5])
    x = np.random.default_rng(0).normal(size=(200_000, 3)) * [1, 2, 0.5]
    w = hotelling_template(x, x + s)
    assert w / w[0] == pytest.approx([1, 0.5, 2], rel=0.02)


@pytest.mark.parametrize("amplitude", [None, RAMP + 0.05], ids=["white", "coloured"])
@pytest.mark.parametrize("paired", [True, False])
def test_the_channelised_observer_has_the_d_of_its_closed_form(amplitude, paired):
    density = np.full((SIDE, SIDE), SIGMA**2) if amplitude is None else (SIGMA * amplitude) ** 2
    contrast = -8.0 if amplitude is None else -1.0
    signal, images = disc(contrast), noise(1000, amplitude)
    expected = expected_through_channels(signal, density)
    with_ = images + signal if paired else noise(1000, amplitude, seed=1) + signal
    channels = dog_channels(SIDE)
    found = hotelling_observer(channel_outputs(images, channels), channel_outputs(with_, channels), paired)
    assert found.d == pytest.approx(expected, rel=0.06)
    assert found.d_interval[0] < expected < found.d_interval[1]
    assert found.auc == pytest.approx(norm.cdf(expected / np.sqrt(2)), abs=0.01)
    assert found.auc_interval[0] < norm.cdf(expected / np.sqrt(2)) < found.auc_interval[1]
    assert found.d < 1.05 * ideal_detectability(signal, density)  # channels lose, and never win


def test_no_lesion_is_seen_where_there_is_none_however_few_the_images():
    """A template that is tested on the images it was made of would have d' near 2 here."""
    random = np.random.default_rng(0)
    found = [hotelling_observer(random.normal(size=(30, 10)), random.normal(size=(30, 10))) for _ in range(60)]
    assert np.mean([f.auc for f in found]) == pytest.approx(0.5, abs=0.045)
    assert np.mean([f.d for f in found]) == pytest.approx(0, abs=0.15)


def test_an_interval_holds_the_truth_as_often_as_it_says():
    random, d = np.random.default_rng(0), 1.5
    held = 0
    for _ in range(40):
        low, high = hotelling_observer(random.normal(size=(60, 1)), random.normal(d, 1, size=(60, 1))).d_interval
        held += low < d < high
    assert held >= 34


def test_too_few_images_are_refused_in_one_line():
    with pytest.raises(UserError, match="3 without and 5 with"):
        hotelling_observer(np.zeros((3, 2)), np.zeros((5, 2)))
