"""Low-dose CT: noise of a water disc, noise as it was asked for in a chest, its texture, and what it leaves alone."""

import math

import numpy as np
import pytest
import torch
from real_scans import needs_scans
from skimage.transform import iradon

from cdm4mi.degradation.base import Frame
from cdm4mi.degradation.ct import ScanGeometry, fbp, project
from cdm4mi.degradation.ct.counts import log_variance, measured_error
from cdm4mi.degradation.noises.low_dose_ct import MU_WATER, LowDoseCT, attenuation, middle_of_body
from cdm4mi.errors import UserError
from cdm4mi.measure.spectrum import noise_power_spectrum, radial_mean, regions_inside
from experiments.shared import SCANS


def radius_mm(size, pixel):
    """(size, size) distance from the middle."""
    at = (torch.arange(size) - (size - 1) / 2) * pixel
    return torch.hypot(at[:, None], at)


def water(size, pixel, radius):
    """(1, size, size) HU of a disc of water in air."""
    return torch.where(radius_mm(size, pixel) <= radius, 0.0, -1000.0)[None]


def patient(size, pixel):
    """(1, size, size) HU: an oval body with lungs and a spine."""
    at = (torch.arange(size) - (size - 1) / 2) * pixel
    x, y = at, at[:, None]
    hu = torch.full((size, size), -1000.0)
    hu[(x / 160) ** 2 + (y / 110) ** 2 <= 1] = 40
    for side in (-75, 75):
        hu[((x - side) / 50) ** 2 + ((y + 10) / 70) ** 2 <= 1] = -850
    hu[x**2 + (y - 70) ** 2 <= 20**2] = 500
    return hu[None]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def disc_noise():
    """Noise in HU by photons a ray: 30 cm of water, 0.68 mm pixels, 720 views, Hann, electronic variance 10."""
    disc = water(512, 0.68, 150)
    return {
        i0: LowDoseCT(dose=1.0, i0=i0).noise_hu(disc, 1.0, seeded(), (0.68, 0.68))[0]
        for i0 in (1e6, 1.5e5, 3.75e4, 2e4)
    }


@pytest.mark.parametrize(("i0", "expected"), [(1e6, 11), (1.5e5, 31), (3.75e4, 65), (2e4, 90)])
def test_noise_at_the_centre_of_a_water_disc(disc_noise, i0, expected):
    centre = radius_mm(512, 0.68) < 25
    assert float(disc_noise[i0][centre].std()) == pytest.approx(expected, rel=0.15)


def test_values_do_not_shift_where_photons_are_left(disc_noise):
    inside = radius_mm(512, 0.68) < 145
    for i0 in (1e6, 1.5e5):
        assert abs(float(disc_noise[i0][inside].mean())) < 1


def test_the_middle_is_noisier_than_the_edge(disc_noise):
    r = radius_mm(512, 0.68)
    ratio = float(disc_noise[1.5e5][r < 40].std() / disc_noise[1.5e5][(r > 125) & (r < 145)].std())
    assert ratio == pytest.approx(1.6, abs=0.15)


def test_a_dose_of_many_photons_is_that_many_photons():
    disc = water(96, 3.0, 100)
    tenth = LowDoseCT(dose=0.1, i0=1e6, views=90).noise_hu(disc, 0.1, seeded(), (3.0, 3.0))
    few = LowDoseCT(dose=1.0, i0=1e5, views=90).noise_hu(disc, 1.0, seeded(), (3.0, 3.0))
    torch.testing.assert_close(tenth, few, rtol=1e-3, atol=1e-2)


@needs_scans
@pytest.mark.parametrize("target", [15.0, 40.0, 80.0])
def test_target_noise_in_a_real_chest(target):
    import nibabel

    scan = nibabel.load(SCANS / "ct" / "lidc_0314_chest.nii.gz")
    hu = torch.from_numpy(np.asarray(scan.dataobj[:, :, 60], dtype=np.float32))[None]
    spacing = tuple(float(d) for d in scan.header.get_zooms()[:2])
    noise = LowDoseCT(target_hu=target).noise_hu(hu, target, seeded(), spacing)
    assert float(noise[0][middle_of_body(hu[0])].std()) == pytest.approx(target, rel=0.05)


