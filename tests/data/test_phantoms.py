"""Phantoms: the same person for the same seed, values that a scanner gives, and detail worth training on."""

import numpy as np
import pytest
import torch

from cdm4mi.data.phantom_pairs import phantom_pairs
from cdm4mi.data.phantoms import phantom
from cdm4mi.errors import UserError


@pytest.mark.parametrize("kind", ["CT", "MR"])
def test_same_seed_same_person_another_seed_another(kind):
    first, again, other = phantom(kind, 3), phantom(kind, 3), phantom(kind, 4)
    assert first.shape == (128, 128)
    assert first.dtype == np.float32
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).mean() > 0.02 * np.ptp(first)


@pytest.mark.parametrize("size", [16, 64, 100, 256])
def test_every_size_draws(size):
    for seed in range(6):
        for kind in ("CT", "MR"):
            image = phantom(kind, seed, size)
            assert image.shape == (size, size)
            assert np.isfinite(image).all()


def test_ct_is_in_hounsfield_units():
    slices = np.stack([phantom("CT", seed) for seed in range(30)])
    assert slices.min() >= -1024
    assert slices.max() <= 2000
    # each slice shows soft tissue; together they show air, lung, fat and bone
    assert ((slices > 0) & (slices < 100)).mean(axis=(1, 2)).min() > 0.05
    for low, high, share in ((-1001, -999, 0.2), (-920, -750, 0.01), (-130, -70, 0.05), (400, 2000, 0.005)):
        assert ((slices > low) & (slices < high)).mean() > share, (low, high)


def test_mr_is_a_head_in_black_air():
    slices = np.stack([phantom("MR", seed) for seed in range(30)])
    assert slices.min() >= 0
    assert 500 < np.median(slices.max(axis=(1, 2))) < 1500
    assert 0.1 < (slices < 1).mean() < 0.7


@pytest.mark.parametrize("kind", ["CT", "MR"])
def test_detail_reaches_the_finest_scale_and_edges_are_partial_volumes(kind):
    """Energy falls with frequency as in anatomy but is not gone at half of Nyquist, unlike a blurred cartoon."""
    ratio = []
    for seed in range(12):
        image = phantom(kind, seed) - phantom(kind, seed).mean()
        power = np.abs(np.fft.fft2(image)) ** 2
        frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(128), np.fft.fftfreq(128)))
        ratio.append(power[(frequency > 0.25)].sum() / power.sum())
    assert 3e-4 < np.median(ratio) < 0.05


def test_wrong_kind_and_size_are_named():
    with pytest.raises(UserError, match="'PET'"):
        phantom("PET", 0)
    with pytest.raises(UserError, match="8"):
        phantom("CT", 0, 8)


def test_pairs_are_clean_phantoms_and_the_same_with_white_noise():
    x0, y = phantom_pairs(6, "CT", size=32, sigma=0.1, seed=2)
    assert x0.shape == y.shape == (6, 1, 32, 32) and x0.dtype == y.dtype == torch.float32
    assert float(x0.min()) >= -1 and float(x0.max()) <= 1
    assert float((y - x0).std()) == pytest.approx(0.1, rel=0.03)
    fewer = phantom_pairs(2, "CT", size=32, sigma=0.1, seed=2)
    assert torch.equal(fewer[0], x0[:2]) and torch.equal(fewer[1], y[:2])
    assert not torch.equal(phantom_pairs(1, "CT", size=32, seed=3)[0], x0[:1])
    for options, expected in (({"n": 0}, "n: found 0"), ({"sigma": -1}, "sigma: found -1"), ({"seed": -1}, "seed")):
        with pytest.raises(UserError, match=expected):
            phantom_pairs(**{"n": 1, **options})
