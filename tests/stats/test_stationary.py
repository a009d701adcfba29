"""Warm-up ends within few rounds of steady noise, and neither during a decay nor right after one slow round."""

import math

import numpy as np
import pytest

from zbench.stats import is_stationary, warm_from

RUNS = 1000
BOUND = 12


def ends(shape: np.ndarray, sigma: float, bound: int = BOUND) -> np.ndarray:
    """After how many rounds warm-up ended, run by run; the bound plus 1 where only the bound ended it."""
    rng = np.random.default_rng(11)
    found = []
    for _ in range(RUNS):
        series = (shape * np.exp(rng.normal(0, sigma, len(shape)))).tolist()
        rounds = warm_from(series, bound=bound)
        found.append(rounds if is_stationary(series[:rounds]).settled else bound + 1)
    return np.array(found)


@pytest.mark.parametrize("sigma", [0.0, 0.005, 0.01, 0.02, 0.03])
def test_steady_noise_settles_after_4_rounds(sigma):
    found = ends(np.ones(BOUND), sigma)
    assert np.median(found) == 4
    assert np.mean(found > BOUND) <= 0.01


def test_even_strong_noise_settles_before_the_bound():
    found = ends(np.ones(BOUND), 0.1)
    assert np.median(found) <= 6
    assert np.mean(found > BOUND) <= 0.03


def test_heavy_tails_settle_too():
    rng = np.random.default_rng(12)
    found = [warm_from(np.exp(0.02 * rng.standard_t(2, BOUND)).tolist()) for _ in range(RUNS)]
    assert np.median(found) <= 5
    assert np.mean(np.array(found) == BOUND) <= 0.05


@pytest.mark.parametrize(("sigma", "left"), [(0.002, 0.02), (0.01, 0.02), (0.02, 0.03)])
def test_a_decay_of_30_percent_is_waited_out(sigma, left):
    # The first timed round is at most so much slower than the steady state, in 95 of 100 runs.
    found = ends(1 + 0.3 * np.exp(-np.arange(BOUND) / 3), sigma)
    assert np.mean(0.3 * np.exp(-found / 3) <= left) >= 0.95


@pytest.mark.parametrize("first", [1.2, 3.0, 50.0])
def test_one_slow_first_round_is_waited_out_and_no_more(first):
    shape = np.ones(BOUND)
    shape[0] = first
    found = ends(shape, 0.01)
    assert np.mean(found <= 4) <= 0.01
    assert np.median(found) == 5


def test_one_wild_round_amid_steady_ones_does_not_keep_it_warming():
    rounds = warm_from([1.0, 1.01, 50.0, 1.0, 0.99, 1.01, 1.0, 1.0])
    assert 4 < rounds <= 7


def test_too_few_rounds_settle_nothing():
    assert is_stationary([]).reason == "too_few_rounds"
    assert is_stationary([1.0, 1.0, 1.0]).reason == "too_few_rounds"
    assert warm_from([1.0, 1.0, 1.0]) is None


@pytest.mark.parametrize("bad", [math.nan, math.inf, None, 0.0, -1.0])
def test_what_is_no_latency_never_settles(bad):
    found = is_stationary([1.0, 1.0, 1.0, bad, 1.0])
    assert (found.settled, found.reason) == (False, "not_a_latency")
    assert is_stationary([bad, *[1.0] * 6]).settled


def test_the_bound_ends_it_in_any_case_and_shows_that_it_did():
    falling = [100 * 0.8**k for k in range(20)]
    assert warm_from(falling[:11]) is None
    assert warm_from(falling) == BOUND
    assert not is_stationary(falling[:BOUND]).settled
    assert warm_from([math.nan] * 20, bound=6) == 6


def test_the_reason_is_named_with_its_figures():
    shifted = is_stationary([2.0, 2.0, 1.0, 1.0])
    assert shifted.reason == "shifted" and shifted.shift == pytest.approx(-2 / 3)
    falling = is_stationary([1.03, 1.025, 1.02, 1.015, 1.01, 1.005])
    assert falling.reason == "falling" and falling.shift < 0


def test_nonsense_is_refused():
    with pytest.raises(ValueError, match="tolerance"):
        is_stationary([1.0] * 5, tolerance=math.nan)
    with pytest.raises(ValueError, match="bound"):
        warm_from([1.0] * 5, bound=0)