@pytest.mark.parametrize("geometry", ["parallel", "fan"])
@pytest.mark.parametrize("thinning", [False, True], ids=["noise-free scan", "noisy scan"])
@pytest.mark.parametrize("target", [15.0, 60.0])
def test_target_noise_in_a_patient(geometry, thinning, target):
    hu = patient(192, 2.0)
    way = LowDoseCT(target_hu=target, geometry=geometry, thinning=thinning, views=360, i0=1e5)
    noise = way.noise_hu(hu.expand(4, -1, -1), target, seeded(), (2.0, 2.0))
    assert float(noise[:, middle_of_body(hu[0])].std()) == pytest.approx(target, rel=0.05)


def test_a_target_out_of_reach_is_told():
    hu = patient(96, 4.0)
    with pytest.raises(UserError, match=r"target_hu: found 100000, expected at most [0-9]+ for this slice"):
        LowDoseCT(target_hu=1e5, views=60).noise_hu(hu, 1e5, seeded(), (4.0, 4.0))


def shape(noise, mask):
    """Radial noise power spectrum of (N, H, W) noise inside a mask, of unit mean."""
    regions = np.concatenate([regions_inside(n, mask, 32) for n in np.asarray(noise, dtype=np.float64)])
    frequency, power = radial_mean(noise_power_spectrum(regions))
    return frequency, power / power.mean()


def test_spectrum_of_the_inserted_noise_is_that_of_water_reconstructed_elsewhere():
    """Noise inserted into a patient against that of water, projected in closed form, reconstructed by scikit-image."""
    # few draws decide nothing: two regions fit into the middle, and a Poisson number differs with the last bit
    size, pixel, views, draws = 193, 1.5, 180, 96
    scan = ScanGeometry(size, size, (pixel, pixel), views)
    line = 2 * MU_WATER * (130**2 - scan.positions() ** 2).clamp(min=0).sqrt().expand(views, -1).float()
    generator = seeded(1)
    elsewhere = [
        iradon(
            measured_error(line, 1e5, 10, generator).numpy().T.astype(np.float64),
            np.arange(views) * 180 / views,
            output_size=size,
            filter_name="hann",
            circle=False,
        )
        for _ in range(draws)
    ]
    frequency, expected = shape(elsewhere, (radius_mm(size, pixel) < 70).numpy())

    hu = patient(size, pixel)
    noise = LowDoseCT(dose=0.5, views=views, i0=1e5).noise_hu(hu.expand(draws, -1, -1), 0.5, seeded(2), (pixel, pixel))
    _, found = shape(noise, middle_of_body(hu[0]).numpy())
    assert np.abs(found - expected).max() < 0.12 * expected.max()
    # nothing like white noise: little power at the highest frequencies, less at the lowest than in between
    assert found[frequency > 0.4].max() < 0.05 * found.max() and found[0] < 0.6 * found.max()


def test_thinning_a_noisy_scan_gives_the_noise_of_the_lower_dose():
    size, pixel, dose, i0 = 192, 2.0, 0.3, 4e4
    hu = patient(size, pixel).expand(6, -1, -1)
    scan = ScanGeometry(size, size, (pixel, pixel), 360)
    line = project(attenuation(hu), scan)

    def measured(flux, seed):
        error = measured_error(line, flux, 10, seeded(seed))
        return hu + fbp(error, scan, "ram-lak") * 1000 / MU_WATER

    full, low = measured(i0, 1), measured(dose * i0, 2)
    middle = middle_of_body(hu[0])
    deviation = {}
    for thinning in (False, True):
        way = LowDoseCT(dose=dose, i0=i0, views=360, filter="ram-lak", thinning=thinning)
        noisier = full + way.noise_hu(full, dose, seeded(3), (pixel, pixel))
        deviation[thinning] = float((noisier - hu)[:, middle].std())
    expected = float((low - hu)[:, middle].std())
    assert deviation[True] == pytest.approx(expected, rel=0.03)
    assert deviation[False] == pytest.approx(expected * math.sqrt(1 + dose), rel=0.03)


