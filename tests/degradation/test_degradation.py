"""Each degradation makes the noise that it states: moments in closed form, units against a frame, seeds, levels."""

import math

import numpy as np
import pytest
import torch

from cdm4mi.config import parse_config
from cdm4mi.data.phantoms import phantom
from cdm4mi.degradation import Frame, second_moment_correction
from cdm4mi.degradation.base import GeneratorNumbers
from cdm4mi.degradation.noises.noncentral_chi import NoncentralChiNoise
from cdm4mi.degradation.noises.pet import FWHM, gaussian_blur
from cdm4mi.degradation.varying import smooth_maps
from cdm4mi.diffusion.noise import generator
from cdm4mi.errors import UserError

CT = Frame(-1000.0, 1000.0, "CT", (0.7, 0.7))
MR = Frame(0.0, 800.0, "MR", (1.0, 1.0))
PT = Frame(0.0, 20.0, "PT", (2.0, 2.0))
FRAMES = {"CT": CT, "MR": MR, "PT": PT}
SIDE = 512

TYPES = {
    "gaussian": ({"variance": [0.01, 0.1]}, "CT"),
    "coloured": ({"variance": [0.0025, 0.04], "variation": 0.3, "magnitude": 1.0}, "MR"),
    "salt_and_pepper": ({"fraction": [0.01, 0.1]}, "CT"),
    "downsampled": ({"factor": [2, 4]}, "CT"),
    "speckle": ({"relative": [0.05, 0.2]}, "MR"),
    "rician": ({"percent": [2, 10], "variation": 0.3}, "MR"),
    "noncentral_chi": ({"percent": [2, 10], "coils": 4}, "MR"),
    "undersampled": ({"acceleration": [2, 6]}, "MR"),
    "pet": ({"count_fraction": [0.1, 0.5]}, "PT"),
    "mixture": ({"parts": [{"noise": {"type": "gaussian", "variance": [0.01, 0.1]}}]}, "CT"),
    "composition": ({"parts": [{"type": "rician", "percent": [2, 5]}, {"type": "speckle", "relative": 0.1}]}, "MR"),
}
"""A configuration with a range for every type that makes noise, and a scan that it is for."""


def noise(**section):
    return parse_config({"data": {"noise": section}}).data.noise


def flat(value, side=SIDE, n=4):
    return torch.full((n, 1, side, side), float(value))


def drawn(degradation, x0, frame, seed=0):
    return degradation.degrade(x0, generator(seed), frame)


@pytest.fixture(scope="module")
def anatomy():
    return torch.from_numpy(phantom("MR", 3, 128) / 500 - 1).float().clamp(-1, 1)[None, None]


@pytest.mark.parametrize("variance", [0.01, 0.05, 0.1, 0.2])
def test_gaussian_has_the_stated_variance_within_one_percent(variance):
    x0 = flat(0.3)
    y, level = drawn(noise(variance=variance), x0, CT)
    assert float((y - x0).var()) == pytest.approx(variance, rel=0.01)
    assert abs(float((y - x0).mean())) < 0.005 * variance**0.5
    assert level == pytest.approx(variance**0.5)


def test_gaussian_sigma_is_in_hu_and_in_percent_of_the_window_s_upper_end():
    x0 = flat(0.0)
    y, level = drawn(noise(sigma_hu=40), x0, CT)
    assert float((CT.physical(y) - CT.physical(x0)).std()) == pytest.approx(40, rel=0.01)
    assert level == pytest.approx(0.04)
    y, level = drawn(noise(percent=5), x0, MR)
    assert float((MR.physical(y) - MR.physical(x0)).std()) == pytest.approx(0.05 * 800, rel=0.01)
    assert level == pytest.approx(0.1)


