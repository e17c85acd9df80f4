"""Ellipses of low contrast in training patches: their shape, their place, and that they are in the clean image."""

import math

import numpy as np
import pytest
import torch

from cdm4mi.config.schema import AugmentConfig
from cdm4mi.data.ellipses import Ellipse, layers_of, profile
from cdm4mi.data.lesions import (
    AIR,
    AREA,
    CONTRAST,
    HIDING,
    MOST,
    RADIUS,
    WEIGHED,
    Lesion,
    draw_lesions,
    loss_weights,
    with_lesions,
)
from cdm4mi.data.pairs import PairDataset
from cdm4mi.data.patient import Patient
from cdm4mi.degradation import GaussianNoise
from cdm4mi.degradation.noises.coloured import ColouredNoise
from cdm4mi.diffusion.noise import generator


def test_the_profile_is_an_ellipse():
    ellipse = Ellipse(0.5, 0.25, (12.0, 5.0), math.pi / 2, 0.3)  # long axis along the rows' index
    inside = profile(layers_of([[(ellipse, 0.0)]]).ellipses, 80, 120)[0]
    assert float(inside.sum()) == pytest.approx(math.pi * 12 * 5, rel=0.02)
    assert float(inside[40, 30]) == pytest.approx(1, abs=1e-3)
    rows, columns = torch.nonzero(inside > 0.5, as_tuple=True)
    assert (int(rows.min()), int(rows.max())) == (28, 51)
    assert (int(columns.min()), int(columns.max())) == (25, 34)


def test_what_is_drawn_is_in_range():
    drawn = [draw_lesions(np.random.default_rng(k)) for k in range(300)]
    assert {len(lesions) for lesions in drawn} == set(range(1, MOST + 1))
    each = [lesion for lesions in drawn for lesion in lesions]
    assert all(RADIUS[0] <= min(lesion.ellipse.radii) <= RADIUS[1] for lesion in each)
    assert all(CONTRAST[0] <= abs(lesion.contrast(None)) <= CONTRAST[1] for lesion in each)
    assert 0.4 < np.mean([lesion.contrast(None) > 0 for lesion in each]) < 0.6


def test_as_many_to_an_area_whatever_the_size_of_the_patch():
    def mean(pixels):
        return np.mean([len(draw_lesions(np.random.default_rng(k), pixels)) for k in range(300)])

    assert mean(4 * AREA) == 4 * mean(AREA)
    assert len(draw_lesions(np.random.default_rng(0), 100)) == 1


def test_a_contrast_is_about_the_least_that_can_be_seen_in_the_noise():
    """The ideal observer's d' in white noise, root of the sum of squared contrast over sigma, is what was drawn."""
    ellipse = Ellipse(0.5, 0.5, (6.0, 4.0), 0.3, 0.1)
    sigma = 0.04
    contrast = Lesion(ellipse, -1.0, 5.0, 0.5).contrast(sigma)
    assert contrast < 0
    signal = contrast * profile(layers_of([[(ellipse, 0.0)]]).ellipses, 32, 32)
    assert float(signal.square().sum().sqrt()) / sigma == pytest.approx(5.0, rel=0.05)
    assert Lesion(ellipse, 1.0, 5.0, 0.5).contrast(10.0) is None, "it would have to be plain to see"
    assert Lesion(ellipse, 1.0, 5.0, 0.5).contrast(1e-6) == CONTRAST[0]


def test_the_contrast_is_by_the_noise_at_the_frequencies_of_the_ellipse():
    """In smoothed noise small ellipses are hidden by more than its level says, and so are given more contrast."""
    flat = np.zeros((64, 64), np.float16)
    people = [Patient("a", "CT-a", [flat], [flat == 0])]

    def contrasts(**keys):
        noise = ColouredNoise(variance=0.0004, **keys)
        data = PairDataset(people, noise, 64, 0, augment=AugmentConfig(lesions=1.0))
        images = data.draw(range(40)).images
        ellipses = images.intensities.lesions
        return ellipses.values.abs(), noise.blob_powers(data.degradation.draw(generator(0)), [20.0])[0]

    (white, one), (smooth, power) = contrasts(spectrum="white"), contrasts(spectrum="smoothed", smoothing=1.0)
    assert one == 1 and power > 5
    assert float(smooth.median() / white.median()) == pytest.approx(math.sqrt(power), rel=0.4)


