"""One disturbed request decides nothing, drift moves nothing, and an interval holds what it says."""

import math
import random
from collections.abc import Callable

import pytest

from zbench.stats import speedup_between, speedup_by_turns

OF_PROMPTS = {"a": 1.3, "b": 1.9, "c": 1.6, "d": 1.4}
"""A threshold skips other steps for each prompt, so their speed-ups differ."""

Turns = list[tuple[str, float, float]]


def turns(seed: int, cycles: int, prompts: int = 4, noise: float = 0.02) -> Turns:
    """(prompt, own seconds, baseline's seconds) with noise on each."""
    rng = random.Random(seed)
    names = [*OF_PROMPTS.items()]
    found = []
    for _ in range(cycles):
        for index in range(prompts):
            name, faster = names[index % 4]
            one, other = (math.exp(rng.gauss(0, noise)) for _ in range(2))
            found.append((f"{name}{index // 4}", one / faster, other))
    return found


def paired(made: Turns) -> float:
    found = speedup_by_turns(made)
    assert found is not None
    return found.ratio


def unpaired(made: Turns) -> float:
    found = speedup_between([(p, own) for p, own, _ in made], [(p, base) for p, _, base in made])
    assert found is not None
    return found.ratio


@pytest.mark.parametrize("estimate", [paired, unpaired])
@pytest.mark.parametrize(
    ("prompts", "cycles"), [(4, 2), (4, 3), (4, 4), (1, 8), (1, 16), (2, 4), (3, 3), (5, 2), (8, 1)]
)
@pytest.mark.parametrize("times", [50.0, 5.0, 2.0])
def test_one_slow_request_moves_a_speed_up_by_5_percent_at_most(
    estimate: Callable[[Turns], float], prompts: int, cycles: int, times: float
) -> None:
    """Anywhere in the trial or beside it, at 8 to 16 rounds: the default's. Of one round a prompt one that took twice
    as long cannot be told from a prompt of another kind."""
    if cycles == 1 and times < 5:
        return
    for seed in range(20):
        made = turns(seed, cycles, prompts)
        before = estimate(made)
        for place in range(len(made)):
            for side in (1, 2):
                turn = list(made[place])
                turn[side] = float(turn[side]) * times
                slowed = [*made[:place], (str(turn[0]), float(turn[1]), float(turn[2])), *made[place + 1 :]]
                assert abs(estimate(slowed) / before - 1) <= 0.05, (seed, place, side)


def test_a_machine_that_is_slower_from_some_time_on_moves_no_paired_speed_up() -> None:
    made = turns(0, 4)
    for place in range(len(made)):
        drifted = [*made[:place], *((p, 1.5 * own, 1.5 * base) for p, own, base in made[place:])]
        assert paired(drifted) == pytest.approx(paired(made), rel=0.02)


def test_without_noise_it_is_the_speed_up_of_the_whole_workload() -> None:
    own_s = sum(1 / faster for faster in OF_PROMPTS.values())
    assert paired(turns(0, 2, noise=0.0)) == pytest.approx(4 / own_s)
    assert unpaired(turns(0, 2, noise=0.0)) == pytest.approx(4 / own_s)


@pytest.mark.parametrize(("prompts", "cycles"), [(4, 2), (4, 4), (1, 8), (8, 1)])
def test_the_interval_covers_what_it_says(prompts: int, cycles: int) -> None:
    true = paired(turns(0, cycles, prompts, noise=0.0))
    found = [speedup_by_turns(turns(seed, cycles, prompts)) for seed in range(400)]
    intervals = [each.interval for each in found if each is not None and each.interval is not None]
    held = sum(low <= true <= high for low, high in intervals)
    assert len(intervals) == 400 and held >= 0.93 * 400


def test_two_alike_intervals_overlap_nearly_always() -> None:
    found = [speedup_by_turns(turns(seed, 2)) for seed in range(60)]
    intervals = [each.interval for each in found if each is not None and each.interval is not None]
    pairs = [(a, b) for index, a in enumerate(intervals) for b in intervals[:index]]
    assert sum(a[0] <= b[1] and b[0] <= a[1] for a, b in pairs) >= 0.95 * len(pairs)


def test_a_further_factor_widens_the_interval_by_what_is_known_of_it() -> None:
    one, other = speedup_by_turns(turns(1, 4)), speedup_by_turns(turns(2, 4))
    assert one is not None and other is not None
    both, wider = one.after(other), one.after(other, 0.01**2)
    assert both.ratio == one.ratio * other.ratio
    assert both.interval is not None and wider.interval is not None
    assert wider.interval[0] < both.interval[0] < both.ratio < both.interval[1] < wider.interval[1]


def test_one_turn_alone_has_no_interval() -> None:
    found = speedup_by_turns([("a", 0.5, 1.0)])
    assert found is not None and (found.ratio, found.interval) == (2.0, None)
    assert speedup_by_turns([]) is None
