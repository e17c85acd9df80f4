"""Coloured noise has its spectrum, variance and correlation, from closed forms and against its own samples."""

import math
from typing import get_args

import pytest
import torch

from cdm4mi.config import parse_config
from cdm4mi.degradation import Degradation, Frame
from cdm4mi.degradation.base import GeneratorNumbers
from cdm4mi.degradation.noises.coloured import ColouredNoise, fast_length
from cdm4mi.degradation.spectra import SPECTRA, frequencies, lag_one
from cdm4mi.diffusion.noise import generator
from cdm4mi.errors import UserError

CT = Frame(-1000.0, 1000.0, "CT", (0.7, 0.7))
MR = Frame(0.0, 800.0, "MR", (1.0, 1.0))
SHAPES = {
    "white": {},
    "smoothed": {"smoothing": 0.8},
    "zero_filled": {"cutoff": 0.25},
    "ct_kernel": {"cutoff": 0.25, "order": 3.0},
    "streaks": {"cutoff": 0.4, "order": 2.0, "ratio": 20.0},
    "pink": {},
}


def noise(**keys):
    return parse_config({"data": {"noise": {"type": "coloured", **keys}}}).data.noise


def applied(degradation, x0, frame, seed=0):
    gen = generator(seed)
    parameter = degradation.draw(gen)
    return degradation.apply(x0, parameter, gen, frame), parameter


def shaped(degradation, shape, numbers, seed):
    """Unit noise of one spectrum of the degradation's family."""
    return degradation.noise(shape, torch.tensor([numbers]), GeneratorNumbers(generator(seed), torch.device("cpu")))[0]


@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("size", [(64, 64), (61, 90)])
def test_the_noise_has_the_stated_deviation_in_every_pixel_and_the_spectrum_s_correlation(name, size):
    degradation = noise(spectrum=name, variance=0.04, **SHAPES[name])
    x0 = torch.full((1500, 1, *size), 0.3)
    y, parameter = applied(degradation, x0, CT)
    n = y - x0
    variance = n.square().mean((0, 1)) / 0.2**2
    assert float((variance - 1).square().mean()) == pytest.approx(2 / 1500, rel=0.35)  # its sampling error alone
    assert float(variance.mean()) == pytest.approx(1, abs=0.02)
    measured = Degradation.correlations(degradation, x0, y, parameter, CT)
    assert degradation.correlations(x0, y, parameter, CT) == pytest.approx(measured, abs=0.015)
    assert degradation.level(x0, y, parameter, CT) == pytest.approx(0.2)


@pytest.mark.parametrize("name", ["smoothed", "ct_kernel", "streaks", "pink"])
def test_the_periodogram_is_the_stated_spectrum_within_its_sampling_error(name):
    """Exponential around it at every frequency: a mean of 400 has a standard deviation of 1 / 20 of it."""
    count, side = 400, 96
    degradation = noise(spectrum=name, **SHAPES[name])
    numbers = degradation.draw(generator(1)).numbers
    taper = torch.hann_window(side, periodic=True)
    taper = taper[:, None] * taper
    samples = shaped(degradation, (count, side, side), numbers, 2) * taper
    measured = torch.fft.rfft2(samples).abs().square().mean(0) / taper.square().sum()
    fy, fx = frequencies(side, side)
    power = degradation.family.power(fy, fx, *numbers)
    whole = degradation.family.power(torch.fft.fftfreq(512)[:, None], torch.fft.fftfreq(512), *numbers)
    # the taper mixes neighbours, which shows where the power bends (at both ends) and where there is little of it
    clear = (power > 0.05 * power.max()) & (fy.abs() < 0.48) & (fx < 0.48) & (torch.hypot(fy, fx) > 0.06)
    ratio = (measured / (power / whole.mean()))[clear]
    assert int(clear.sum()) > 200
    assert float(ratio.mean()) == pytest.approx(1, abs=0.03)
    assert float(ratio.std()) == pytest.approx(1 / math.sqrt(count), rel=0.25)


def test_zero_filling_leaves_nothing_beyond_the_cutoff_along_its_axes():
    degradation = noise(spectrum="zero_filled", cutoff=0.25)
    axes = set()
    for seed in range(12):
        numbers = degradation.draw(generator(seed)).numbers
        axes.add(numbers)
        assert {*numbers} <= {0.25, 0.5}
    assert axes == {(0.25, 0.5), (0.5, 0.25), (0.25, 0.25)}
    samples = shaped(degradation, (200, 96, 96), (0.25, 0.5), 0)
    taper = torch.hann_window(96)[:, None]
    power = torch.fft.fft2(samples * taper).abs().square().mean(0)
    fy = torch.fft.fftfreq(96).abs()
    assert float(power[fy > 0.3].mean() / power[fy < 0.2].mean()) < 1e-3


