from dataclasses import replace
from typing import Any

import pytest

from zbench.config import Prompt, WorkloadConfig
from zbench.workload import (
    DEFAULT_REQUESTS,
    due_times_s,
    longest_gap_s,
    one_after_another,
    pairs,
    request_count,
    requested,
    whole_cycles,
)


def test_every_prompt_meets_every_seed_in_the_order_given() -> None:
    workload = WorkloadConfig(name="w", prompts=[Prompt("a", "x"), Prompt("b", "y")], seeds=[3, 1])
    assert [(p.prompt_id, p.prompt_text, p.seed) for p in pairs(workload)] == [
        ("a", "x", 3),
        ("a", "x", 1),
        ("b", "y", 3),
        ("b", "y", 1),
    ]


def test_rounds_are_rounded_up_to_whole_cycles() -> None:
    assert [whole_cycles(rounds, 4) for rounds in (1, 4, 5, 8)] == [4, 4, 8, 8]


def poisson(**of: Any) -> WorkloadConfig:
    prompts = [Prompt("a", "x"), Prompt("b", "y")]
    return WorkloadConfig(name="w", prompts=prompts, **{"arrivals": "poisson", "rate_per_s": 2.0, **of})


def test_poisson_arrivals_are_those_of_their_seed() -> None:
    one = due_times_s(poisson(requests=200))
    assert one == due_times_s(poisson(requests=200)) and one != due_times_s(poisson(requests=200, arrivals_seed=1))
    assert one is not None and sorted(one) == one and one[0] > 0, "a gap comes before the first one too"
    assert 200 / one[-1] == pytest.approx(2.0, rel=0.2), "of 200 gaps the mean is within 3 sigma of the rate"


def test_more_requests_and_other_rates_are_of_the_same_draw() -> None:
    few, many = due_times_s(poisson(requests=5)), due_times_s(poisson(requests=9))
    assert few is not None and many is not None and many[:5] == few
    assert due_times_s(poisson(requests=5, rate_per_s=4.0)) == pytest.approx([time_s / 2 for time_s in few])


def test_replayed_requests_are_due_at_their_times_in_order() -> None:
    replay = poisson(arrivals="replay", rate_per_s=None, arrival_times_s=[0.0, 0.5, 0.5, 3.0])
    assert due_times_s(replay) == [0.0, 0.5, 0.5, 3.0] and request_count(replay) == 4
    assert due_times_s(replace(replay, requests=2)) == [0.0, 0.5]


def test_the_longest_time_in_which_nothing_is_due_is_known() -> None:
    replay = poisson(arrivals="replay", rate_per_s=None, arrival_times_s=[2.0, 2.5, 9.0])
    assert longest_gap_s(replay) == 6.5 and longest_gap_s(replace(replay, arrival_times_s=[7.0])) == 7.0
    assert longest_gap_s(WorkloadConfig(name="w", prompts=replay.prompts)) == 0.0


def test_prompts_are_asked_for_in_turn() -> None:
    load = poisson(arrivals="concurrent", rate_per_s=None, concurrency=5)
    assert [pair.prompt_id for pair in requested(load)] == ["a", "b", "a", "b", "a"], "as many as are at once"
    assert len(requested(poisson())) == DEFAULT_REQUESTS and due_times_s(load) is None


def test_without_load_nothing_of_it_is_left() -> None:
    load = poisson(requests=3, latency_objective_s=1.0, concurrency=2, arrivals_seed=4, warm_up=False)
    assert one_after_another(load) == WorkloadConfig(name="w", prompts=load.prompts)
