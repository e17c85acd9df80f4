"""The residual of a restoration: noise that was removed exactly passes, and what else was removed or added is found."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from cdm4mi.data.phantoms import phantom
from cdm4mi.errors import UserError
from cdm4mi.io.arrays import arrays_in
from cdm4mi.measure.noise_level import NoiseEstimate, estimate_noise
from cdm4mi.trust import residual_test
from cdm4mi.trust.residual import ResidualSums
from cdm4mi.trust.structure import threshold

SPACING = (3.0, 0.7, 0.7)
SHAPE = (8, 128, 128)
SIGMA = 30.0


def clean_ct(seed=1):
    return np.stack([phantom("CT", seed, SHAPE[-1])] * SHAPE[0]).astype(np.float32)


def white(seed, shape=SHAPE):
    return np.random.default_rng(seed).normal(0, SIGMA, shape).astype(np.float32)


def coloured(seed):
    noise = gaussian_filter(white(seed), (0, 1, 1))
    return noise * np.float32(SIGMA / noise.std())


def lesion(position=(4, 70, 60), hu=60.0, diameter=10.0):
    """A ball on the grid of the phantom, in HU above its surroundings."""
    offsets = [(np.arange(n) - p) * s for n, p, s in zip(SHAPE, position, SPACING, strict=True)]
    square = sum(np.square(o).reshape([-1 if a == axis else 1 for a in range(3)]) for axis, o in enumerate(offsets))
    return np.where(square <= (diameter / 2) ** 2, hu, 0).astype(np.float32)


@pytest.mark.parametrize("kind", ["white", "coloured"])
def test_noise_that_is_removed_exactly_passes(kind):
    clean = clean_ct()
    for seed in range(5):
        noise = white(seed) if kind == "white" else coloured(seed)
        rows, columns = (float(np.mean(noise[:, 1:] * noise[:, :-1])), float(np.mean(noise[..., 1:] * noise[..., :-1])))
        estimate = NoiseEstimate(SIGMA, (rows / SIGMA**2, columns / SIGMA**2))
        test = residual_test(clean + noise, clean, estimate, spacing=SPACING)
        assert test.reasons() == [] and test.passed
        assert test.level == pytest.approx(1, abs=0.02)
        assert test.correlations == pytest.approx(estimate.correlations, abs=0.03)
        assert test.edges == pytest.approx(0, abs=0.02)
        assert abs(test.bias) < 2


def test_it_passes_with_the_noise_that_is_measured_in_the_scan():
    clean = clean_ct()
    y = clean + white(0)
    assert residual_test(y, clean, estimate_noise(y), spacing=SPACING).passed


def test_a_restoration_that_leaves_noise_passes_with_a_lesser_level():
    clean = clean_ct()
    test = residual_test(clean + white(0), clean + 0.3 * white(0), NoiseEstimate(SIGMA, (0, 0)), spacing=SPACING)
    assert test.passed and test.level == pytest.approx(0.7, abs=0.02)


def test_scores_of_white_noise_are_standard():
    test = residual_test(white(3), np.zeros(SHAPE, np.float32), NoiseEstimate(SIGMA, (0, 0)), spacing=SPACING)
    assert test.structure < threshold(test.scores)
    assert test.structure > 4  # of tens of thousands
    assert test.contrast == 0  # the output shows nothing


@pytest.mark.parametrize("kind", ["white", "coloured"])
@pytest.mark.parametrize("what, sign", [("erased", 1), ("invented", -1)])
def test_a_lesion_of_10_mm_and_60_hu_is_found_at_its_position(kind, what, sign):
    clean, noise = clean_ct(), white(1) if kind == "white" else coloured(1)
    position = (4, 70, 60)
    with_lesion = clean + lesion(position)
    y, restored = (with_lesion + noise, clean) if what == "erased" else (clean + noise, with_lesion)
    test = residual_test(
        y, restored, NoiseEstimate(SIGMA, (0.8, 0.8) if kind == "coloured" else (0, 0)), spacing=SPACING
    )
    assert not test.passed
    first = test.findings[0]
    away = np.linalg.norm(np.subtract(first.position, position) * SPACING)
    assert away <= 4 and sign * first.score > threshold(test.scores)
    assert [f for f in test.findings if np.linalg.norm(np.subtract(f.position, position) * SPACING) > 12] == []
    if first.kind == "structure":
        assert sign * first.change == pytest.approx(30, abs=20)  # against its surroundings, in HU
    assert "1 place(s) with structure" in test.reasons()[-1]


def test_the_change_of_a_finding_is_in_the_scans_units_also_in_a_thin_stack():
    erased = np.broadcast_to(lesion(diameter=16.0)[4], (3, *SHAPE[1:]))
    clean = np.zeros(erased.shape, np.float32)
    noise = white(0, clean.shape)
    test = residual_test(erased + noise, clean, NoiseEstimate(SIGMA, (0, 0)), spacing=(1.0, 0.7, 0.7))
    found = test.findings[0]
    narrow, wide = (60 * (1 - np.exp(-(8.0**2) / (2 * w * w))) for w in (found.size / 2.355, 2 * found.size / 2.355))
    assert found.change == pytest.approx(narrow - wide, abs=3)  # Gaussian means of a disc of 16 mm


def test_contrast_that_one_structure_loses_is_measured_there():
    clean = np.zeros(SHAPE, np.float32)
    bright = [lesion((4, row, column), 300.0, 14.0) for row, column in ((40, 40), (90, 90))]
    clean += sum(bright)
    restored = clean - 0.3 * bright[1]
    test = residual_test(clean + white(2), restored, NoiseEstimate(SIGMA, (0, 0)), spacing=SPACING)
    (lost,) = [f for f in test.findings if f.kind == "contrast"]
    assert np.linalg.norm(np.subtract(lost.position, (4, 90, 90)) * SPACING) < 6
    assert test.contrast == lost.score > 5 and lost.change == pytest.approx(0.6, abs=0.15)


def test_blurred_edges_are_named():
    clean = clean_ct()
    blurred = gaussian_filter(clean, (0, 1, 1))
    test = residual_test(clean + white(0), blurred, NoiseEstimate(SIGMA, (0, 0)), spacing=SPACING)
    reasons = " ".join(test.reasons())
    assert all(part in reasons for part in ("larger at edges", "neighbours along the next", "times the noise level"))
    losses = [f for f in test.findings if f.kind == "contrast"]
    assert losses and all(f.change > 0 for f in losses)


def test_units_and_order_of_slices_change_no_score():
    clean, noise = clean_ct(), white(1)
    y = clean + noise + lesion()
    test = residual_test(y, clean, NoiseEstimate(SIGMA, (0, 0)), spacing=SPACING)
    scaled = residual_test(10 * y + 500, 10 * clean + 500, NoiseEstimate(10 * SIGMA, (0, 0)), spacing=SPACING)
    assert scaled.level == pytest.approx(test.level, rel=1e-4)
    assert scaled.structure == pytest.approx(test.structure, abs=0.01)
    assert scaled.findings[0].change == pytest.approx(10 * test.findings[0].change, rel=1e-3)
    turned = residual_test(y[::-1], clean[::-1], NoiseEstimate(SIGMA, (0, 0)), spacing=SPACING)
    assert turned.structure == pytest.approx(test.structure, abs=1e-3)
    assert turned.findings[0].position == (SHAPE[0] - 1 - test.findings[0].position[0], *test.findings[0].position[1:])


def test_noise_that_varies_is_compared_with_its_own_level():
    clean = clean_ct()
    by_slice = np.linspace(15, 45, SHAPE[0])
    ramp = np.linspace(0.5, 1.5, SHAPE[2], dtype=np.float32)[None, :] * np.ones(SHAPE[1:], np.float32)
    noise = white(4) / SIGMA * by_slice[:, None, None] * ramp
    estimate = NoiseEstimate(SIGMA, (0, 0), map=SIGMA * ramp, by_slice=by_slice)
    test = residual_test(clean + noise.astype(np.float32), clean, estimate, spacing=SPACING)
    assert test.passed and test.level == pytest.approx(1, abs=0.02)


def test_noise_of_a_magnitude_lifts_dark_tissue_and_is_no_finding():
    clean = np.full(SHAPE, 500.0, np.float32)
    clean[2:6, 40:80, 40:80] = 20.0
    y = np.hypot(clean + white(5), white(6))
    as_magnitude, as_gaussian = (
        residual_test(y, clean, NoiseEstimate(SIGMA, (0, 0), magnitude=m), spacing=SPACING, body=np.ones(SHAPE, bool))
        for m in (True, False)
    )
    assert as_magnitude.passed and as_magnitude.bias == pytest.approx(0, abs=0.5)
    assert as_gaussian.findings


def test_air_and_its_bias_are_not_looked_at():
    clean = clean_ct()
    y = clean + white(0)
    y[clean < -900] += 100
    test = residual_test(y, clean, NoiseEstimate(SIGMA, (0, 0)), spacing=SPACING)
    assert test.passed


def test_one_image_is_a_scan_of_one_slice():
    noise, image, sigma = white(0, (64, 64)), np.zeros((64, 64), np.float32), NoiseEstimate(SIGMA, (0, 0))
    assert residual_test(noise, image, sigma) == residual_test(noise[None], image[None], sigma)


def test_what_cannot_be_compared_is_named():
    noise, image = NoiseEstimate(SIGMA, (0, 0)), np.zeros((4, 8, 8), np.float32)
    with pytest.raises(UserError, match=r"restored: has shape \(8, 8\), expected \(4, 8, 8\)"):
        residual_test(image, image[0], noise)
    with pytest.raises(UserError, match="not finite"):
        residual_test(image, image + np.nan, noise)
    with pytest.raises(UserError, match="noise level: found 0"):
        residual_test(image, image, NoiseEstimate(0.0, (0, 0)))


def test_the_slices_of_a_long_scan_may_come_in_any_order_and_lie_in_files(tmp_path, monkeypatch):
    clean, noise = clean_ct(), NoiseEstimate(SIGMA, (0, 0))
    y = clean + white(1) + lesion()
    whole = residual_test(y, clean, noise, spacing=SPACING, body=clean > -500)
    monkeypatch.setattr("cdm4mi.io.arrays.SMALL", 0)
    monkeypatch.setattr("cdm4mi.trust.structure.AT_A_TIME", 3 * 64 * 64)
    with arrays_in(tmp_path):
        sums = ResidualSums(SHAPE, noise, SPACING)
        for k in (3, 0, 7, 1, 2, 6, 5, 4):
            sums.add(k, y[k], clean[k], clean[k] > -500)
        in_parts = sums.test()
    assert in_parts.findings and [f.position for f in in_parts.findings] == [f.position for f in whole.findings]
    for name in ("level", "bias", "edges", "structure", "contrast"):
        assert getattr(in_parts, name) == pytest.approx(getattr(whole, name), rel=0.02)
