"""Intervals cover, Holm follows its hand example, and patients, not slices, are what is resampled and tested."""

import numpy as np
import pytest
from scipy import stats

from cdm4mi.errors import UserError
from cdm4mi.evaluation.aggregate import Row, mean_scores, patient_scores, study_means
from cdm4mi.evaluation.statistics import bootstrap_interval, holm, mean_over_patients, paired_tests, wilcoxon


def test_the_interval_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    inside = [
        low <= 5 <= high
        for low, high in (bootstrap_interval(rng.exponential(5, 40), resamples=500, seed=i) for i in range(400))
    ]
    assert np.mean(inside) == pytest.approx(0.93, abs=0.04)  # skewed, n = 40: a little under 0.95
    values = rng.normal(30, 2, 25)
    low, high = bootstrap_interval(values)
    half = stats.norm.ppf(0.975) * values.std() / 5
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.05)
    assert bootstrap_interval(values) == (low, high)  # the same seed, the same interval
    assert bootstrap_interval(values, seed=1) != (low, high)
    assert np.isnan(bootstrap_interval([31.0])).all()
    assert np.isnan(bootstrap_interval([31.0, float("inf")])).all()


def test_patients_are_resampled_not_slices():
    """Slices of a patient are alike: an interval over slices is too narrow by the root of their number."""
    rng = np.random.default_rng(1)
    levels = rng.normal(30, 3, 8)
    rows = []
    for patient, level in enumerate(levels):
        slices = level + 0.1 * rng.standard_normal(50)
        rows += [Row(f"p{patient}", "s", k, "m", "image", {"psnr": v}) for k, v in enumerate(slices)]
        rows.append(Row(f"p{patient}", "s", None, "m", "image", {"psnr": slices.mean()}))
    mean = study_means(patient_scores(rows))["m", "image"]["psnr"]
    assert mean.patients == 8
    over_slices = bootstrap_interval([row.scores["psnr"] for row in rows if row.slice is not None])
    assert mean.high - mean.low > 5 * (over_slices[1] - over_slices[0])
    assert mean.low < 30 < mean.high


def test_every_patient_counts_once_however_many_scans_and_slices():
    def scan(patient, name, value):
        return Row(patient, name, None, "m", "image", {"psnr": value})

    rows = [scan("a", f"s{i}", 30.0) for i in range(9)] + [scan("b", "s", 20.0)]
    assert study_means(patient_scores(rows))["m", "image"]["psnr"].value == 25
    assert mean_scores([{"x": 1.0, "y": float("nan")}, {"x": 3.0, "y": 5.0}]) == {"x": 2, "y": 5}
    assert np.isnan(mean_scores([{"y": float("nan")}])["y"])
    assert mean_over_patients([1.0, float("nan"), 3.0]).patients == 2
    with pytest.raises(UserError, match="at least one"):
        patient_scores([])


def test_holm_by_hand():
    """Four tests: .01 x 4, .02 x 3, .03 x 2 and .04 x 1 raised to .06 by the one before."""
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []
    p = [0.012, 0.013, 0.02, 0.3]
    assert holm(p) == pytest.approx([0.048, 0.048, 0.048, 0.3])
    # Bonferroni gives away what Holm finds; no correction finds what chance makes
    assert sum(x <= 0.05 for x in holm(p)) == 3
    assert sum(4 * x <= 0.05 for x in p) == 1


def test_holm_keeps_false_findings_rare():
    rng = np.random.default_rng(2)
    p = rng.uniform(size=(4000, 10))
    corrected = np.mean([min(holm(row)) <= 0.05 for row in p])
    assert corrected == pytest.approx(0.05, abs=0.012)
    assert np.mean(p.min(axis=1) <= 0.05) > 0.35


def test_paired_tests_see_a_small_steady_gain_and_no_gain_where_none_is():
    rng = np.random.default_rng(3)
    patients = [f"p{i}" for i in range(10)]
    level = rng.normal(30, 4, 10)  # patients differ far more than methods do
    methods = {"ours": level + 0.3, "theirs": level + 0.02 * rng.standard_normal(10), "same": level + 0.3}
    scores = {
        (name, "image"): {p: {"psnr": v} for p, v in zip(patients, values, strict=True)}
        for name, values in methods.items()
    }
    found = {test.other: test for test in paired_tests(scores, "ours", ["psnr", "absent"])}
    assert set(found) == {"theirs", "same"}
    assert found["theirs"].p == pytest.approx(2 / 2**10)  # all ten of one sign
    assert found["theirs"].adjusted == pytest.approx(2 * 2 / 2**10)
    assert found["theirs"].difference == pytest.approx(0.3, abs=0.03)
    assert found["same"].p == 1
    # wrong: unpaired, the patients' spread hides it
    assert stats.mannwhitneyu(methods["ours"], methods["theirs"]).pvalue > 0.5
    few = {key: dict(list(by.items())[:5]) for key, by in scores.items()}
    assert paired_tests(few, "ours", ["psnr"]) == []
    assert np.isnan(wilcoxon([1.0, float("inf")], [0.0, 1.0]))