def test_a_frame_is_the_map_between_units_and_its_own_inverse():
    hu = torch.tensor([-1024.0, -1000.0, 0.0, 1000.0, 3000.0])
    torch.testing.assert_close(CT.normalised(hu), torch.tensor([-1.024, -1.0, 0.0, 1.0, 3.0]))
    torch.testing.assert_close(CT.physical(CT.normalised(hu)), hu, atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("section", "frame", "message"),
    [
        ({"sigma_hu": 30}, MR, "noise gaussian: found a MR scan, expected CT"),
        ({"percent": 5}, CT, "noise gaussian: found a CT scan, expected MR or PT"),
        ({"type": "rician"}, CT, "noise rician: found a CT scan"),
        ({"type": "pet"}, CT, "noise pet: found a CT scan"),
        ({"type": "downsampled", "method": "kspace"}, CT, "noise downsampled: found a CT scan, expected MR"),
        ({"type": "undersampled"}, PT, "noise undersampled: found a PT scan, expected MR"),
        ({"type": "composition", "parts": [{"type": "speckle"}, {"type": "rician"}]}, CT, "noise rician: found a CT"),
    ],
)
def test_noise_of_another_modality_is_refused(section, frame, message):
    with pytest.raises(UserError, match=message):
        noise(**section).check(frame)


def test_rician_background_has_the_mean_and_variance_of_a_rayleigh():
    sigma = 40.0
    y, level = drawn(noise(type="rician", percent=5), flat(-1.0), MR)
    magnitude = MR.physical(y)
    assert float(magnitude.mean()) == pytest.approx(sigma * math.sqrt(math.pi / 2), rel=0.01)
    assert float(magnitude.var()) == pytest.approx((2 - math.pi / 2) * sigma**2, rel=0.01)
    assert level == pytest.approx(sigma * MR.scale)


def test_rician_noise_of_bright_tissue_is_gaussian_of_the_stated_level():
    y, level = drawn(noise(type="rician", percent=2), flat(1.0), MR)
    assert float(y.std()) == pytest.approx(level, rel=0.01)


@pytest.mark.parametrize("coils", [1, 4, 8])
def test_noncentral_chi_moments(coils):
    """E[M^2] = A^2 + 2 L s^2, Var[M^2] = 4 A^2 s^2 + 4 L s^4; the background's mean by its closed form."""
    sigma, a = 40.0, 200.0
    degradation = noise(type="noncentral_chi", percent=5, coils=coils)
    x0 = flat(float(MR.normalised(torch.tensor(a))))
    squares = MR.physical(drawn(degradation, x0, MR)[0]).double().square()
    assert float(squares.mean()) == pytest.approx(a**2 + 2 * coils * sigma**2, rel=0.005)
    assert float(squares.var()) == pytest.approx(4 * a**2 * sigma**2 + 4 * coils * sigma**4, rel=0.01)
    background = MR.physical(drawn(degradation, flat(-1.0), MR)[0])
    mean = sigma * math.sqrt(2) * math.gamma(coils + 0.5) / math.gamma(coils)
    assert float(background.mean()) == pytest.approx(mean, rel=0.005)


def test_rician_is_the_chi_noise_of_one_coil():
    x0 = flat(-0.5, 32)
    a, b = (NoncentralChiNoise(percent=5.0, coils=1), noise(type="rician", percent=5))
    assert torch.equal(drawn(a, x0, MR)[0], drawn(b, x0, MR)[0])


@pytest.mark.parametrize("coils", [1, 4])
def test_second_moment_correction_has_less_than_one_percent_bias_at_snr_3(coils):
    """Averaged over a region before the root; the magnitude itself is 5 % high (one coil)."""
    sigma, snr = 40.0, 3.0
    clean = snr * sigma
    x0 = flat(float(MR.normalised(torch.tensor(clean))))
    magnitude = MR.physical(drawn(noise(type="noncentral_chi", percent=5, coils=coils), x0, MR)[0])
    assert float(magnitude.mean()) > 1.05 * clean
    corrected = second_moment_correction(magnitude, sigma, coils, window=7)
    assert float(corrected.mean()) == pytest.approx(clean, rel=0.01)
    squares = second_moment_correction(magnitude, sigma, coils).double().square()
    assert float(squares.mean()) == pytest.approx(clean**2, rel=0.02)  # a pixel's square, but for those clipped at 0


