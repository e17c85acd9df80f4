"""Intervals cover what they say and CRPS equals its closed form; the usual wrong versions are told apart."""

import numpy as np
import pytest
from scipy import stats

from cdm4mi.errors import UserError
from cdm4mi.measure.probabilistic import (
    coverage,
    crps_gaussian,
    crps_samples,
    gaussian_interval,
    interval_width,
    sample_interval,
)

LEVELS = (0.5, 0.9, 0.95)


def test_coverage_of_a_known_gaussian_is_exact():
    """The truth takes each of 100 000 equally likely values of the law once."""
    mean, sd, count = 40.0, 7.0, 100_000
    truth = stats.norm(mean, sd).ppf((np.arange(count) + 0.5) / count)
    for level in LEVELS:
        low, high = gaussian_interval(np.full(count, mean), np.full(count, sd), level)
        assert coverage(low, high, truth) == pytest.approx(level, abs=2 / count)
        assert interval_width(low, high) == pytest.approx(2 * sd * stats.norm.ppf((1 + level) / 2))
        # wrong: the quantile of one side for the interval of two
        half = stats.norm.ppf(level) * sd
        assert abs(coverage(mean - half, mean + half, truth) - level) > 0.04
        # an overconfident map shows
        narrow = gaussian_interval(np.full(count, mean), np.full(count, sd / 2), level)
        assert coverage(*narrow, truth) < level - 0.1


@pytest.mark.parametrize("law", [stats.norm(3, 2), stats.expon(), stats.uniform()])
def test_intervals_of_few_samples_cover_what_they_say(law):
    rng = np.random.default_rng(0)
    for count, level in ((9, 0.8), (19, 0.9), (4, 0.6), (10, 0.5)):
        draws = law.rvs((count + 1, 40_000), random_state=rng)
        samples, truth = draws[:-1], draws[-1]
        assert coverage(*sample_interval(samples, level), truth) == pytest.approx(level, abs=0.012)
    # wrong: numpy's usual quantiles of 9 samples, nine tenths of the trust that is due
    usual = np.quantile(draws[:9], (0.1, 0.9), axis=0)
    assert coverage(*usual, draws[9]) < 0.72


def test_crps_of_samples_is_the_closed_form_and_the_definition():
    rng = np.random.default_rng(1)
    samples = 2 + 3 * rng.standard_normal((20_000, 6))
    truth = np.array([2.0, 0.0, 5.0, -4.0, 2.5, 12.0])
    np.testing.assert_allclose(crps_samples(samples, truth), crps_gaussian(2.0, 3.0, truth), rtol=0.02)
    # the definition of Gneiting and Raftery, integrated: of (F(u) - [u >= y])^2 over u
    u = np.linspace(-40, 40, 400_001)
    for y in truth[:3]:
        integral = np.trapezoid((stats.norm(2, 3).cdf(u) - (u >= y)) ** 2, u)
        assert crps_gaussian(2.0, 3.0, y) == pytest.approx(integral, rel=1e-3)
    few = rng.standard_normal((5, 4, 3))
    y = rng.standard_normal((4, 3))
    pairs = np.abs(few[:, None] - few[None])
    spread = pairs.mean(axis=(0, 1))
    np.testing.assert_allclose(crps_samples(few, y, fair=False), np.abs(few - y).mean(0) - spread / 2)
    np.testing.assert_allclose(crps_samples(few, y), np.abs(few - y).mean(0) - spread / 2 * 5 / 4)
    np.testing.assert_allclose(crps_samples(few[:1], y), np.abs(few[0] - y))


def test_the_fair_score_does_not_depend_on_the_number_of_samples():
    rng = np.random.default_rng(2)
    draws = rng.standard_normal((3, 200_000))
    truth = rng.standard_normal(200_000)
    expected = 1 / np.sqrt(np.pi)  # E of the CRPS of N(0, 1) for truth from N(0, 1)
    assert crps_samples(draws, truth).mean() == pytest.approx(expected, rel=0.01)
    assert crps_samples(draws, truth, fair=False).mean() > 1.2 * expected
    # it rewards the right spread: the mean of the samples three times is worse
    collapsed = np.repeat(draws.mean(axis=0, keepdims=True), 3, axis=0)
    assert crps_samples(collapsed, truth).mean() > 1.1 * expected


def test_mistakes_are_named():
    samples = np.zeros((4, 8))
    with pytest.raises(UserError, match=r"0\.9: found 4 samples, expected at least 19"):
        sample_interval(samples, 0.9)
    with pytest.raises(UserError, match="level is 1"):
        gaussian_interval(samples, samples, 1.0)
    with pytest.raises(UserError, match=r"\(4, 8\), expected \(K, 7\)"):
        crps_samples(samples, np.zeros(7))
