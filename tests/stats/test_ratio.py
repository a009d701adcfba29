"""A ratio of rounds has an interval of few cycles too, and it covers what it says."""

import random

import pytest

from zbench.stats import Comparison, Refusal, compare_rounds, ratio_of_rounds


def rounds(cycles: int, pairs: int, level: float, rng: random.Random, sigma: float = 0.02) -> list[tuple[int, float]]:
    """Of pairs that differ in cost, whole cycles one after another."""
    return [(pair, (1 + pair) * level * rng.lognormvariate(0, sigma)) for _ in range(cycles) for pair in range(pairs)]


@pytest.mark.parametrize(("cycles", "pairs"), [(3, 4), (2, 4), (4, 2)])
def test_few_cycles_have_an_interval_that_holds_the_truth(cycles: int, pairs: int) -> None:
    rng, runs, held = random.Random(cycles), 80, 0
    for _ in range(runs):
        found = ratio_of_rounds(rounds(cycles, pairs, 1.1, rng), rounds(cycles, pairs, 1.0, rng))
        assert isinstance(found, Comparison) and found.low <= found.estimate <= found.high
        held += found.low <= 1.1 <= found.high
    assert held >= 0.88 * runs  # measured over 200 runs: 94 to 98 %


def test_of_many_cycles_it_is_the_gates_own_comparison() -> None:
    rng = random.Random(1)
    new, base = rounds(6, 2, 1.2, rng), rounds(6, 2, 1.0, rng)
    assert ratio_of_rounds(new, base) == compare_rounds(new, base)


@pytest.mark.parametrize(("cycles", "pairs"), [(5, 1), (1, 8), (2, 2)])
def test_what_so_few_rounds_cannot_say_is_refused(cycles: int, pairs: int) -> None:
    rng = random.Random(2)
    found = ratio_of_rounds(rounds(cycles, pairs, 1.0, rng), rounds(cycles, pairs, 1.0, rng))
    assert isinstance(found, Refusal) and "rounds, where an interval needs" in found.detail


def test_what_is_no_time_and_pairs_that_are_gone_are_refused_as_ever() -> None:
    rng = random.Random(3)
    base = rounds(3, 4, 1.0, rng)
    assert isinstance(ratio_of_rounds([*base[:-1], (3, float("nan"))], base), Refusal)
    assert isinstance(ratio_of_rounds([each for each in base if each[0] != 2], base), Refusal)
