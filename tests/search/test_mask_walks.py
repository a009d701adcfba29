"""In which order masks are tried, on functions whose best masks are known."""

import itertools
from collections.abc import Callable, Iterator

import pytest

from zbench.search.masks.walks import drawn, exhaustive, greedy

COSTS = (0.0, 0.31, 0.02, 0.17, 0.05, 0.11, 0.03, 0.29, 0.07, 0.13, 0.19, 0.23)
"""What skipping each of 12 steps costs; the first is always computed."""


def additive(mask: str) -> float:
    return 1 - sum(cost for cost, digit in zip(COSTS, mask, strict=True) if digit == "0")


def tangled(mask: str) -> float:
    """Skips in a row cost more than apart, so that greed alone goes astray."""
    runs = [len(list(run)) for digit, run in itertools.groupby(mask) if digit == "0"]
    return additive(mask) - 0.08 * sum(run * run for run in runs)


def walked(walk: Callable[[Callable[[str], float | None]], Iterator[str | None]], worth: Callable[[str], float]):
    """Each mask of a walk with its worth, told as soon as it is asked for."""
    told: dict[str, float] = {}
    for mask in walk(told.get):
        if mask is not None:
            assert mask not in told, "asked for twice"
            told[mask] = worth(mask)
    return told


def best(told: dict[str, float]) -> dict[int, float]:
    found: dict[int, float] = {}
    for mask, value in told.items():
        found[mask.count("1")] = max(found.get(mask.count("1"), -9.0), value)
    return found


@pytest.mark.parametrize("steps", [2, 5, 8, 9])
def test_all_masks_that_compute_the_first_step_and_skip_another_are_tried_once(steps: int) -> None:
    masks = list(exhaustive(steps))
    assert len(masks) == len(set(masks)) == 2 ** (steps - 1) - 1
    assert all(mask is not None and len(mask) == steps and mask[0] == "1" and "0" in mask for mask in masks)


def test_greed_finds_every_best_mask_where_losses_add_up_in_few_trials() -> None:
    """The best mask of k steps then skips the cheapest ones. All 2,047 masks would be tried else."""
    told = walked(lambda known: greedy(12, 33, 0, known), additive)
    cheapest = sorted(COSTS[1:])
    for computed in range(1, 12):
        assert best(told)[computed] == pytest.approx(1 - sum(cheapest[: 12 - computed])), computed
    assert len(told) == 33


@pytest.mark.parametrize("most", [1, 7, 60])
def test_a_walk_stays_within_its_budget_and_follows_from_its_seed(most: int) -> None:
    one, same = (walked(lambda known: greedy(12, most, 5, known), tangled) for _ in range(2))
    assert len(one) == most and list(one) == list(same)
    random, again = (list(drawn(12, most, 5)) for _ in range(2))
    assert len(set(random)) == most and random == again
    assert list(drawn(12, 60, 6)) != list(drawn(12, 60, 5))


def test_a_larger_budget_begins_with_the_masks_of_a_smaller_one_at_random() -> None:
    assert list(drawn(12, 60, 3))[:20] == list(drawn(12, 20, 3))


@pytest.mark.parametrize("seed", range(10))
def test_greed_and_annealing_beat_random_masks_at_equal_cost(seed: int) -> None:
    """By the mean over the numbers of computed steps of the best worth."""
    greed = best(walked(lambda known: greedy(12, 120, seed, known), tangled))
    random = best(walked(lambda _: drawn(12, 120, seed), tangled))
    shared = greed.keys() & random.keys()
    assert sum(greed[k] for k in shared) > sum(random[k] for k in shared)


def test_a_walk_waits_until_it_is_told_and_takes_failures_for_what_they_are() -> None:
    told: dict[str, float] = {}
    walk = greedy(8, 20, 0, told.get)
    first = next(walk)
    assert first is not None and next(walk) is None and next(walk) is None
    told[first] = float("-inf")
    assert next(walk) not in (None, first)
    assert len(walked(lambda known: greedy(6, 40, 0, known), lambda _: float("-inf"))) <= 31


def test_no_walk_goes_on_for_ever_where_all_masks_were_tried() -> None:
    assert len(walked(lambda known: greedy(4, 1000, 0, known), lambda mask: mask.count("1") / 4)) == 7
    assert len(list(drawn(4, 1000, 0))) == 7