@pytest.mark.parametrize("width", [0.8, 1.0, 1.3])
def test_lag_one_of_smoothed_noise_in_closed_form(width):
    """A Gaussian kernel's autocorrelation is a Gaussian of sqrt(2) times its width."""
    expected = math.exp(-1 / (4 * width**2))
    assert lag_one(SPECTRA["smoothed"](), (width,)) == pytest.approx((expected, expected), abs=0.01)


@pytest.mark.parametrize("cutoff", [0.22, 0.25, 0.3, 0.41])
def test_lag_one_of_zero_filled_noise_in_closed_form(cutoff):
    """The transform of a box is a sinc; an axis in full stays white."""
    expected = math.sin(2 * math.pi * cutoff) / (2 * math.pi * cutoff)
    assert lag_one(SPECTRA["zero_filled"](), (cutoff, 0.5)) == pytest.approx((expected, 0), abs=0.005)


def test_lag_one_of_the_bare_ramp_in_closed_form():
    """Power |f| of the square of frequencies, integrated by a fine grid of its own."""
    f = (torch.arange(2000, dtype=torch.float64) + 0.5) / 4000
    ramp = torch.hypot(f[:, None], f[None, :])
    expected = float((ramp * torch.cos(2 * math.pi * f)).sum() / ramp.sum())
    found = lag_one(SPECTRA["ct_kernel"](), (1e3, 1.0))
    assert expected < -0.15
    assert found == pytest.approx((expected, expected), abs=0.01)


def test_streaks_lie_across_the_noisiest_frequencies_and_are_a_kernel_without_a_ratio():
    streaks, kernel = SPECTRA["streaks"](), SPECTRA["ct_kernel"]()
    down, across = lag_one(streaks, (0.4, 2.0, 30.0, 0.0))
    assert across > down + 0.5  # the noisiest frequencies along y: streaks along x
    assert lag_one(streaks, (0.4, 2.0, 30.0, math.pi / 2)) == pytest.approx((across, down), abs=1e-4)
    assert lag_one(streaks, (0.4, 2.0, 1.0, 0.7)) == pytest.approx(lag_one(kernel, (0.4, 2.0)), abs=1e-5)


def test_opposite_edges_are_not_neighbours():
    """On a torus they would have the correlation of lag one, 0.77."""
    samples = shaped(noise(spectrum="smoothed", smoothing=1.3), (4000, 64, 64), (1.3,), 0)
    for first, last in ((samples[:, 0], samples[:, -1]), (samples[..., 0], samples[..., -1])):
        assert abs(float((first * last).mean())) < 0.01


def test_white_noise_without_a_map_is_gaussian_noise_to_the_bit():
    x0 = torch.zeros(1, 32, 32)
    gaussian = parse_config({"data": {"noise": {"variance": [0.01, 0.25]}}}).data.noise
    assert torch.equal(applied(noise(spectrum="white", variance=[0.01, 0.25]), x0, CT)[0], applied(gaussian, x0, CT)[0])


@pytest.mark.parametrize(("name", "coils"), [("white", 1), ("smoothed", 1), ("zero_filled", 4)])
def test_a_magnitude_has_the_mean_of_its_coils_in_air_and_the_stated_deviation_in_tissue(name, coils):
    s = 40.0
    degradation = noise(spectrum=name, percent=5, magnitude=1.0, coils=coils, **SHAPES[name])
    air, _ = applied(degradation, torch.full((200, 1, 64, 64), -1.0), MR)
    mean = s * math.sqrt(2) * math.gamma(coils + 0.5) / math.gamma(coils)
    assert float(MR.physical(air).mean()) == pytest.approx(mean, rel=0.01)
    bright = torch.full((200, 1, 64, 64), 5.0)
    y, parameter = applied(degradation, bright, MR)
    assert float(MR.physical(y).std()) == pytest.approx(s, rel=0.02)
    measured = Degradation.correlations(degradation, y.mean().expand_as(y), y, parameter, MR)
    assert degradation.correlations(bright, y, parameter, MR) == pytest.approx(measured, abs=0.02)
    restored = degradation.unbiased(air, degradation.level(air, air, parameter, MR))
    assert abs(float((restored + 1).mean())) < 0.2 * float((air + 1).mean())


