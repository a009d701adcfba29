"""Spread and effect agree with scipy and are not moved by a wild round; so do slope and trend."""

import math

import numpy as np
import pytest
import scipy.stats

from zbench.stats import drift, median_absolute_deviation, relative_spread


@pytest.mark.parametrize("n", [1, 2, 7, 30])
def test_the_median_absolute_deviation_is_scipys(n):
    samples = np.random.default_rng(n).lognormal(size=n).tolist()
    theirs = scipy.stats.median_abs_deviation(samples, scale="normal")
    assert median_absolute_deviation(samples) == pytest.approx(theirs)


def test_a_round_of_50_times_the_median_hardly_moves_the_spread():
    samples = np.random.default_rng(4).normal(1.0, 0.02, 21).tolist()
    calm = relative_spread(samples)
    assert relative_spread([*samples[1:], 50.0]) == pytest.approx(calm, rel=0.3)
    assert np.std([*samples[1:], 50.0]) > 10


def test_a_relative_spread_needs_something_to_relate_to():
    assert relative_spread([2.0, 2.0]) == 0.0
    assert relative_spread([-1.0, 0.0, 1.0]) is None
    assert relative_spread([-1.0, -2.0, -3.0]) > 0


@pytest.mark.parametrize("n", [2, 3, 6, 12, 33, 80])
@pytest.mark.parametrize("ties", [False, True])
def test_slope_and_trend_are_scipys(n, ties):
    series = np.random.default_rng(n).normal(size=n) + 0.05 * np.arange(n)
    if ties:
        series = np.round(series)
    ours = drift(series.tolist())
    counted_out = len(set(series)) == n and n <= 50
    theirs = scipy.stats.kendalltau(range(n), series, method="exact" if counted_out else "asymptotic")
    if len(set(series)) == 1:
        assert ours == type(ours)(0.0, 0.0, 1.0)
        return
    assert ours.per_round == pytest.approx(scipy.stats.theilslopes(series).slope)
    assert ours.tau == pytest.approx(theirs.statistic)
    assert ours.p_value == pytest.approx(theirs.pvalue)


def test_a_constant_series_does_not_drift():
    assert (drift([2.0] * 9).per_round, drift([2.0] * 9).p_value) == (0.0, 1.0)


@pytest.mark.parametrize("bad", [[], [1.0, math.nan, 2.0], [1.0, 2.0, math.inf]])
def test_what_is_not_finite_is_refused(bad):
    for function in (median_absolute_deviation, relative_spread, drift):
        with pytest.raises(ValueError):
            function(bad)
