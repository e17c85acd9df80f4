"""Scores under a protocol equal the figures computed by hand; wrong ways to range, average and mask are told apart."""

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from cdm4mi.data.phantoms import phantom
from cdm4mi.errors import UserError
from cdm4mi.evaluation.aggregate import patient_scores
from cdm4mi.evaluation.metrics import Uncertainty
from cdm4mi.evaluation.protocol import load_protocol
from cdm4mi.evaluation.resolve import resolve
from cdm4mi.evaluation.scores import score_stack
from cdm4mi.intensity import window_for
from cdm4mi.io import Volume
from cdm4mi.measure.metrics import body_mask, ssim


@pytest.fixture(scope="module")
def ct():
    """Eight CT slices as (restored, reference) with noise of 40 HU."""
    ref = np.stack([phantom("CT", seed, 64) for seed in range(8)]).astype(np.float32)
    noise = 40 * np.random.default_rng(0).standard_normal(ref.shape)
    return (ref + noise).astype(np.float32), ref


def scored(name, x, ref, modality):
    volume = Volume(ref, np.eye(4), modality)
    return score_stack("p", "s", {"m": x}, ref, resolve(load_protocol(name), volume))


def whole(rows, region="image"):
    return next(row.scores for row in rows if row.slice is None and row.region == region)


def test_ct_1000_is_scikit_image_and_numpy_on_the_fixed_window(ct):
    x, ref = ct
    rows = scored("ct-1000", x, ref, "CT")
    a, b = (v.clip(-1000, 1000).astype(float) for v in ct)
    for row in rows:
        if row.slice is not None and row.region == "image":
            p, r = a[row.slice], b[row.slice]
            assert row.scores["psnr"] == pytest.approx(peak_signal_noise_ratio(r, p, data_range=2000))
            expected = structural_similarity(r + 1000, p + 1000, data_range=2000)
            assert row.scores["ssim_uniform"] == pytest.approx(expected)
            assert row.scores["mae"] == pytest.approx(np.abs(p - r).mean())
            assert row.scores["rmse"] == pytest.approx(np.sqrt(((p - r) ** 2).mean()))
            assert row.scores["bias"] == pytest.approx((p - r).mean())
    assert {row.region for row in rows} == {"image", "body"}
    bodies = body_mask(ref, "CT")
    inside = [np.abs(p - r)[m].mean() for p, r, m in zip(a, b, bodies, strict=True)]
    assert whole(rows, "body")["mae"] == pytest.approx(np.mean(inside))
    assert whole(rows, "body")["psnr"] < whole(rows)["psnr"]  # clipped air takes half of its noise away
    # wrong: each slice by its own max - min, or each image scaled by itself
    own = np.mean([peak_signal_noise_ratio(r, p, data_range=np.ptp(r)) for p, r in zip(a, b, strict=True)])
    assert abs(own - whole(rows)["psnr"]) > 0.3
    scaled = [(v - v.min()) / np.ptp(v) for v in (x[0], ref[0])]
    assert abs(peak_signal_noise_ratio(scaled[1], scaled[0], data_range=1.0) - rows[0].scores["psnr"]) > 0.5


def test_ssim_of_ct_is_on_values_that_start_at_zero(ct):
    """On HU themselves the luminance term breaks down around water, where its values are next to 0."""
    _, ref = ct
    water = np.zeros_like(ref)
    shifted = water + 10.0  # half a percent of the window, nothing else
    fixed = whole(scored("ct-1000", shifted, water, "CT"))["ssim_gaussian"]
    assert fixed > 0.999
    assert ssim(shifted[0], water[0], 2000) < 0.9


def test_mr_is_judged_on_the_units_of_training():
    """White noise of variance 0.05 on [-1, 1] reads 10 log10(4 / 0.05) dB, whatever the scanner's units are."""
    rng = np.random.default_rng(1)
    for gain in (1.0, 37.0):
        ref = gain * np.stack([phantom("MR", seed, 96) for seed in range(3)]).astype(np.float32)
        volume = Volume(ref, np.eye(4), "MR")
        norm = window_for(volume)
        noisy = norm.physical(norm.normalised(ref) + np.sqrt(0.05) * rng.standard_normal(ref.shape))
        resolved = resolve(load_protocol("cdm4mi-mr-gaussian"), volume)
        assert (resolved.low, resolved.high) == (norm.low, norm.high)
        middle = np.full_like(ref, (norm.low + norm.high) / 2)
        body = whole(score_stack("p", "s", {"m": noisy}, ref, resolved), "body")
        assert 10 * np.log10(4 / 0.05) - 0.1 < body["psnr"] < 10 * np.log10(4 / 0.05) + 1.5  # clipping lowers noise
        # far from the ends nothing is clipped
        rows = score_stack("p", "s", {"m": middle + noisy - ref}, middle, resolved, bodies=np.ones(ref.shape, bool))
        assert whole(rows)["psnr"] == pytest.approx(10 * np.log10(4 / 0.05), abs=0.1)
        assert whole(rows)["rmse"] == pytest.approx(np.sqrt(0.05), rel=0.01)
        assert np.abs(resolved.windowed(ref)).max() <= 1


