"""How many turns the uncached trial has beside others: never more than its part, of every image alike, spread out."""

from collections import Counter
from itertools import pairwise

import pytest

from zbench.worker.joining import joined
from zbench.workload import MOST_BESIDE, Pair

LAPS = 12


def lap(images: int, a_turn: int) -> list[list[Pair]]:
    """Turn by turn, so many cycles that they are whole turns."""
    cycle = [Pair(f"p{index}", "a cat", 0) for index in range(images)]
    rounds = next(cycle * times for times in range(1, a_turn + 1) if images * times % a_turn == 0)
    return [rounds[first : first + a_turn] for first in range(0, len(rounds), a_turn)]


def window(trials: int, images: int, a_turn: int = 1, laps: int = LAPS) -> list[tuple[int, list[list[str]]]]:
    """After each lap: requests of the trials so far, and prompts of the companion's turns in it."""
    own, made = 0, []
    beside: list[tuple[str, int]] = []
    for _ in range(laps):
        turns = lap(images, a_turn)
        with_companion = [turns[place] for place in sorted(joined(turns, trials, own, beside))]
        own += trials * sum(map(len, turns))
        beside += [(pair.prompt_id, pair.seed) for turn in with_companion for pair in turn]
        made.append((own, [[pair.prompt_id for pair in turn] for turn in with_companion]))
    return made


@pytest.mark.parametrize("trials", range(1, 7))
@pytest.mark.parametrize("a_turn", [1, 2, 3])
def test_it_never_makes_more_than_its_part_however_long_a_window_is(trials: int, a_turn: int) -> None:
    for images in range(1, 12):
        count = 0
        for own, turns in window(trials, images, a_turn):
            count += sum(map(len, turns))
            assert count <= MOST_BESIDE * own + 1e-9
        wanted = min(1 / trials, MOST_BESIDE) * own
        assert count > wanted - a_turn, "and as much as it may"


@pytest.mark.parametrize("trials", range(3, 7))
def test_beside_three_trials_or_more_it_has_every_turn(trials: int) -> None:
    assert all(len(turns) == 4 for _, turns in window(trials, images=4))


@pytest.mark.parametrize("trials", [1, 2])
def test_it_makes_all_images_equally_often_and_each_within_three_cycles(trials: int) -> None:
    for images in range(1, 12):
        made = Counter[str]()
        for number, (_, turns) in enumerate(window(trials, images), 1):
            made.update(prompt_id for turn in turns for prompt_id in turn)
            counts = [made[f"p{index}"] for index in range(images)]
            assert max(counts) - min(counts) <= 1
            assert number < 3 or min(counts) >= 1, "a trial that takes turns makes each image three times"


def test_what_several_trials_did_not_use_up_it_has_beside_the_one_that_goes_on() -> None:
    turns = lap(images=4, a_turn=1)
    cycle = [(turn[0].prompt_id, 0) for turn in turns]
    assert len(joined(turns, trials=1, own=48, beside=cycle * 3)) == 4, "12 of 48, where 19 were allowed"


def test_its_turns_of_one_lap_lie_apart() -> None:
    turns = lap(images=20, a_turn=1)
    places = sorted(joined(turns, trials=1, own=0, beside=[]))
    gaps = {after - before for before, after in pairwise(places)}
    assert len(places) == 8 and gaps <= {2, 3}
