"""Speed-ups over a companion that sat out some turns: what one disturbed request, drift and few neighbours do."""

import math
import random
from dataclasses import replace

import pytest

from zbench.config import Prompt, WorkloadConfig
from zbench.measurement import Request, Role
from zbench.measurement.neighbours import side_by_side_s, speedup_beside
from zbench.stats import SpeedUp
from zbench.worker.joining import joined
from zbench.workload import pairs

FASTER = (1.3, 1.9, 1.6, 1.4)
"""A threshold skips other steps for each prompt, so their speed-ups differ."""

OWN, BESIDE = "0" * 12, "1" * 12


def workload(prompts: int, sizes: int = 1) -> WorkloadConfig:
    """Prompts of so many sizes, in turn."""
    heights = [None, 512][:sizes]
    found = [Prompt(id=f"p{i}", text="a cat", height=heights[i % sizes]) for i in range(prompts)]
    return WorkloadConfig(name="w", prompts=found)


def window(
    prompts: int,
    cycles: int,
    trials: int = 1,
    noise: float = 0.0,
    seed: int = 0,
    slow: tuple[int, float] | None = None,
    slower_from: int | None = None,
    sizes: int = 1,
) -> tuple[list[Request], list[Request]]:
    """Requests of the first of `trials` and of the companion, as a worker orders them. Call `slow[0]` takes `slow[1]`
    times as long, all from `slower_from` on half as long again; images of the second size take three times as long."""
    rng, cycle = random.Random(seed), pairs(workload(prompts))
    made: dict[str, list[Request]] = {OWN: [], BESIDE: []}
    calls, number, backwards, own = 0, 0, False, 0
    for _ in range(cycles):
        beside = [(r.prompt_id, r.seed) for r in made[BESIDE]]
        whole = joined([[pair] for pair in cycle], trials, own, beside)
        for place, pair in enumerate(cycle):
            others = [f"{2 + index:012d}" for index in range(trials - 1)]
            order = [*([BESIDE] if place in whole else []), OWN, *others]
            for trial_id in order[::-1] if backwards else order:
                seconds = (1.0 if trial_id == BESIDE else 1 / FASTER[place % 4]) * (1 + 2 * (place % sizes))
                seconds *= math.exp(rng.gauss(0, noise)) * (slow[1] if slow is not None and slow[0] == calls else 1)
                seconds *= 1.5 if slower_from is not None and calls >= slower_from else 1
                if trial_id in made:
                    made[trial_id].append(request(calls, trial_id, pair.prompt_id, seconds, number))
                calls += 1
            number, backwards, own = number + 1, backwards ^ (place in whole), own + trials
    return made[OWN], made[BESIDE]


def request(index: int, trial_id: str, prompt_id: str, latency_s: float, turn: int | None) -> Request:
    role: Role = "baseline" if trial_id == BESIDE else "trial"
    return Request(
        index, trial_id, role, prompt_id, 0, 0.0, 0.0, 0.0, latency_s, latency_s, {}, [], [], {}, turn=turn
    )  # fmt: skip


def speedup(made: tuple[list[Request], list[Request]], prompts: int, sizes: int = 1) -> SpeedUp:
    found = speedup_beside(*made, workload(prompts, sizes))
    assert found is not None
    return found


def true(prompts: int) -> float:
    return prompts / sum(1 / FASTER[index % 4] for index in range(prompts))


@pytest.mark.parametrize(("prompts", "cycles"), [(4, 3), (1, 8), (2, 4), (3, 3), (5, 3), (8, 3), (4, 8)])
@pytest.mark.parametrize("trials", [1, 2])
@pytest.mark.parametrize("times", [50.0, 5.0])
def test_one_slow_request_moves_a_speed_up_by_5_percent_at_most(
    prompts: int, cycles: int, trials: int, times: float
) -> None:
    """Anywhere in a trial of the default length, or beside it."""
    for seed in range(4):
        own, beside = made = window(prompts, cycles, trials, 0.02, seed)
        assert len(beside) <= 0.4 * trials * len(own)
        before = speedup(made, prompts).ratio
        for place in range(trials * len(own) + len(beside)):
            slowed = window(prompts, cycles, trials, 0.02, seed, slow=(place, times))
            assert abs(speedup(slowed, prompts).ratio / before - 1) <= 0.05, (seed, place)