def test_second_moment_correction_takes_a_map_of_the_level_and_is_never_negative():
    magnitude = torch.rand(2, 1, 16, 16) * 100
    sigma = torch.full((16, 16), 10.0)
    torch.testing.assert_close(
        second_moment_correction(magnitude, sigma, window=3), second_moment_correction(magnitude, 10.0, window=3)
    )
    assert float(second_moment_correction(magnitude, 1e3).max()) == 0
    with pytest.raises(ValueError, match="expected an odd number"):
        second_moment_correction(magnitude, 1.0, window=4)


def test_a_varying_level_runs_over_the_stated_range_and_keeps_its_mean_square():
    random = GeneratorNumbers(generator(1), torch.device("cpu"))
    factors = smooth_maps(torch.zeros(1, 256, 192), torch.tensor([0.5]), random)[0]
    assert float(factors.square().mean()) == pytest.approx(1, rel=1e-4)
    assert float(factors.max() / factors.min()) == pytest.approx(3, rel=1e-3)
    steps = [factors.diff(dim=d).abs().max() for d in (0, 1)]
    assert float(max(steps)) < 0.05
    y = drawn(noise(type="rician", percent=3, variation=0.5), flat(1.0, n=1), MR)[0]
    blocks = y.reshape(8, 64, 8, 64).std(dim=(1, 3))
    assert float(blocks.max() / blocks.min()) > 1.7


def test_salt_and_pepper_takes_the_stated_share_and_nothing_else():
    x0 = flat(0.25)
    y = drawn(noise(type="salt_and_pepper", fraction=0.1), x0, CT)[0]
    assert float((y != x0).float().mean()) == pytest.approx(0.1, rel=0.02)
    assert float((y == 1).float().mean()) == pytest.approx(0.05, rel=0.03)
    assert set(y.unique().tolist()) == {-1.0, 0.25, 1.0}


@pytest.mark.parametrize(("extremes", "value"), [("salt", 1.0), ("pepper", -1.0)])
def test_salt_alone_and_pepper_alone_take_the_share_to_one_end(extremes, value):
    y = drawn(noise(type="salt_and_pepper", fraction=0.1, extremes=extremes), flat(0.25), CT)[0]
    assert float((y == value).float().mean()) == pytest.approx(0.1, rel=0.02)
    assert set(y.unique().tolist()) == {0.25, value}


@pytest.mark.parametrize("method", ["average", "kspace"])
def test_downsampling_keeps_what_a_coarse_scan_can_show(method):
    """A flat image stays, a slow wave stays, a wave that fits a coarse pixel is gone."""
    degradation = noise(type="downsampled", factor=4, method=method)
    column = torch.arange(128) * 2 * math.pi / 128
    slow, fast = (0.5 * torch.cos(k * column).expand(1, 1, 128, 128) for k in (2, 32))
    for x0, kept in ((flat(0.3, 128, 1), 1), (slow, 1), (fast, 0), (fast.mT, 0)):
        y = drawn(degradation, x0, MR)[0]
        torch.testing.assert_close(y, kept * x0, atol=0.04, rtol=0)
    y, level = drawn(degradation, slow + 0.5 * fast, MR)
    assert level == pytest.approx(float((0.5 * fast).std()), rel=0.1)
    same = drawn(noise(type="downsampled", factor=1, method=method), fast, MR)[0]
    assert torch.equal(same, fast)


def test_downsampled_pixels_are_means_of_blocks_at_their_centres():
    """Means over 2 x 2 pixels, from the interpolation's definition: a ramp is linear again, within the edges."""
    ramp = torch.linspace(-0.9, 0.9, 64).expand(1, 1, 64, 64)
    y = drawn(noise(type="downsampled", factor=2), ramp, CT)[0]
    torch.testing.assert_close(y[..., 4:-4], ramp[..., 4:-4], atol=1e-5, rtol=0)
    spot = torch.zeros(1, 1, 64, 64)
    spot[..., 20, 21] = 1.0
    assert float(drawn(noise(type="downsampled", factor=2), spot, CT)[0].sum()) == pytest.approx(1.0, abs=1e-4)