def test_thinning_to_the_full_dose_changes_nothing():
    hu = patient(96, 4.0)
    noise = LowDoseCT(dose=1.0, views=60, thinning=True).noise_hu(hu, 1.0, seeded(), (4.0, 4.0))
    assert float(noise.abs().max()) == 0


@pytest.mark.parametrize("geometry", ["parallel", "fan"])
@pytest.mark.parametrize("thinning", [False, True])
def test_a_seed_decides_the_noise_and_a_slice_does_not_depend_on_the_next(geometry, thinning):
    slices = torch.cat([patient(96, 4.0), water(96, 4.0, 120), patient(96, 4.0) + 30])
    way = LowDoseCT(dose=0.2, views=60, geometry=geometry, thinning=thinning)
    together = way.noise_hu(slices, 0.2, seeded(5), (4.0, 4.0))
    torch.testing.assert_close(together, way.noise_hu(slices, 0.2, seeded(5), (4.0, 4.0)), rtol=0, atol=0)
    assert float((together - way.noise_hu(slices, 0.2, seeded(6), (4.0, 4.0))).abs().mean()) > 1
    one = seeded(5)
    alone = torch.cat([way.noise_hu(hu[None], 0.2, one, (4.0, 4.0)) for hu in slices])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=0.05)


def test_on_the_models_scale_noise_is_what_it_is_in_hu():
    hu = patient(96, 4.0)
    frame = Frame(-1000.0, 1000.0, "CT", (4.0, 4.0))
    way = LowDoseCT(target_hu=(20.0, 60.0), views=60)
    target = way.draw(seeded())
    assert 20 <= target <= 60
    x0 = frame.normalised(hu)
    y = way.apply(x0, target, seeded(), frame)
    noise = way.noise_hu(frame.physical(x0), target, seeded(), (4.0, 4.0))
    torch.testing.assert_close(y - x0, noise / 1000, rtol=1e-3, atol=1e-5)
    assert way.level(x0, y, target, frame) == pytest.approx(float(noise.square().mean().sqrt()) / 1000, rel=1e-3)
    # the shape that a training pair has, without a batch
    assert way.apply(x0[0], target, seeded(), frame).shape == x0[0].shape


def test_padding_keeps_its_value_and_other_modalities_are_refused():
    hu = patient(96, 4.0)
    outside = radius_mm(96, 4.0)[None] > 180
    hu[outside] = -3024
    noise = LowDoseCT(dose=0.1, views=60).noise_hu(hu, 0.1, seeded(), (4.0, 4.0))
    assert float(noise[outside].abs().max()) == 0 < float(noise[~outside].std())
    with pytest.raises(UserError, match="low_dose_ct: found a MR scan, expected CT"):
        LowDoseCT(dose=0.1).check(Frame(0.0, 1.0, modality="MR"))


@pytest.mark.parametrize("electronic", [0.0, 10.0])
def test_variance_of_the_logarithm_of_few_counts(electronic):
    """Against the sum over all Poisson numbers and a fine grid of electronic noise."""
    z = np.linspace(-6, 6, 601)
    weight = np.exp(-(z**2) / 2)
    for mean in (0.05, 1.0, 7.0, 40.0, 900.0):
        k = np.arange(int(mean + 12 * math.sqrt(mean) + 20))
        pmf = np.exp(k * math.log(mean) - mean - np.array([math.lgamma(n + 1) for n in k]))
        logs = np.log(np.maximum(k[:, None] + math.sqrt(electronic) * z, 1))
        joint = pmf[:, None] * weight / (pmf.sum() * weight.sum())
        expected = (joint * logs**2).sum() - (joint * logs).sum() ** 2
        assert float(log_variance(torch.tensor(mean), electronic)) == pytest.approx(expected, rel=0.06, abs=1e-3)
    assert float(log_variance(torch.tensor(1e6), electronic)) == pytest.approx(1e-6, rel=1e-3)
