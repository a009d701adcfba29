"""The estimates keep what they promise: known answers, and coverage by simulation."""

import math

import numpy as np
import pytest
import scipy.stats

from zbench.stats.estimate import median, median_interval, quantile, relative_half_width


def test_median_is_the_middle_or_the_mean_of_the_middle_two():
    assert median([3.0, 1.0, 2.0]) == 2.0
    assert median([4.0, 1.0, 2.0, 3.0]) == 2.5
    assert median([7.0]) == 7.0


@pytest.mark.parametrize("q", [0.0, 0.1, 0.5, 0.9, 0.99, 1.0])
@pytest.mark.parametrize("n", [1, 2, 7, 16])
def test_quantile_agrees_with_numpy(q, n):
    samples = np.random.default_rng(n).normal(size=n).tolist()
    assert quantile(samples, q) == pytest.approx(float(np.quantile(samples, q)))


@pytest.mark.parametrize("function", [median, median_interval, relative_half_width])
@pytest.mark.parametrize("samples", [[], [1.0, math.nan]])
def test_no_samples_and_nan_are_refused(function, samples):
    with pytest.raises(ValueError, match="sample"):
        function(samples)


@pytest.mark.parametrize("q", [-0.1, 1.1, math.nan])
def test_a_quantile_outside_0_to_1_is_refused(q):
    with pytest.raises(ValueError, match="must be within"):
        quantile([1.0], q)


def test_below_six_samples_there_is_no_95_percent_interval():
    # P(min <= median <= max) of n samples is 1 - 2/2^n: 0.9375 of 5, 0.969 of 6.
    assert median_interval([1.0, 2.0, 3.0, 4.0, 5.0]) is None
    assert median_interval([6.0, 2.0, 3.0, 4.0, 5.0, 1.0]) == (1.0, 6.0)
    assert median_interval([1.0, 2.0, 3.0, 4.0, 5.0], confidence=0.9) == (1.0, 5.0)


# Ranks of the 95 % interval as tabulated by Le Boudec 2010, appendix A, and recomputed by scipy below.
@pytest.mark.parametrize(("n", "low", "high"), [(8, 1, 8), (9, 2, 8), (12, 3, 10), (16, 4, 13), (30, 10, 21)])
def test_the_ranks_are_the_tabulated_ones(n, low, high):
    assert median_interval(list(range(1, n + 1))) == (low, high)


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
@pytest.mark.parametrize("n", [6, 7, 10, 15, 31, 64, 200, 3000])
def test_the_interval_is_the_narrowest_symmetric_one_that_keeps_the_promise(n, confidence):
    interval = median_interval(list(range(1, n + 1)), confidence)
    if interval is None:
        assert 1 - 2 * scipy.stats.binom.cdf(0, n, 0.5) < confidence
        return
    rank = int(interval[0])
    assert interval[1] == n + 1 - rank
    assert 1 - 2 * scipy.stats.binom.cdf(rank - 1, n, 0.5) >= confidence
    one_narrower = 1 - 2 * scipy.stats.binom.cdf(rank, n, 0.5)
    assert one_narrower < confidence or rank == n // 2


@pytest.mark.parametrize("n", [6, 8, 11, 16, 40])
@pytest.mark.parametrize("distribution", ["lognormal", "exponential", "bimodal"])
def test_the_interval_covers_the_median_at_least_as_often_as_it_says(n, distribution):
    # 4000 draws: the observed rate has a standard error of at most 0.35 %, hence 3 of them of slack.
    rng = np.random.default_rng(20_240)
    draws = {
        "lognormal": (rng.lognormal(0.0, 0.5, (4000, n)), 1.0),
        "exponential": (rng.exponential(1.0, (4000, n)), math.log(2)),
        # Two modes around 1 and 2, the first with probability 0.6: its quantile 5/6 is the median.
        "bimodal": (
            np.where(rng.random((4000, n)) < 0.6, 1.0, 2.0) + rng.uniform(-0.3, 0.3, (4000, n)),
            0.7 + 0.6 * 5 / 6,
        ),
    }
    samples, true_median = draws[distribution]
    intervals = [median_interval(row) for row in samples.tolist()]
    covered = sum(low <= true_median <= high for low, high in intervals)
    assert covered / 4000 >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / 4000)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 1.5, math.nan])
def test_a_confidence_outside_0_to_1_is_refused(confidence):
    with pytest.raises(ValueError, match="confidence"):
        median_interval([1.0] * 10, confidence)


def test_relative_half_width_is_the_interval_over_the_median():
    assert relative_half_width([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]) == pytest.approx(2.5 / 3.5)
    assert relative_half_width([1.0, 2.0]) is None
    assert relative_half_width([2.0] * 8) == 0.0
    assert relative_half_width([0.0] * 8) is None
