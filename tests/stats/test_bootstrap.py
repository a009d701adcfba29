"""Resampling whole rows gives scipy's percentile interval, the same each time, and never covers less than it says."""

import math

import numpy as np
import pytest
import scipy.stats

from zbench.stats import median, resampled_interval
from zbench.stats.bootstrap import means_of_medians


def test_the_mean_of_medians_is_that_of_numpy():
    for rows in (5, 6):
        table = np.random.default_rng(rows).normal(size=(3, rows, 4))
        assert means_of_medians(table) == pytest.approx(np.median(table, axis=1).mean(axis=1))


def test_one_group_agrees_with_scipys_percentile_bootstrap():
    samples = np.random.default_rng(1).lognormal(size=60)
    ours = resampled_interval([samples[:, None].tolist()], lambda tables: tables[0].mean(axis=(1, 2)))
    theirs = scipy.stats.bootstrap((samples,), np.mean, method="percentile", n_resamples=20_000, rng=2)
    assert ours == pytest.approx(tuple(theirs.confidence_interval), rel=0.02)


def test_the_same_seed_gives_the_same_interval():
    groups = [[[1.0], [2.0], [4.0]], [[1.5], [2.5], [3.5]]]

    def statistic(tables):
        return means_of_medians(tables[0]) - means_of_medians(tables[1])

    assert resampled_interval(groups, statistic) == resampled_interval(groups, statistic)


def test_rows_stay_together():
    # The two columns of a row cancel; drawn apart they would not.
    rows = [[float(k), -float(k)] for k in range(10)]
    assert resampled_interval([rows], lambda tables: tables[0].mean(axis=(1, 2))) == (0.0, 0.0)


@pytest.mark.parametrize("pairs", [1, 3])
@pytest.mark.parametrize("distribution", ["normal", "lognormal", "bimodal"])
def test_the_ratio_of_medians_is_covered_at_least_95_times_in_100(distribution, pairs, monkeypatch):
    monkeypatch.setattr("zbench.stats.bootstrap.LEAST_RESAMPLES", 500)
    rng = np.random.default_rng(7)

    def rows():
        if distribution == "normal":
            return rng.normal(1.0, 0.02, (12, pairs))
        if distribution == "lognormal":
            return rng.lognormal(0.0, 0.3, (12, pairs))
        return np.where(rng.random((12, pairs)) < 0.7, 1.0, 1.5) + rng.normal(0, 0.02, (12, pairs))

    def ratio(tables):
        return means_of_medians(tables[0]) / means_of_medians(tables[1])

    covered = 0
    for seed in range(400):
        low, high = resampled_interval([rows(), rows()], ratio, seed=seed)
        covered += low <= 1.0 <= high
    assert covered / 400 >= 0.95 - 2 * math.sqrt(0.95 * 0.05 / 400)


def test_what_is_no_table_of_finite_numbers_is_refused():
    for groups, complaint in (
        ([], "no groups"),
        ([[]], "not a table"),
        ([[[1.0], [math.nan]]], "not finite"),
        ([[[1.0], [math.inf]]], "not finite"),
    ):
        with pytest.raises(ValueError, match=complaint):
            resampled_interval(groups, lambda tables: tables[0].mean(axis=(1, 2)))
    with pytest.raises(ValueError, match="level"):
        resampled_interval([[[1.0]]], lambda tables: tables[0].mean(axis=(1, 2)), level=1.0)


def test_the_point_estimate_lies_within():
    samples = np.random.default_rng(3).normal(size=20)
    low, high = resampled_interval([samples[:, None].tolist()], lambda tables: means_of_medians(tables[0]))
    assert low <= median(samples.tolist()) <= high