def test_zero_filling_keeps_the_central_frequencies_and_no_others(anatomy):
    degradation = noise(type="downsampled", factor=2, method="kspace")
    y = drawn(degradation, anatomy + 1.0, MR)[0]  # far from zero, so that the magnitude bends nothing
    before, after = (torch.fft.fftshift(torch.fft.fft2(MR.physical(i)[0, 0])) for i in (anatomy + 1.0, y))
    torch.testing.assert_close(after[33:96, 33:96], before[33:96, 33:96], rtol=1e-3, atol=30.0)
    outside = after.abs().clone()
    outside[32:97, 32:97] = 0
    assert float(outside.max() / before.abs().max()) < 1e-4


def test_speckle_grows_with_the_value_and_says_its_root_mean_square(anatomy):
    for value in (-1.0, -0.5, 1.0):
        y = drawn(noise(type="speckle", relative=0.1), flat(value), MR)[0]
        assert float(y.std()) == pytest.approx(0.1 * (value + 1), rel=0.01)
    x0 = anatomy.expand(16, -1, -1, -1)
    y, level = drawn(noise(type="speckle", relative=0.2), x0, MR)
    assert float((y - x0).square().mean().sqrt()) == pytest.approx(level, rel=0.01)


def test_undersampling_keeps_the_centre_and_the_stated_number_of_lines(anatomy):
    degradation = noise(type="undersampled", acceleration=4, centre=0.1)
    mask = degradation.mask(128, 4.0, generator(0))
    assert int(mask.sum()) == 32
    assert mask[128 // 2 - 6 : 128 // 2 + 7].sum() == 13
    y, level = drawn(degradation, anatomy, MR)
    assert float((y - anatomy).square().mean().sqrt()) == pytest.approx(level, rel=1e-5)
    lines = torch.fft.fftshift(torch.fft.fft2(MR.physical(anatomy)))[..., 63:66]
    again = torch.fft.fftshift(torch.fft.fft2(MR.physical(y)))[..., 63:66]
    assert float((again - lines).abs().max() / lines.abs().max()) < 0.1  # the magnitude bends them a little
    whole = drawn(noise(type="undersampled", acceleration=1), anatomy, MR)[0]
    torch.testing.assert_close(whole, anatomy, atol=1e-5, rtol=0)


@pytest.mark.parametrize("fraction", [0.05, 0.5])
def test_pet_keeps_the_mean_and_has_the_variance_of_thinning(fraction):
    """n (1 - f) / f events before the point spread; a Gaussian of standard deviation w keeps 1 / (4 pi w^2) of it."""
    degradation = noise(type="pet", count_fraction=fraction, counts=100, fwhm_mm=8)
    x0 = flat(0.0)
    activity = PT.physical(drawn(degradation, x0, PT)[0])
    assert float(activity.mean()) == pytest.approx(10, rel=0.005)
    width = 8 / FWHM / 2  # pixels of 2 mm
    events = 50 * (1 - fraction) / fraction / (4 * math.pi * width**2)
    assert float(activity[..., 16:-16, 16:-16].std()) == pytest.approx(math.sqrt(events) * 20 / 100, rel=0.03)


def test_pet_at_the_full_count_and_without_activity_adds_nothing():
    x0 = torch.rand(1, 1, 64, 64) * 2 - 1
    assert torch.equal(drawn(noise(type="pet", count_fraction=1.0), x0, PT)[0], x0)
    assert torch.equal(drawn(noise(type="pet", count_fraction=0.1), flat(-1.0, 32), PT)[0], flat(-1.0, 32))


def test_the_point_spread_has_the_stated_width_and_keeps_the_sum():
    image = torch.zeros(1, 65, 65)
    image[0, 32, 32] = 1
    spread = gaussian_blur(image, (4.0, 8.0))[0].double()
    assert float(spread.sum()) == pytest.approx(1, abs=1e-5)
    x = torch.arange(65.0) - 32
    for axis, width in ((1, 4.0), (0, 8.0)):
        variance = float((spread.sum(axis) * x**2).sum())
        assert FWHM * math.sqrt(variance) == pytest.approx(width, rel=0.02)


def test_a_composition_does_one_after_the_other_with_one_stream_of_random_numbers(anatomy):
    parts = [{"type": "rician", "percent": 5}, {"type": "speckle", "relative": 0.1}]
    both = drawn(noise(type="composition", parts=parts), anatomy, MR)[0]
    gen = generator(0)
    first, second = (noise(**part) for part in parts)
    parameters = first.draw(gen), second.draw(gen)
    expected = second.apply(first.apply(anatomy, parameters[0], gen, MR), parameters[1], gen, MR)
    assert torch.equal(both, expected)


@pytest.mark.parametrize("name", TYPES)
def test_a_seed_decides_noise_and_level_and_the_image_is_left_alone(name, anatomy):
    section, frame = TYPES[name]
    degradation, before = noise(type=name, **section), anatomy.clone()
    a, again, other = (drawn(degradation, anatomy, FRAMES[frame], seed) for seed in (1, 1, 2))
    assert torch.equal(a[0], again[0])
    assert a[1] == again[1]
    assert not torch.equal(a[0], other[0])
    assert a[1] != other[1]
    assert a[0].shape == anatomy.shape
    assert a[0].dtype == torch.float32
    assert torch.equal(anatomy, before)
    assert 0 < a[1] < 1


def example(name):
    return noise(type=name, **TYPES[name][0])


@pytest.mark.parametrize("name", [n for n in TYPES if isinstance(example(n).draw(generator(0)), float)])
def test_a_parameter_from_a_range_is_uniform_in_its_logarithm(name):
    section, _ = TYPES[name]
    low, high = next(v for v in section.values() if isinstance(v, list))
    low, high = (math.sqrt(low), math.sqrt(high)) if name == "gaussian" else (low, high)
    degradation, gen = example(name), generator(5)
    uniform = np.array([math.log(degradation.draw(gen) / low) / math.log(high / low) for _ in range(1000)])
    assert uniform.min() >= 0
    assert uniform.max() <= 1
    assert [uniform.mean(), uniform.std()] == pytest.approx([0.5, 12**-0.5], abs=0.04)


@pytest.mark.parametrize("name", [n for n in TYPES if example(n).sigma_range(FRAMES[TYPES[n][1]])])
def test_the_range_of_levels_that_a_configuration_states_is_the_one_drawn(name, anatomy):
    section, frame = TYPES[name][0], FRAMES[TYPES[name][1]]
    config = parse_config({"data": {"noise": {"type": name, **section}}}).data.noise
    low, high = config.sigma_range(frame)
    levels = [drawn(config, anatomy, frame, seed)[1] for seed in range(40)]
    assert low <= min(levels) < low * 1.3
    assert high / 1.3 < max(levels) <= high


def test_what_cannot_be_known_without_the_image_is_not_stated():
    for name in ("speckle", "salt_and_pepper", "undersampled", "downsampled", "pet"):
        assert parse_config({}, [f"data.noise.type={name}"]).data.noise.sigma_range(Frame(0.0, 1.0)) is None
    rician = parse_config({}, ["data.noise.type=rician"]).data.noise
    assert rician.sigma_range() is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("name", TYPES)
def test_a_gpu_gives_the_noise_of_the_cpu(name, anatomy):
    section, frame = TYPES[name]
    degradation = noise(type=name, **section)
    cpu, gpu = (drawn(degradation, anatomy.to(device), FRAMES[frame])[0] for device in ("cpu", "cuda"))
    assert gpu.is_cuda
    torch.testing.assert_close(gpu.cpu(), cpu, atol=1e-5, rtol=1e-5)