def test_the_ldct_windows_are_those_of_the_benchmark(ct):
    x, ref = ct
    scores = whole(scored("ldct-abdomen", x, ref, "CT"))
    a, b = ((v.astype(float).clip(-150, 250) + 150) / 400 for v in ct)
    pairs = list(zip(a, b, strict=True))
    assert scores["psnr"] == pytest.approx(np.mean([-10 * np.log10(((p - r) ** 2).mean()) for p, r in pairs]))
    assert scores["ssim_uniform"] == pytest.approx(
        np.mean([structural_similarity(r, p, data_range=1.0) for p, r in pairs])
    )
    a, b = (v.astype(float).clip(-1024, 1900) for v in ct)
    assert scores["rmse"] == pytest.approx(np.mean([np.sqrt(((p - r) ** 2).mean()) for p, r in zip(a, b, strict=True)]))


def test_corediff_is_as_its_code_computes_it(ct):
    x, ref = ct
    rows = scored("corediff", x, ref, "CT")
    a, b = ((v.astype(float).clip(-1000, 1000) + 1000) / 2000 * 255 for v in ct)
    expected = [20 * np.log10(np.ptp(r)) - 10 * np.log10(((p - r) ** 2).mean()) for p, r in zip(a, b, strict=True)]
    assert whole(rows)["psnr"] == pytest.approx(np.mean(expected[1:-1]))
    hu = [np.sqrt((((p - r) * 2000 / 255) ** 2).mean()) for p, r in zip(a, b, strict=True)]
    assert whole(rows)["rmse"] == pytest.approx(np.mean(hu[1:-1]))
    assert {row.slice for row in rows} == {None, *range(1, 7)}
    assert {row.region for row in rows} == {"image"}


def test_the_original_pools_its_stack():
    rng = np.random.default_rng(2)
    ref = np.stack([phantom("MR", seed, 64) for seed in range(9)]).astype(np.float32)
    sigmas = np.linspace(5, 60, 9)[:, None, None]  # patches of very different error
    x = (ref + sigmas * rng.standard_normal(ref.shape)).astype(np.float32)
    volume = Volume(ref, np.eye(4), "MR")
    resolved = resolve(load_protocol("original"), volume)
    scores = whole(score_stack("p", "s", {"m": x}, ref, resolved))
    a, b = (np.clip(window_for(volume).normalised(v).astype(float), -1, 1) for v in (x, ref))
    assert scores["psnr"] == pytest.approx(peak_signal_noise_ratio(b, a, data_range=2), rel=1e-5)
    theirs = structural_similarity(b[:, None], a[:, None], data_range=2, channel_axis=1)
    assert scores["ssim_uniform_3d"] == pytest.approx(theirs, rel=1e-4)
    assert scores["mae"] == pytest.approx(np.abs(a - b).mean(), rel=1e-4)
    by_image = np.mean([peak_signal_noise_ratio(q, p, data_range=2) for p, q in zip(a, b, strict=True)])
    assert by_image - scores["psnr"] > 2


def test_slices_without_a_patient_do_not_count(ct):
    x, ref = ct
    empty = np.full_like(ref[:1], -1000)
    rows = scored("ct-1000", np.concatenate([empty, x]), np.concatenate([empty, ref]), "CT")
    assert whole(rows)["psnr"] == pytest.approx(whole(scored("ct-1000", x, ref, "CT"))["psnr"])
    assert np.isfinite(whole(rows)["psnr"])  # an equal empty slice would make it infinite
    alone = scored("ct-1000", empty, empty, "CT")
    assert whole(alone)["psnr"] == float("inf")


def test_patients_come_from_scans(ct):
    x, ref = ct
    volume = Volume(ref, np.eye(4), "CT")
    resolved = resolve(load_protocol("ct-1000"), volume)
    rows = [
        row
        for scan, part in (("a", slice(0, 6)), ("b", slice(6, 8)))
        for row in score_stack("p", scan, {"m": x[part]}, ref[part], resolved)
    ]
    scans = [row.scores["psnr"] for row in rows if row.slice is None and row.region == "image"]
    assert patient_scores(rows)["m", "image"]["p"]["psnr"] == pytest.approx(np.mean(scans))


def test_mistakes_name_scan_slice_and_method(ct):
    x, ref = ct
    volume = Volume(ref, np.eye(4), "CT")
    resolved = resolve(load_protocol("ct-1000"), volume)
    with pytest.raises(UserError, match=r"s, m: has shape \(7, 64, 64\)"):
        score_stack("p", "s", {"m": x[1:]}, ref, resolved)
    for value in (np.nan, np.inf):  # clipping to a window would hide an infinity
        broken = x.copy()
        broken[2, 3, 4] = value
        with pytest.raises(UserError, match=r"s, slice 2, m: image has 1 pixels .*not finite"):
            score_stack("p", "s", {"m": broken}, ref, resolved)
    told = {"m": Uncertainty(sd=np.full_like(ref, 40))}
    covered = whole(score_stack("p", "s", {"m": x}, ref, resolved, told))
    assert covered["coverage"] == pytest.approx(0.9, abs=0.01)
    with pytest.raises(UserError, match="at least 7 slices"):
        score_stack("p", "s", {"m": x[:4]}, ref[:4], resolve(load_protocol("original"), volume))
    with pytest.raises(UserError, match="is MR, expected CT"):
        resolve(load_protocol("ct-1000"), Volume(ref, np.eye(4), "MR"))
