"""Two modes are found where there are two, and in noise without modes less than once in two hundred runs."""

import random

import pytest

from zbench.stats.modes import two_modes


def once(*values: float) -> list[tuple[str, float]]:
    return [("scene", value) for value in values]


def of_pairs(rounds: int, pairs: int, sigma: float, rng: random.Random, share: float = 0.0, ratio: float = 1.0):
    """Rounds over pairs that differ in cost; `share` of them take `ratio` times as long."""
    return [
        (pair, (1 + pair) * (ratio if rng.random() < share else 1) * rng.lognormvariate(0, sigma))
        for _ in range(rounds)
        for pair in range(pairs)
    ]


@pytest.mark.parametrize(
    ("samples", "low", "n_low", "high", "n_high"),
    [
        ((1.46, 56.0, 1.47, 1.45, 55.7, 1.46, 1.46, 1.46), 1.46, 6, 55.85, 2),
        ((0.82, 1.02, 0.825, 1.021, 0.818, 0.823, 1.018, 0.82, 1.02, 0.819), 0.82, 6, 1.02, 4),
        ((56.0, 1.46, 55.9, 1.47), 1.465, 2, 55.95, 2),
    ],
)
def test_two_modes_as_people_met_them(
    samples: tuple[float, ...], low: float, n_low: int, high: float, n_high: int
) -> None:
    found = two_modes(once(*samples))
    assert found is not None and not found.is_shift
    assert (found.low, found.high) == (pytest.approx(low, rel=0.01), pytest.approx(high, rel=0.01))
    assert (found.n_low, found.n_high) == (n_low, n_high)
    assert [high_one for high_one, value in zip(found.is_high, samples, strict=True) if value > (low + high) / 2] == [
        True
    ] * n_high


@pytest.mark.parametrize(
    "samples",
    [
        (1.0, 1.01, 50.0, 1.0, 0.99, 1.0, 1.01, 1.0),  # one wild request
        (1.0, 1.01, 9.0, 1.0, 0.99, 1.0, 17.0, 1.0),  # two of them that have nothing in common
        tuple(1 + 0.02 * i for i in range(12)),  # it creeps
        tuple(1 + 2 * 0.5**i for i in range(12)),  # it falls, as while warming up
        (1.0, 1.03, 1.0, 1.03, 1.0, 1.03, 1.0, 1.03),  # a difference without consequence
        (1.0, 2.0, 1.0),  # three say nothing
        (0.0, 1.0, 0.0, 1.0, 0.0, 1.0),  # no time at all
        (1.0, float("nan"), 2.0, 1.0, 2.0, 1.0),
        (1.0, float("inf"), 1.0, float("inf"), 1.0, 1.0),
        (1.0, -1.0, 1.0, -1.0, 1.0, 1.0),
    ],
)
def test_what_is_no_pair_of_modes(samples: tuple[float, ...]) -> None:
    assert two_modes(once(*samples)) is None


def test_two_prompts_of_different_cost_are_no_modes() -> None:
    rng = random.Random(1)
    assert two_modes(of_pairs(3, 4, 0.01, rng)) is None
    assert two_modes([(i % 2, 0.82 if i % 2 else 1.02) for i in range(12)]) is None


def test_modes_are_found_across_prompts_of_different_cost() -> None:
    at = {0: (0.5, 0.6), 1: (2.0, 2.4)}
    turns = [0, 1, 0, 0, 1, 0, 1, 1, 0, 0, 1, 0]
    found = two_modes([(i % 2, at[i % 2][turn] * (1 + 0.001 * (i % 3))) for i, turn in enumerate(turns)])
    assert found is not None and found.is_high == tuple(map(bool, turns))
    assert (found.low, found.high) == (pytest.approx(1.25, rel=0.01), pytest.approx(1.5, rel=0.01))  # the mean pair's


def test_a_level_that_changed_once_is_a_shift() -> None:
    found = two_modes(once(0.82, 0.821, 0.819, 0.822, 1.02, 1.021, 1.019, 1.02))
    assert found is not None and found.is_shift


@pytest.mark.parametrize(("rounds", "pairs"), [(4, 1), (6, 1), (8, 1), (12, 1), (20, 1), (2, 4), (3, 4), (4, 4)])
@pytest.mark.parametrize("sigma", [0.002, 0.013, 0.03, 0.15])  # of committed records: quarter, median, 90 %, 99 %
def test_noise_without_modes_is_seldom_called_so(rounds: int, pairs: int, sigma: float) -> None:
    rng = random.Random(rounds * 100 + pairs)
    runs = 1000
    called = sum(two_modes(of_pairs(rounds, pairs, sigma, rng)) is not None for _ in range(runs))
    assert called <= 0.005 * runs  # measured: 0.2 % at most, and none up to 1.3 % noise


@pytest.mark.parametrize(("rounds", "pairs", "least"), [(8, 1, 0.6), (12, 1, 0.85), (20, 1, 0.95), (4, 4, 0.75)])
def test_modes_a_quarter_apart_are_found_in_noise_of_one_per_cent(rounds: int, pairs: int, least: float) -> None:
    rng = random.Random(7)
    runs = 400
    found = sum(two_modes(of_pairs(rounds, pairs, 0.01, rng, 0.4, 1.244)) is not None for _ in range(runs))
    assert found >= least * runs  # at least two samples of each are there in 83 to 100 % of the runs
