"""Baselines denoise, do so alike in any units, and estimate the noise that was added."""

import importlib.util
from dataclasses import replace

import numpy as np
import pytest
from skimage import restoration

from cdm4mi.data.phantoms import phantom
from cdm4mi.errors import UserError
from cdm4mi.evaluation import baselines
from cdm4mi.evaluation.baselines import BASELINES, nlm
from cdm4mi.evaluation.baselines.nlm import NlmSettings
from cdm4mi.measure.metrics import psnr
from cdm4mi.measure.noise_level import estimate_noise

HAVE_PYWT = importlib.util.find_spec("pywt") is not None
HAVE_BM3D = importlib.util.find_spec("bm3d") is not None
SIGMA = 0.05**0.5


@pytest.fixture(scope="module")
def pair():
    clean = phantom("MR", 5) / 500 - 1
    return clean + SIGMA * np.random.default_rng(0).standard_normal(clean.shape).astype(np.float32), clean


@pytest.mark.parametrize(
    ("name", "gain"),
    [
        ("gaussian_filter", 2.0),
        ("tv", 4.0),
        ("nlm", 4.0),
        pytest.param("wavelet", 4.0, marks=pytest.mark.skipif(not HAVE_PYWT, reason="PyWavelets is not installed")),
        pytest.param("bm3d", 5.0, marks=pytest.mark.skipif(not HAVE_BM3D, reason="bm3d is not installed")),
    ],
)
def test_each_gains_and_works_in_any_units(pair, name, gain):
    noisy, clean = pair
    method = getattr(baselines, name)
    out = method(noisy, SIGMA)
    assert out.dtype == np.float32
    assert psnr(out, clean, 2) > psnr(noisy, clean, 2) + gain
    in_hu = method(noisy * 1000 + 300, SIGMA * 1000)
    assert np.sqrt(np.mean(((in_hu - 300) / 1000 - out) ** 2)) < 1e-3
    np.testing.assert_array_equal(method(noisy, 0.0), noisy)


def test_nlm_is_scikit_images(pair):
    noisy, _ = pair
    expected = restoration.denoise_nl_means(
        noisy.astype(np.float64), patch_size=7, patch_distance=5, h=0.8 * SIGMA, sigma=SIGMA, fast_mode=True
    )
    np.testing.assert_allclose(nlm(noisy, SIGMA, NlmSettings(0.8, 7, 5)), expected, atol=1e-3)


def test_tuning_finds_the_best_of_the_grid():
    pairs = []
    for seed in (1, 2):
        clean = phantom("MR", seed, 64) / 500 - 1
        pairs.append((clean + 0.2 * np.random.default_rng(seed).standard_normal(clean.shape), clean, 0.2))
    grid = [NlmSettings(f, 5, 6) for f in (0.1, 0.6, 3.0)]
    best = replace(nlm, grid=grid).tuned(pairs)
    score = {s: np.mean([psnr(nlm(y, sigma, s), x, 2) for y, x, sigma in pairs]) for s in grid}
    assert best == max(score, key=score.get)
    assert best.factor == 0.6


def test_no_tuned_setting_lies_at_an_end_of_its_grid():
    clean = phantom("MR", 1, 64) / 500 - 1
    for name in ("gaussian_filter", "tv"):
        baseline = BASELINES[name]
        for sigma in (0.1, 0.4):
            noisy = clean + sigma * np.random.default_rng(1).standard_normal(clean.shape)
            best = baseline.tuned([(noisy, clean, sigma)])
            assert best not in (baseline.grid[0], baseline.grid[-1]), (name, sigma, best)


@pytest.mark.parametrize("sigma", [0.02, 0.1, 0.4])
def test_sigma_is_estimated_from_the_noise_not_from_the_anatomy(sigma):
    clean = phantom("CT", 3, 256) / 1000
    noisy = clean + sigma * np.random.default_rng(2).standard_normal(clean.shape)
    assert estimate_noise(noisy).sigma == pytest.approx(sigma, rel=0.06)
    assert estimate_noise(1000 * noisy).sigma == pytest.approx(1000 * sigma, rel=0.06)
    noisy[:, :128] = 0  # padding does not count
    assert estimate_noise(noisy).sigma == pytest.approx(sigma, rel=0.08)


def test_constant_image_has_no_noise():
    assert estimate_noise(np.full((64, 64), 7.3)).sigma == 0


def test_mistakes_are_named(pair):
    noisy, _ = pair
    with pytest.raises(UserError, match="sigma is -1"):
        nlm(noisy, -1)
    with pytest.raises(UserError, match=r"\(1, 128, 128\)"):
        nlm(noisy[None], 0.1)
    with pytest.raises(UserError, match="not finite"):
        estimate_noise(noisy * np.nan)
    with pytest.raises(UserError, match="validation pair"):
        BASELINES["nlm"].tuned([])
    if not HAVE_BM3D:
        with pytest.raises(UserError, match=r"pip install bm3d.*commercial"):
            baselines.bm3d(noisy, 0.1)
    if not HAVE_PYWT:
        with pytest.raises(UserError, match="pip install PyWavelets"):
            baselines.wavelet(noisy, 0.1)
