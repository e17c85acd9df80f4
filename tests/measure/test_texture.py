"""Edges, tissues, contrast and flicker on images whose answer is known."""

import numpy as np
import pytest
from scipy.ndimage import uniform_filter
from scipy.special import erf

from cdm4mi.errors import UserError
from cdm4mi.measure.flicker import flicker
from cdm4mi.measure.sharpness import edge_spread, edge_width, frequency_at, mtf
from cdm4mi.measure.tissue import CT_TISSUES, cnr, tissue_bias, tissue_classes


def blurred_step(sigma, degrees=4.0, size=48, offset=0.3):
    """A step from -100 to 200, blurred by a Gaussian of sigma pixels, its edge tilted from the columns' direction."""
    rows, columns = np.indices((size, size)) - (size - 1) / 2
    angle = np.radians(degrees)
    across = columns * np.cos(angle) + rows * np.sin(angle) - offset
    return -100 + 150 * (1 + erf(across / (sigma * np.sqrt(2))))


@pytest.mark.parametrize("sigma", [0.8, 1.3, 2.0])
def test_mtf_of_a_gaussian_blur_is_its_closed_form(sigma):
    step = blurred_step(sigma)
    for region in (step, step[:, ::-1], step.T, -step + 7):
        distance, profile = edge_spread(region)
        assert edge_width(distance, profile) == pytest.approx(2.5631 * sigma, rel=0.04)
        frequency, transfer = mtf(distance, profile)
        expected = np.exp(-2 * (np.pi * sigma * frequency) ** 2)
        assert np.abs(transfer - expected)[frequency < 0.5].max() < 0.025
        half = np.sqrt(np.log(2) / 2) / (np.pi * sigma)
        assert frequency_at(frequency, transfer) == pytest.approx(half, rel=0.04)


def test_an_edge_is_followed_along_its_tilt_and_through_noise():
    step = blurred_step(1.0, degrees=6.0)
    distance, profile = edge_spread(step + 6 * np.random.default_rng(0).standard_normal(step.shape))
    assert edge_width(distance, profile) == pytest.approx(2.563, rel=0.08)
    # wrong: the mean of the rows takes the tilt for blur
    mean = (step.mean(axis=0) + 100) / 300
    assert edge_width(np.arange(48.0), mean) > 1.4 * 2.563
    with pytest.raises(UserError, match=r"no step|within 4"):
        edge_spread(np.ones((24, 24)))
    with pytest.raises(UserError, match="12 x 12"):
        edge_spread(step[:8])


def test_a_perfect_image_is_unbiased_in_every_tissue():
    """Reference: truth and noise. Classes told from single noisy pixels would charge the truth with their selection."""
    rng = np.random.default_rng(1)
    truth = np.repeat([-1000.0, -800.0, -90.0, 20.0, 600.0], 60)[:, None] * np.ones((1, 200))
    ref = truth + 40 * rng.standard_normal(truth.shape)
    body = truth > -900
    found = tissue_bias(truth, ref, tissue_classes(ref, "CT", body))
    assert set(found) == set(CT_TISSUES)
    assert max(map(abs, found.values())) < 2.5
    single = {name: (ref >= low) & (ref < high) for name, (low, high) in CT_TISSUES.items()}
    assert max(map(abs, tissue_bias(truth, ref, single).values())) > 10
    shifted = np.where(truth > 300, truth - 25, truth)
    found = tissue_bias(shifted, ref, tissue_classes(ref, "CT", body))
    assert found["bone"] == pytest.approx(-25, abs=2.5)
    assert abs(found["soft"]) < 2.5
    assert np.isnan(tissue_bias(truth[60:], ref[60:], tissue_classes(ref[60:], "CT", body[60:]))["air"])
    assert set(tissue_classes(ref, "MR", body)) == {"background", "foreground"}


def test_cnr_is_contrast_over_noise():
    rng = np.random.default_rng(2)
    first = np.zeros((64, 128), bool)
    first[:, :64] = True
    image = np.where(first, 50.0, 30.0)
    noise = rng.standard_normal(image.shape)
    assert cnr(image + 4 * noise, first, ~first) == pytest.approx(5, rel=0.03)
    assert cnr(image + 8 * noise, first, ~first) == pytest.approx(2.5, rel=0.03)
    assert cnr(3 * image + 12 * noise + 7, first, ~first) == pytest.approx(5, rel=0.03)
    assert cnr(image, first, ~first) == float("inf")
    assert np.isnan(cnr(image, first, np.zeros_like(first)))


def test_flicker_is_what_changes_from_slice_to_slice():
    rng = np.random.default_rng(3)
    ref = uniform_filter(rng.standard_normal((200, 64, 64)), (3, 9, 9)) * 300
    levels = 5 * rng.standard_normal((200, 1, 1))
    assert flicker(ref + levels, ref) == pytest.approx(5, rel=0.15)
    assert flicker(ref + 50, ref) < 1e-9
    assert flicker(ref + np.linspace(0, 30, 64), ref) < 1e-9  # wrong everywhere, but steady along z
    grain = 16 * rng.standard_normal(ref.shape)
    assert flicker(ref + grain, ref) == pytest.approx(1, rel=0.05)
    # wrong: the change of single pixels takes grain for flicker
    assert np.sqrt(np.mean(np.diff(grain, axis=0) ** 2) / 2) > 15
    # wrong: the change of the image charges the anatomy's own change
    assert np.sqrt(np.mean(np.diff(ref, axis=0) ** 2) / 2) > 10
    mask = np.zeros(ref.shape, bool)
    mask[:, :32] = True
    lower = ref + np.where(np.arange(64)[:, None] >= 32, levels, 0)
    assert flicker(lower, ref, mask) == 0
    assert np.isnan(flicker(ref[:1], ref[:1]))
    with pytest.raises(UserError, match="slices, rows, columns"):
        flicker(ref[0], ref[0])