def test_tissue_gets_them_and_air_does_not():
    image = torch.full((1, 1, 40, 40), AIR)
    image[..., 20:] = 0.0
    out, inside = with_lesions(image, layers_of([[(Ellipse(0.5, 0.5, (8.0, 8.0), 0.0, 0.3), -0.1)]]))
    most = WEIGHED / (64 * math.pi)
    assert not bool(inside[..., :20].any()) and float(inside[0, 0, 20, 21]) == pytest.approx(most, rel=1e-3)
    assert torch.allclose(out, image - 0.1 / most * inside)
    assert torch.equal(out[..., :20], image[..., :20])
    assert float(out[0, 0, 20, 21]) == pytest.approx(-0.1, abs=1e-3)
    bright = layers_of([[(Ellipse(0.5, 0.5, (3.0, 3.0), 0.0, 0.3), 0.2)]])
    assert float(with_lesions(torch.ones(1, 1, 8, 8), bright)[0].max()) == 1.0


def test_small_ellipses_count_as_much_as_large_ones():
    ellipses = [[(Ellipse(0.5, 0.5, radii, 0.4, 0.3), 0.05)] for radii in ((2.0, 2.0), (3.0, 5.0), (10.0, 16.0))]
    covered = with_lesions(torch.zeros(3, 1, 64, 64), layers_of(ellipses))[1]
    weights = loss_weights(covered, torch.full((3,), HIDING), 30.0)
    assert (weights - 1).sum((1, 2, 3)).tolist() == pytest.approx([29 * WEIGHED] * 3, rel=0.1)
    assert float(weights[0].max()) == pytest.approx(1 + 29 * WEIGHED / (4 * math.pi), rel=0.02)


def test_the_share_of_training_patches_that_asked_for_them_has_them():
    flat = np.zeros((40, 40), np.float16)
    people = [Patient("a", "CT-a", [flat], [flat == 0])]

    def clean(**options):
        data = PairDataset(people, GaussianNoise(variance=0.01), 32, 0, **options)
        return [data[i]["x0"] for i in range(60)]

    changed = [bool(x0.abs().max() > 0) for x0 in clean(augment=AugmentConfig(lesions=0.5))]
    assert 18 <= sum(changed) <= 42
    assert not any(bool(x0.abs().max() > 0) for x0 in clean())
    assert not any(bool(x0.abs().max() > 0) for x0 in clean(augment=AugmentConfig(lesions=0.5), validation=True))


@pytest.mark.parametrize("patches_per_slice", [None, 4])
@pytest.mark.parametrize(("variance", "most"), [(HIDING**2 / 4, 29), (4 * HIDING**2, 29 / 16)])
def test_the_loss_weighs_more_inside_them(patches_per_slice, variance, most):
    flat = np.zeros((40, 40), np.float16)
    people = [Patient("a", "CT-a", [flat], [flat == 0])]
    augment = AugmentConfig(lesions=0.5, lesion_weight=30)
    noise = GaussianNoise(variance=variance)
    data = PairDataset(people, noise, 32, 0, augment=augment, patches_per_slice=patches_per_slice)
    pairs = [data[i] for i in range(16)]
    for pair in pairs:
        assert pair["weight"].shape == (1, 32, 32) and float(pair["weight"].min()) >= 1
        inside, changed = (pair["weight"] - 1) / most > 0.5, pair["x0"] != 0
        assert not bool((inside & ~changed).any())
    assert any(float(pair["weight"].max()) > 0.99 * most for pair in pairs)
    plain = PairDataset(people, noise, 32, 0, augment=AugmentConfig(lesions=0.5), patches_per_slice=patches_per_slice)
    assert "weight" not in plain[0] and torch.equal(plain[3]["y"], data[3]["y"])