def test_a_share_of_the_images_are_magnitudes():
    degradation = noise(magnitude=0.3)
    drawn = [degradation.draw(generator(1, seed)).magnitude for seed in range(1000)]
    assert sum(drawn) / 1000 == pytest.approx(0.3, abs=0.06)


def test_the_level_varies_over_the_image_and_keeps_its_mean_square():
    x0 = torch.zeros(2000, 1, 64, 64)
    y, parameter = applied(noise(spectrum="smoothed", variance=0.01, variation=0.5), x0, CT)
    deviation = y.std(0)[0]
    assert float(deviation.max() / deviation.min()) == pytest.approx(3, rel=0.15)
    assert float(deviation.square().mean().sqrt()) == pytest.approx(0.1, rel=0.01)
    assert parameter.variation == 0.5


@pytest.mark.parametrize("name", SPECTRA)
def test_what_is_drawn_lies_in_the_stated_ranges_uniform_in_the_logarithm(name):
    degradation = noise(spectrum=name, variance=[0.0001, 0.25], variation=[0.02, 0.8])
    drawn = [degradation.draw(generator(2, seed)) for seed in range(600)]
    for values, (low, high) in (
        ([p.sigma for p in drawn], (0.01, 0.5)),
        ([p.variation for p in drawn], (0.02, 0.8)),
        *(
            ([p.numbers[k] for p in drawn if name != "zero_filled" or p.numbers[k] < 0.5], bounds)
            for k, bounds in enumerate(degradation.family.ranges.values())
        ),
    ):
        u = torch.tensor([math.log(v / low) / math.log(high / low) for v in values])
        assert 0 <= float(u.min()) <= float(u.max()) <= 1
        assert float(u.mean()) == pytest.approx(0.5, abs=0.06)
        assert float(u.std()) == pytest.approx(12**-0.5, abs=0.03)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("{spectrum: white, smoothing: 1}", "smoothing is given with spectrum white, expected smoothed"),
        ("{spectrum: smoothed, ratio: 2}", "ratio is given with spectrum smoothed, expected streaks"),
        ("{variance: 0.1, percent: 5}", "found variance and percent, expected one of"),
        ("{sigma_hu: 30, magnitude: 1}", "magnitude is given with sigma_hu"),
        ("{spectrum: blue}", "blue"),
    ],
)
def test_keys_that_do_not_go_together_are_refused_in_one_line(keys, message):
    with pytest.raises(UserError, match=message) as caught:
        parse_config({}, [f"data.noise={{type: coloured, {keys[1:-1]}}}"])
    assert "\n" not in str(caught.value)


def test_magnitudes_and_units_of_another_modality_are_refused():
    with pytest.raises(UserError, match="noise coloured: found a CT scan, expected MR"):
        noise(magnitude=0.5).check(CT)
    with pytest.raises(UserError, match="noise coloured: found a MR scan, expected CT"):
        noise(sigma_hu=20).check(MR)
    y, _ = applied(noise(spectrum="white", sigma_hu=20), torch.zeros(16, 128, 128), CT)
    assert float(CT.physical(y).std()) == pytest.approx(20, rel=0.01)


def test_every_family_has_a_name_in_the_configuration():
    assert get_args(ColouredNoise.model_fields["spectrum"].annotation) == tuple(SPECTRA)


def test_fast_lengths_have_small_prime_factors():
    assert [fast_length(n) for n in (1, 7, 96, 97, 127, 541)] == [1, 8, 96, 100, 128, 576]


@pytest.mark.parametrize("name", SPECTRA)
def test_a_blob_is_hidden_by_the_power_of_the_noise_at_its_own_frequencies(name):
    """The variance of what an observer gets who weighs the noise by the blob, against that in white noise."""
    degradation, numbers = noise(spectrum=name, variance=0.04, **SHAPES[name]), tuple(SHAPES[name].values())
    numbers = {"zero_filled": (0.25, 0.5), "streaks": (*numbers, 0.4)}.get(name, numbers)
    away = (torch.arange(48) - 24).square()
    images = shaped(degradation, (3000, 48, 48), numbers, 1)
    powers = degradation.blob_powers(degradation.draw(generator(0))._replace(numbers=numbers), [12.0, 80.0])
    for area, power in zip((12.0, 80.0), powers, strict=True):
        blob = torch.exp(-2 * math.pi / area * (away[:, None] + away[None, :]))
        assert float(blob.sum().square() / blob.square().sum()) == pytest.approx(area, rel=0.01)
        scores = (images * blob).sum((1, 2))
        assert float(scores.var() / blob.square().sum()) == pytest.approx(power, rel=0.12, abs=0.01)