@pytest.mark.parametrize("trials", [1, 2])
def test_a_machine_that_becomes_slower_moves_no_speed_up(trials: int) -> None:
    calls = trials * 16 + len(window(4, 4, trials)[1])
    for slower_from in range(calls):
        made = window(4, 4, trials, slower_from=slower_from)
        assert speedup(made, 4).ratio == pytest.approx(true(4), rel=0.02), slower_from


@pytest.mark.parametrize(("prompts", "cycles"), [(4, 3), (4, 6), (1, 8), (2, 8)])
@pytest.mark.parametrize("trials", [1, 2])
def test_the_interval_of_few_neighbours_covers_what_it_says(prompts: int, cycles: int, trials: int) -> None:
    found = [speedup(window(prompts, cycles, trials, 0.02, seed), prompts).interval for seed in range(400)]
    held = sum(each is not None and each[0] <= true(prompts) <= each[1] for each in found)
    assert held >= 0.92 * 400, "of 95 %; the standard error of so many draws is 1.1 %"


def test_fewer_neighbours_have_a_wider_interval() -> None:
    def width(cycles: int) -> float:
        found = [speedup(window(4, cycles, 1, 0.02, seed), 4) for seed in range(40)]
        return sum(each.interval[1] / each.ratio - 1 for each in found if each.interval) / 40

    assert width(3) > 1.3 * width(6) > 1.3 * 1.2 * width(10)


def test_images_of_another_size_stand_for_their_like_alone() -> None:
    """Two prompts in three take a third of the time of the others; each kind weighs as it takes."""
    made = window(4, 6, sizes=2)
    own_s = 1 / 1.3 + 3 / 1.9 + 1 / 1.6 + 3 / 1.4
    assert speedup(made, 4, sizes=2).ratio == pytest.approx(8 / own_s)


def test_a_baseline_with_a_cache_has_its_images_apart() -> None:
    own, beside = window(2, 10)
    kept = [replace(r, latency_s=0.5, cached_steps=[3, 4]) if r.prompt_id == "p1" else r for r in beside]
    assert speedup((own, kept), 2).ratio == pytest.approx(1.5 / (1 / 1.3 + 1 / 1.9))


def test_one_turn_alone_is_no_paired_speed_up() -> None:
    own, beside = window(4, 1)
    assert len(beside) == 1 and speedup_beside(own, beside, workload(4)) is None


def test_requests_are_paired_by_their_turn_and_in_older_records_by_their_order() -> None:
    own = [request(index, OWN, "p", 1.0 + index, index) for index in range(4)]
    beside = [request(9, BESIDE, "p", 20.0, 2), request(10, BESIDE, "p", 30.0, 3)]
    assert [turn[1:] for turn in side_by_side_s(own, beside)] == [(3.0, 20.0), (4.0, 30.0)]
    older = [replace(r, turn=None) for r in own], [replace(r, turn=None) for r in beside]
    assert [turn[1:] for turn in side_by_side_s(*older)] == [(1.0, 20.0), (2.0, 30.0)]


def test_a_request_that_was_made_again_is_no_turn() -> None:
    again = replace(request(0, OWN, "p", 9.0, 0), valid=False, invalid_reasons=["suspended"])
    own = [again, request(1, OWN, "p", 2.0, 0)]
    assert side_by_side_s(own, [request(2, BESIDE, "p", 3.0, 0)]) == [(("p", 0), 2.0, 3.0)]
