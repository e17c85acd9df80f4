"""Bounds that hold for whole scans: the share of new scans that they cover, by region too, and the scans they need."""

from __future__ import annotations

import numpy as np
import pytest
from calibrated_model import with_calibration

from cdm4mi.config.schema import SamplingConfig
from cdm4mi.data.phantoms import phantom
from cdm4mi.inference.calibration import calibrated, fit_calibration
from cdm4mi.inference.conformal import LEAST_VOXELS, regions_of, scan_bound, scan_score, scans_needed
from cdm4mi.inference.restorer import Restorer
from cdm4mi.inference.settings import changed
from cdm4mi.io import Volume
from cdm4mi.models.about import Calibration, ScanBound
from cdm4mi.models.facts import facts_of, scan_bound_lines
from cdm4mi.window import IntensityWindow

SAMPLING = SamplingConfig(estimate="mean-of-k", samples=8, steps=10)


def drawn_scans(rng, scans, voxels=400):
    """|error| / standard deviation of scans (scans, voxels): each scan's deviation is wrong by another factor."""
    factors = rng.lognormal(0, 0.3, (scans, 1))
    return np.abs(factors * rng.standard_normal((scans, voxels)))


@pytest.mark.parametrize(("scans", "alpha"), [(9, 0.1), (14, 0.2)])
def test_the_share_of_new_scans_is_what_was_asked_for(scans, alpha):
    """Over many calibrations: at least 1 - alpha, and at most 1 / (n + 1) more (Vovk et al. 2005)."""
    rng = np.random.default_rng(0)
    held = []
    for _ in range(600):
        scores = [scan_score(scan, 0.9) for scan in drawn_scans(rng, scans)]
        new = drawn_scans(rng, 2)
        held += list((new <= scan_bound(scores, alpha)).mean(1) >= 0.9)
    chance = 3 * np.sqrt(alpha * (1 - alpha) / 600)
    assert 1 - alpha - chance < np.mean(held) < 1 - alpha + 1 / (scans + 1) + chance


def test_an_interval_for_the_voxels_of_all_scans_fails_many_a_scan():
    rng = np.random.default_rng(0)
    scans, new = drawn_scans(rng, 200), drawn_scans(rng, 200)
    pooled = np.quantile(scans, 0.9)
    assert (new <= pooled).mean() == pytest.approx(0.9, abs=0.02)
    assert ((new <= pooled).mean(1) >= 0.9).mean() < 0.75


def test_a_region_bound_covers_every_region_at_once():
    """Three regions whose deviations are too small by factors of their own, in each scan another."""
    rng = np.random.default_rng(0)

    def drawn():
        return drawn_scans(rng, 3, LEAST_VOXELS) * [[1.0], [1.2], [0.8]]

    all_regions, alone = [], []
    for _ in range(120):
        scans = [drawn() for _ in range(19)]
        new = drawn()
        bound = scan_bound([scan_score(scan, 0.9, scan) for scan in scans], 0.1)
        all_regions.append(((new <= bound).mean(1) >= 0.9).all())
        bound = scan_bound([scan_score(scan, 0.9) for scan in scans], 0.1)
        alone.append(((new <= bound).mean(1) >= 0.9).all())
    assert 0.82 < np.mean(all_regions) < 0.99
    assert np.mean(alone) < 0.75


def test_a_small_region_is_no_part_of_the_score():
    scan = np.linspace(0, 1, 1001)
    assert scan_score(scan, 0.9) == pytest.approx(0.9)
    assert scan_score(scan, 0.9, [np.full(LEAST_VOXELS - 1, 5.0)]) == pytest.approx(0.9)
    assert scan_score(scan, 0.9, [np.full(LEAST_VOXELS, 5.0)]) == 5.0


@pytest.mark.parametrize(("alpha", "needed"), [(0.1, 9), (0.05, 19), (0.2, 4), (0.3, 3), (0.01, 99)])
def test_too_few_scans_have_no_bound(alpha, needed):
    assert scans_needed(alpha) == needed
    assert scan_bound(range(needed - 1), alpha) is None
    assert scan_bound(range(needed), alpha) == needed - 1  # the greatest of all


