"""Metrics equal scikit-image and numpy on the same pair, keep their range, and count patients, not slices."""

import numpy as np
import pytest
from scipy.ndimage import correlate1d, uniform_filter
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from cdm4mi.data.phantoms import phantom
from cdm4mi.errors import UserError
from cdm4mi.measure.metrics import body_mask, mae, psnr, rmse, ssim


@pytest.fixture(scope="module")
def pair():
    ref = phantom("CT", 1)
    return ref + 40 * np.random.default_rng(0).standard_normal(ref.shape), ref


def test_equal_to_scikit_image_and_numpy(pair):
    x, ref = pair
    assert psnr(x, ref, 2000) == pytest.approx(peak_signal_noise_ratio(ref, x, data_range=2000))
    gaussian = structural_similarity(
        ref.astype(float), x, data_range=2000, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert ssim(x, ref, 2000) == pytest.approx(gaussian)
    assert ssim(x, ref, 2000, "uniform") == pytest.approx(structural_similarity(ref.astype(float), x, data_range=2000))
    assert mae(x, ref) == pytest.approx(np.mean(np.abs(x - ref)))
    assert rmse(x, ref) == pytest.approx(np.sqrt(np.mean((x - ref) ** 2)))


def _ssim_map(x, y, data_range, mean, unbias=1.0):
    ux, uy = mean(x), mean(y)
    vx, vy, vxy = (
        unbias * (mean(a * b) - ua * ub) for a, b, ua, ub in ((x, x, ux, ux), (y, y, uy, uy), (x, y, ux, uy))
    )
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    return (2 * ux * uy + c1) * (2 * vxy + c2) / ((ux**2 + uy**2 + c1) * (vx + vy + c2))


def test_ssim_is_the_formula_of_wang_with_the_stated_window(pair):
    """Written out by hand, so that another window, covariance or constant fails; the two definitions differ."""
    x, ref = pair[0], pair[1].astype(float)
    taps = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    taps /= taps.sum()
    gaussian = _ssim_map(x, ref, 2000, lambda a: correlate1d(correlate1d(a, taps, 0), taps, 1))
    assert ssim(x, ref, 2000) == pytest.approx(gaussian[5:-5, 5:-5].mean(), abs=1e-6)
    uniform = _ssim_map(x, ref, 2000, lambda a: uniform_filter(a, 7), unbias=49 / 48)
    assert ssim(x, ref, 2000, "uniform") == pytest.approx(uniform[3:-3, 3:-3].mean(), abs=1e-6)
    assert abs(ssim(x, ref, 2000) - ssim(x, ref, 2000, "uniform")) > 1e-3
    mask = np.zeros(x.shape, bool)
    mask[30:90, 40:100] = True
    assert ssim(x, ref, 2000, mask=mask) == pytest.approx(gaussian[mask].mean(), abs=1e-6)


def test_psnr_of_known_noise_and_of_the_window():
    """White noise of sigma reads 20 log10(range / sigma), the same for a dark and for a bright image."""
    noise = np.random.default_rng(1).standard_normal((256, 256))
    for ref in (np.zeros((256, 256)), phantom("CT", 2, 256)):
        assert psnr(ref + 20 * noise, ref, 2000) == pytest.approx(40.0, abs=0.05)
        assert psnr(ref + 20 * noise, ref, 400) == pytest.approx(40 - 20 * np.log10(5), abs=0.05)
    assert psnr(ref, ref, 2000) == float("inf")


def test_air_inflates_psnr_and_a_mask_takes_it_away():
    ref = phantom("CT", 3)
    body = body_mask(ref, "CT")
    x = ref + np.where(body, 30.0, 0.0)
    assert rmse(x, ref, body) == pytest.approx(30)
    assert mae(x, ref, body) == pytest.approx(30)
    assert psnr(x, ref, 2000) - psnr(x, ref, 2000, body) == pytest.approx(-10 * np.log10(body.mean()))


def test_body_mask_keeps_lungs_and_drops_the_couch():
    image = np.full((128, 128), -1000.0)
    rows, columns = np.mgrid[:128, :128]
    body = ((rows - 55) / 40) ** 2 + ((columns - 64) / 55) ** 2 < 1
    lung = ((rows - 55) / 20) ** 2 + ((columns - 45) / 12) ** 2 < 1
    image[body], image[lung] = 40, -850
    couch = (rows >= 110) & (rows < 112)
    image[couch] = 100
    mask = body_mask(image, "CT")
    assert mask[lung].all()
    assert not mask[couch].any()
    assert (mask ^ body).sum() < 0.02 * body.sum()


def test_body_mask_covers_head_and_trunk_of_phantoms():
    whole = 0
    for seed in range(16):
        ct, mr = phantom("CT", seed), phantom("MR", seed)
        assert mr[body_mask(mr, "MR")].sum() > 0.94 * mr.sum()
        edge = np.concatenate([ct[0], ct[-1], ct[:, 0], ct[:, -1]])
        if (edge < -800).mean() > 0.9:  # the whole body is in view
            whole += 1
            mask = body_mask(ct, "CT")
            assert ct[mask].mean() > -350
            assert np.abs(ct[~mask] + 1000).mean() < 60
    assert whole > 4
    stack = np.stack([ct, ct])
    np.testing.assert_array_equal(body_mask(stack, "CT")[1], body_mask(ct, "CT"))
    assert not body_mask(np.zeros((32, 32)), "MR").any()


def test_what_cannot_be_judged_is_named():
    good = np.ones((16, 16))
    broken = good.copy()
    broken[3, 4] = np.nan
    for metric in (lambda x, r, m=None: psnr(x, r, 2.0, m), lambda x, r, m=None: ssim(x, r, 2.0, mask=m), mae, rmse):
        with pytest.raises(UserError, match=r"\(15, 16\).*\(16, 16\)"):
            metric(good[1:], good)
        with pytest.raises(UserError, match="image has 1 pixels"):
            metric(broken, good)
        with pytest.raises(UserError, match="reference has 1 pixels"):
            metric(good, broken)
        with pytest.raises(UserError, match="empty"):
            metric(good, good, np.zeros((16, 16), bool))
        with pytest.raises(UserError, match="float64"):
            metric(good, good, good)
    for data_range in (0.0, -1.0, float("nan")):
        with pytest.raises(UserError, match="data range"):
            psnr(good, good, data_range)
    with pytest.raises(UserError, match="11 x 11"):
        ssim(good[:8], good[:8], 2.0)
