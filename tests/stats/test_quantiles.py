"""The intervals between order statistics keep their rate within a point, and agree with scipy where it has the same."""

import math

import numpy as np
import pytest
import scipy.stats

from zbench.stats import median_interval, quantile_interval

RUNS = 40_000


def draws(distribution: str, n: int) -> tuple[np.ndarray, scipy.stats.rv_continuous]:
    """Sorted rows of n samples and the inverse of their distribution function."""
    rng = np.random.default_rng(20_261)
    if distribution == "normal":
        return np.sort(rng.normal(1.0, 0.02, (RUNS, n))), lambda q: scipy.stats.norm.ppf(q, 1.0, 0.02)
    if distribution == "lognormal":
        return np.sort(rng.lognormal(0.0, 0.5, (RUNS, n))), lambda q: scipy.stats.lognorm.ppf(q, 0.5)
    # Two modes far apart, 7 rounds in 10 in the lower one: the median lies within it.
    samples = np.where(rng.random((RUNS, n)) < 0.7, 0.0, 0.5) + rng.normal(1.0, 0.02, (RUNS, n))
    return np.sort(samples), lambda q: scipy.stats.norm.ppf(q / 0.7, 1.0, 0.02)  # of q well below 0.7


@pytest.mark.parametrize("n", [20, 40, 100])
@pytest.mark.parametrize("distribution", ["normal", "lognormal", "bimodal"])
@pytest.mark.parametrize("q", [0.5, 0.25])
def test_the_interval_covers_95_times_in_100_within_a_point(n, distribution, q):
    samples, inverse = draws(distribution, n)
    # The ranks depend on n and q only, so the interval of 1, 2, 3, ... gives them for every row at once.
    low, high = (np.interp(rank, range(1, n + 1), np.arange(n)) for rank in quantile_interval(range(1, n + 1), q))
    truth = inverse(q)
    covered = np.mean((at(samples, low) <= truth) & (truth <= at(samples, high)))
    assert covered == pytest.approx(0.95, abs=0.01)


def at(rows: np.ndarray, place: float) -> np.ndarray:
    below = math.floor(place)
    above = min(below + 1, rows.shape[1] - 1)
    return rows[:, below] + (rows[:, above] - rows[:, below]) * (place - below)


@pytest.mark.parametrize("n", [10, 16, 40])
def test_the_medians_interval_lies_between_the_exact_ones_around_its_level(n):
    samples = np.random.default_rng(n).lognormal(size=n).tolist()
    low, high = quantile_interval(samples)
    wide = median_interval(samples)
    assert wide[0] <= low and high <= wide[1]
    ordered = sorted(samples)
    rank = ordered.index(wide[0]) + 1
    assert low <= ordered[rank] and ordered[n - rank - 1] <= high


def test_another_quantiles_ranks_invert_the_beta_distribution():
    # With n samples the chance that the r-th is below the quantile is scipy's beta distribution at q.
    low, high = quantile_interval(range(1, 51), 0.75)
    assert scipy.stats.beta.cdf(0.75, low, 51 - low) == pytest.approx(0.975)
    assert scipy.stats.beta.cdf(0.75, high, 51 - high) == pytest.approx(0.025)


def test_too_few_samples_have_no_interval():
    assert quantile_interval([1.0] * 5) is None
    assert quantile_interval([1.0] * 6) == (1.0, 1.0)
    assert quantile_interval(range(35), 0.9) is None
    assert quantile_interval(range(36), 0.9) is not None


@pytest.mark.parametrize("samples", [[], [1.0, math.nan] * 5, [1.0, math.inf] * 5])
def test_no_samples_nan_and_infinity_are_refused(samples):
    with pytest.raises(ValueError, match="sample"):
        quantile_interval(samples)


@pytest.mark.parametrize(("q", "level"), [(0.0, 0.95), (1.0, 0.95), (math.nan, 0.95), (0.5, 1.0), (0.5, 0.0)])
def test_a_quantile_or_level_out_of_range_is_refused(q, level):
    with pytest.raises(ValueError, match="must lie between"):
        quantile_interval([1.0] * 10, q, level)
