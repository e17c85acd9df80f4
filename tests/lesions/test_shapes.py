"""Lesions in images: their size and mass, where they go, and the noise that is the same with and without them."""

import numpy as np
import pytest
import torch

from cdm4mi.config.noise_spec import noise_from_spec
from cdm4mi.degradation import Frame
from cdm4mi.lesions.blobs import count_blobs, matched_filter
from cdm4mi.lesions.contrast import contrast_kept
from cdm4mi.lesions.pairs import PairedNoise
from cdm4mi.lesions.shapes import Site, flat_sites, inside, lesion, region
from cdm4mi.window import IntensityWindow

SITE = Site(2, 30, 34)


@pytest.mark.parametrize("diameter, spacing", [(7, (1, 1, 1)), (5, (3, 0.5, 0.5)), (9, (2, 0.8, 1.2))])
def test_a_disc_has_its_area_in_its_slice_alone(diameter, spacing):
    image = lesion((5, 64, 64), SITE, diameter, spacing)
    area = image.sum((1, 2)) * spacing[1] * spacing[2]
    assert area[2] == pytest.approx(np.pi * diameter**2 / 4, rel=0.02)
    assert area[[0, 1, 3, 4]].max() == 0 and image.max() <= 1
    assert image[2, SITE.row, SITE.column] == pytest.approx(1, abs=0.01)


def test_a_ball_has_its_volume():
    image = lesion((21, 64, 64), Site(10, 30, 34), 12, (0.8, 0.7, 0.7), sphere=True)
    assert image.sum() * 0.8 * 0.7 * 0.7 == pytest.approx(np.pi * 12**3 / 6, rel=0.02)
    assert np.allclose(image[10], lesion((21, 64, 64), Site(10, 30, 34), 12, (0.8, 0.7, 0.7))[10])


def test_sites_lie_in_flat_tissue_of_the_range_and_never_overlap():
    images = np.full((3, 128, 128), -1000.0)
    images[:, 10:118, 10:118] = 40 + np.random.default_rng(0).normal(0, [[[9]], [[3]], [[6]]], (3, 108, 108))
    images[1, 60:70, 60:70] = 500
    sites, _ = flat_sites(images, (0, 80), 6, 30, 15, 20)
    assert len(sites) == 6 and {site.slice for site in sites} == {1}
    for k, site in enumerate(sites):
        assert min(site[1:]) >= 20 and max(site[1:]) < 108
        assert images[1][inside(images.shape, site, 15)].max() < 80
        assert all(max(abs(site.row - o.row), abs(site.column - o.column)) > 30 for o in sites[:k])
        assert region(images, site, 9)[1, 4, 4] == images[1, site.row, site.column]
    assert flat_sites(images, (300, 400), 6, 30, 15, 20)[0] == []


NOISES = ["gaussian sigma_hu=30", "low_dose_ct dose=0.5 views=60", "coloured sigma_hu=20"]


@pytest.mark.parametrize("spec", NOISES)
def test_a_lesion_comes_through_noise_of_its_own_slice_unchanged(spec):
    disc = -40 * lesion((1, 64, 64), Site(0, 30, 34), 7)
    noise, frame = noise_from_spec(spec, {}), Frame.of(IntensityWindow(-1000, 1000, "CT"))
    clean = np.full((1, 64, 64), 40.0, np.float32)
    paired = PairedNoise(noise, frame, noise.draw(torch.Generator().manual_seed(0)), (1, 2))
    y = paired.noisy(clean)
    assert y.std() > 5 and np.array_equal(y, paired.noisy(clean))
    assert paired.with_lesion(y, clean, disc) - y == pytest.approx(disc, abs=1e-3)


def test_a_magnitude_is_that_of_the_signal_with_the_lesion():
    """Against the closed form |A + n| with the same complex noise: in weak signal a lesion changes less than itself."""
    noise, frame = noise_from_spec("rician percent=20", {}), Frame.of(IntensityWindow(0, 100, "MR"))
    clean, disc = np.full((1, 64, 64), 20.0, np.float32), 10 * lesion((1, 64, 64), Site(0, 30, 34), 9)
    paired = PairedNoise(noise, frame, noise.draw(torch.Generator().manual_seed(0)), (1, 2))
    y = paired.noisy(clean)
    with_ = paired.with_lesion(y, clean, disc)
    assert np.array_equal(with_, paired.noisy(clean + disc)) and with_.min() >= 0
    mask = inside(clean.shape, Site(0, 30, 34), 9)
    assert 0.3 < contrast_kept(with_[0], y[0], disc[0], mask) < 0.95


def test_a_matched_filter_measures_contrast_and_no_plane():
    profile = lesion((1, 24, 24), Site(0, 12, 12), 7)[0]
    filter = matched_filter(profile)
    assert np.sum(filter * (5 - 30 * profile)) == pytest.approx(-30)
    counted = [(-30, -40, 1), (-19, -40, 0), (30, -40, 0), (30, 40, 1)]
    for contrast, asked, count in counted:
        image = contrast * lesion((1, 96, 96), Site(0, 40, 50), 7)[0]
        assert count_blobs(image, profile, asked, np.ones(image.shape, bool)) == count
    image = sum(-40 * lesion((1, 96, 96), Site(0, *at), 7)[0] for at in ((30, 30), (30, 60), (70, 50)))
    assert count_blobs(image, profile, -40, np.ones(image.shape, bool)) == 3
    assert count_blobs(image, profile, -40, np.indices(image.shape)[0] < 50) == 2