def test_regions_of_a_ct_slice():
    window = IntensityWindow(-1000, 1000, "CT")
    hu = np.full((64, 64), 40.0)
    hu[:, 32:], hu[:8] = 400.0, -1000.0
    regions = regions_of(window.normalised(hu), hu > -900, window)
    assert regions["soft"][20, 10] and regions["bone"][20, 50] and regions["air"][2, 10]
    assert regions["near edges"][30, 31] and regions["near edges"][8, 10] and not regions["near edges"][30, 10]
    np.testing.assert_array_equal(regions["flat areas"], ~regions["near edges"])


def scans_of(rng, scans):
    """Error and spread of two images (24, 24) of each of many scans, whose samples are too sure by other factors."""
    factors = rng.lognormal(0.5, 0.4, (scans, 1, 1)).repeat(2, 0)
    samples = 0.1 * rng.standard_normal((8, 2 * scans, 24, 24))
    return 0.1 * factors * rng.standard_normal((2 * scans, 24, 24)), samples.std(0, ddof=1)


def fitted(rng, scans, **options):
    error, spread = scans_of(rng, scans)
    groups = [f"patient {k // 2}" for k in range(2 * scans)]
    top = np.zeros((24, 24), bool)
    top[:14] = True
    return fit_calibration(
        error,
        spread,
        [0.2] * len(error),
        np.ones(error.shape, bool),
        groups,
        ["white"] * len(error),
        SAMPLING,
        modalities=["MR"] * len(error),
        regions=[{"top": top, "bottom": ~top, "corner": np.zeros((24, 24), bool)}] * len(error),
        **options,
    )


def test_a_calibration_holds_the_bound_of_its_scans():
    rng = np.random.default_rng(0)
    calibration = fitted(rng, 10)
    bound = calibration.scan_bounds["MR"]
    assert bound.scans == 10 and bound.kinds == ["white"] and bound.regions == ["bottom", "top"]
    assert 1.645 < bound.half_width <= bound.region_half_width
    error, spread = scans_of(rng, 200)
    inside = np.abs(error) <= bound.half_width * calibrated(calibration, spread, 0.2, "white")
    assert (inside.reshape(200, -1).mean(1) >= 0.9).mean() > 0.85
    assert Calibration.model_validate_json(calibration.model_dump_json()) == calibration
    (line,) = scan_bound_lines(calibration)
    assert line.startswith("MR: 90 % of scans have 90 % of their voxels") and "10 scans with white" in line


def test_few_scans_or_those_of_the_training_have_none():
    rng = np.random.default_rng(0)
    calibration = fitted(rng, 5)
    bound = calibration.scan_bounds["MR"]
    assert bound.half_width is None and bound.region_half_width is None
    assert scan_bound_lines(calibration) == ["MR: 5 scans, a bound for 90 % of scans needs 9"]
    assert fitted(rng, 3, trained_on={"patient 0", "patient 1"}).scan_bounds["MR"].scans == 1


@pytest.mark.parametrize(
    ("modality", "noise", "expected"),
    [
        ("CT", "white noise in CT images", (2.0, 2.5, 9, 0.9)),
        ("CT", "correlated noise in CT images", (None, None, None, None)),
        ("MR", "white noise in CT images", (None, None, None, None)),
    ],
)
def test_a_record_states_the_bound_of_the_modality_and_the_noise(tiny, modality, noise, expected):
    sampling = changed(tiny.config.sampling, estimate="mean-of-k", steps=2, samples=2)
    bound = ScanBound(scans=9, scans_needed=9, alpha=0.1, half_width=2.0, region_half_width=2.5, kinds=[noise])
    model = with_calibration(tiny, sampling, scan_bounds={modality: bound})
    ct = phantom("CT", 50, 64)[None] + 150 * np.random.default_rng(0).standard_normal((1, 64, 64))
    volume = Volume(ct.astype(np.float32), np.diag([0.7, 0.7, 3.0, 1.0]), "CT")
    stated = Restorer(model, sampling).restore(volume, noise=150).record.uncertainty
    widths = (stated.scan_half_width_in_standard_deviations, stated.region_half_width_in_standard_deviations)
    assert stated.calibrated and (*widths, stated.scans, stated.scan_share) == expected
    (line,) = (value for name, value in facts_of(model) if name == "uncertainty")
    assert line.startswith(f"{modality}: 90 % of scans have 90 % of their voxels within 2 calibrated")
