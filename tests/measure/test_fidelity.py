"""VIF equals an independent implementation and its definition; foreign SSIM equals what the foreign code computes."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from skimage.metrics import structural_similarity
from torch.nn.functional import conv2d
from torchmetrics.functional.image import visual_information_fidelity

from cdm4mi.data.phantoms import phantom
from cdm4mi.errors import UserError
from cdm4mi.measure.fidelity import vif
from cdm4mi.measure.metrics import bias, mae, ssim, ssim_map, ssim_mean
from cdm4mi.measure.ssim_foreign import ssim_across_slices, ssim_zero_padded


@pytest.fixture(scope="module")
def pair():
    """A noisy and a clean image in grey levels 0 to 255."""
    ref = (phantom("MR", 4, 128) / phantom("MR", 4, 128).max() * 255).astype(float)
    return np.clip(ref + 12 * np.random.default_rng(0).standard_normal(ref.shape), 0, 255), ref


def test_vif_equals_torchmetrics(pair):
    x, ref = pair
    for image in (x, gaussian_filter(ref, 1.5)):
        expected = visual_information_fidelity(*(torch.from_numpy(a.copy())[None, None] for a in (image, ref)))
        assert vif(image, ref, 255) == pytest.approx(float(expected), rel=1e-3)


def test_vif_is_one_for_equal_images_and_falls_with_what_is_lost(pair):
    x, ref = pair
    assert vif(ref, ref, 255) == pytest.approx(1, abs=1e-6)
    blurred, constant = gaussian_filter(ref, 2.0), np.full_like(ref, 50)
    assert vif(constant, ref, 255) < 0.01 < vif(gaussian_filter(ref, 4.0), ref, 255) < vif(blurred, ref, 255) < 0.5
    assert vif(x, ref, 255) < 1
    assert np.isnan(vif(x, constant, 255))
    # wrong: on other units the eye's noise is a different share, and the same pair reads otherwise
    assert abs(vif(x / 255, ref / 255, 1) - vif(x, ref, 255)) > 0.1
    # only what the mask holds counts
    half = ref.copy()
    half[:, :64] = x[:, :64]
    right, left = np.zeros(ref.shape, bool), np.zeros(ref.shape, bool)
    right[:, 96:], left[:, :32] = True, True
    assert vif(half, ref, 255, right) == pytest.approx(1, abs=1e-6)
    assert vif(half, ref, 255, left) == pytest.approx(vif(x, ref, 255, left), rel=1e-6)
    with pytest.raises(UserError, match="41 x 41"):
        vif(x[:40], ref[:40], 255)
    with pytest.raises(UserError, match="grey levels"):
        vif(ref - 300, ref, 255)


def test_ssim_is_the_mean_of_its_map(pair):
    x, ref = pair
    mask = np.zeros(x.shape, bool)
    mask[20:60, 30:90] = True
    for definition in ("gaussian", "uniform"):
        similarity = ssim_map(x, ref, 255, definition)
        assert ssim_mean(similarity, definition) == pytest.approx(ssim(x, ref, 255, definition))
        assert ssim_mean(similarity, definition, mask) == pytest.approx(ssim(x, ref, 255, definition, mask))


def test_zero_padded_ssim_is_that_of_a_padding_convolution(pair):
    x, ref = (torch.from_numpy(a)[None, None] for a in pair)
    taps = torch.exp(-((torch.arange(11) - 5) ** 2).double() / (2 * 1.5**2))
    window = torch.outer(taps, taps)[None, None] / taps.sum() ** 2

    def mean(a):
        return conv2d(a, window, padding=5)

    mx, mr = mean(x), mean(ref)
    vx, vr, cov = mean(x * x) - mx**2, mean(ref * ref) - mr**2, mean(x * ref) - mx * mr
    c1, c2 = 2.55**2, 7.65**2
    expected = ((2 * mx * mr + c1) * (2 * cov + c2) / ((mx**2 + mr**2 + c1) * (vx + vr + c2))).mean()
    assert ssim_zero_padded(*pair, 255) == pytest.approx(float(expected), rel=1e-9)
    assert ssim_zero_padded(*pair, 255) != pytest.approx(ssim(*pair, 255), abs=1e-4)


def test_ssim_of_a_stack_depends_on_the_order_of_its_images(pair):
    """What the original work calls (channel_axis=1 of (N, 1, H, W)) is this; images that are strangers get mixed."""
    rng = np.random.default_rng(1)
    stack = np.stack([gaussian_filter(rng.standard_normal((24, 24)), 2) for _ in range(12)])
    noisy = stack + 0.05 * rng.standard_normal(stack.shape)
    theirs = structural_similarity(stack[:, None], noisy[:, None], data_range=2, channel_axis=1)
    assert ssim_across_slices(noisy, stack, 2) == pytest.approx(theirs)
    order = rng.permutation(12)
    assert ssim_across_slices(noisy[order], stack[order], 2) != pytest.approx(theirs, abs=1e-6)
    with pytest.raises(UserError, match="at least 7 slices"):
        ssim_across_slices(stack[:6], stack[:6], 2)


def test_bias_is_signed(pair):
    _, ref = pair
    assert bias(ref + 3, ref) == pytest.approx(3)
    assert bias(ref - 3, ref) == pytest.approx(-3)
    symmetric = ref + np.where(np.indices(ref.shape).sum(0) % 2, 5.0, -5.0)
    assert bias(symmetric, ref) == pytest.approx(0, abs=1e-9)
    assert mae(symmetric, ref) == pytest.approx(5)
