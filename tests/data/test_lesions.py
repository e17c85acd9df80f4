"""Ellipses of low contrast in training patches: their shape, their place, and that they are in the clean image."""

import math

import numpy as np
import pytest
import torch

from cdm4mi.config.schema import AugmentConfig
from cdm4mi.data.ellipses import Ellipse, layers_of, profile
from cdm4mi.data.lesions import AIR, CONTRAST, MOST, RADIUS, draw_lesions, with_lesions
from cdm4mi.data.pairs import PairDataset
from cdm4mi.data.patient import Patient
from cdm4mi.degradation import GaussianNoise


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
    assert all(CONTRAST[0] <= abs(lesion.contrast) <= CONTRAST[1] for lesion in each)
    assert 0.4 < np.mean([lesion.contrast > 0 for lesion in each]) < 0.6


def test_tissue_gets_them_and_air_does_not():
    image = torch.full((1, 1, 40, 40), AIR)
    image[..., 20:] = 0.0
    out = with_lesions(image, layers_of([[(Ellipse(0.5, 0.5, (8.0, 8.0), 0.0, 0.3), -0.1)]]))
    assert torch.equal(out[..., :20], image[..., :20])
    assert float(out[0, 0, 20, 21]) == pytest.approx(-0.1, abs=1e-3)
    bright = layers_of([[(Ellipse(0.5, 0.5, (3.0, 3.0), 0.0, 0.3), 0.2)]])
    assert float(with_lesions(torch.ones(1, 1, 8, 8), bright).max()) == 1.0


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
