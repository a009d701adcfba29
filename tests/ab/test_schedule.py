"""When a comparison ends without a verdict, what it counts, and in which order sides start."""

import json
import math
import time
from dataclasses import replace
from itertools import count, cycle, islice
from pathlib import Path

import numpy as np
import pytest
from factories import trial

from zbench.ab.interleave import Block
from zbench.ab.run import Bounds, _journal, _judged
from zbench.ab.schedule import BLOCK_LOOKS, LAUNCH_LOOKS, ABSchedule, Unit, schedule_of, start_orders
from zbench.ab.show import assessed, levels, render
from zbench.ab.side import Side
from zbench.measurement import Request
from zbench.stats import Verdict

BLOCKS = ABSchedule(BLOCK_LOOKS, of_launches=False)


class Silent:
    """A listener that keeps what was said of the time that is left."""

    def __init__(self):
        self.left_s = []

    def note(self, text):
        """Nothing."""

    def launching(self, launch):
        """Nothing."""

    def warming(self, side, latency_s):
        """Nothing."""

    def measured(self, done, schedule, left_s, so_far):
        """Keep it."""
        self.left_s.append(left_s)


def block(index, a_s, b_s):
    def request(latency_s):
        return Request(
            index=0,
            trial_id="0" * 12,
            role="trial",
            prompt_id="p",
            seed=0,
            due_s=0.0,
            sent_s=0.0,
            begun_s=0.0,
            done_s=latency_s,
            latency_s=latency_s,
            stages_s={},
            steps_s=[],
            cached_steps=[],
            residual_diffs={},
        )

    return Block(index, tuple(map(request, a_s)), tuple(map(request, b_s)))


def units(ratios, seconds=1.0):
    for index, ratio in enumerate(ratios):
        yield Unit((block(index, (1.0, 1.0), (ratio, ratio)),), seconds)


def judged(ratios, margin=0.01, budget_s=1e6, spent_s=0.0, seconds=1.0, stop=lambda: False, schedule=BLOCKS):
    listener = Silent()
    began_s = time.perf_counter() - spent_s
    outcome = _judged(units(ratios, seconds), schedule, Bounds(margin, budget_s), began_s, listener, stop)
    return outcome, listener


def scattered(sigma, seed=3):
    rng = np.random.default_rng(seed)
    while True:
        yield float(np.exp(rng.normal(0, sigma)))


def said(outcome):
    return render(outcome, Side("a", trial()), Side("b", trial()), "text")


def of_blocks(*of_b):
    """An outcome whose b took these seconds in the two turns of each block, and a always 0.82."""
    made = tuple(block(index, (0.82,) * len(b_s), b_s) for index, b_s in enumerate(of_b))
    outcome, _ = judged([1.0] * 30)
    return replace(outcome, blocks=made)


def test_a_side_whose_latencies_have_two_modes_is_named_in_every_form():
    sides = Side("a", trial()), Side("b", trial())
    bimodal = of_blocks(*[(0.82, 1.02), (1.021, 0.821)] * 4)
    named = "b: its latency has two modes, 0.82 s (8 of 16 requests) and 1.02 s (8 of 16)"
    for form in ("text", "markdown"):
        assert named in render(bimodal, *sides, form).replace("\\", "")
    assert list(json.loads(render(bimodal, *sides, "json"))["levels"]) == ["b"]
    assert any(named in remark for remark in assessed(bimodal, *sides, 0.01).remarks)
    steady = of_blocks(*[(0.82, 0.821), (0.819, 0.82)] * 4)
    assert levels(steady) == {} and "modes" not in render(steady, *sides, "text")
    slow_and_quick = of_blocks(*[(56.0, 1.46), (1.45, 56.3), (1.46, 56.1)])
    assert "1.46 s (3 of 6 requests) and 56.1 s (3 of 6)" in levels(slow_and_quick)["b"]


def test_the_first_round_of_a_turn_is_no_mode():
    """It is slower after the other side's turn, in turns of several rounds alone."""
    assert levels(of_blocks(*[(0.11, 0.09, 0.09, 0.11, 0.09, 0.09)] * 6)) == {}
    assert "b" in levels(of_blocks(*[(0.11, 0.09, 0.13, 0.11, 0.13, 0.09)] * 6))


def test_nothing_begins_that_would_not_end_within_the_budget():
    outcome, listener = judged(scattered(0.05), budget_s=1000, spent_s=985, seconds=16)
    assert (outcome.ended, len(outcome.blocks)) == ("budget", 1) and listener.left_s == [pytest.approx(15, abs=2)]
    outcome, _ = judged(islice(scattered(0.05), 700), budget_s=1e6)
    assert outcome.ended in ("verdict", "last_look")


def test_what_a_budget_leaves_undecided_says_which_margin_would_have_been_decided():
    late = iter([False] * 7)

    def budget_is_over():
        return next(late, True)

    ratios = cycle([1.03, 0.99])
    began_s = time.perf_counter()
    outcome = _judged(units(ratios), BLOCKS, Bounds(0.01, 1e6), began_s, Silent(), budget_is_over)
    assert outcome.judgement.verdict is Verdict.INCONCLUSIVE and len(outcome.blocks) == 8
    assert "A margin of 3 % would have been decided: no slower than that." in said(outcome)


def test_an_interval_that_shrinks_no_more_ends_it():
    """Rounds that scatter ever more, so that more blocks tell no more."""
    rng = np.random.default_rng(1)
    outcome, _ = judged(float(np.exp(rng.normal(0, 0.02 * math.sqrt(1 + index)))) for index in count())
    assert outcome.ended == "no_narrower" and len(outcome.blocks) < BLOCK_LOOKS.looks[-1]
    assert "made the interval no narrower" in said(outcome)


def test_steady_scatter_goes_on_past_eighty_blocks_and_is_decided():
    outcome, _ = judged(scattered(0.06))
    assert outcome.ended == "verdict" and outcome.judgement.verdict.passes and len(outcome.blocks) > 80


def test_a_clear_difference_is_found_at_the_first_look():
    outcome, _ = judged(1.08 * ratio for ratio in scattered(0.01))
    assert (outcome.judgement.verdict, len(outcome.blocks)) == (Verdict.SLOWER, 16)


def test_small_margins_of_workers_apart_count_launches():
    assert not schedule_of(shared=True, margin=0.01).of_launches
    assert not schedule_of(shared=False, margin=0.03).of_launches
    assert schedule_of(shared=False, margin=0.01) == ABSchedule(LAUNCH_LOOKS, of_launches=True)


def test_a_launch_counts_once_however_many_blocks_it_made():
    launch = Unit(tuple(block(i, (1.0, 3.0), (2.0, 4.0)) for i in range(6)), 9.0)
    assert launch.samples.base == [1.0, 3.0] * 6 and launch.samples.new == [2.0, 4.0] * 6


def test_each_side_starts_first_equally_often_and_not_by_turns():
    orders = list(islice(start_orders("trials"), 48))
    assert orders.count(("a", "b")) == 24
    assert all(set(pair) == {("a", "b"), ("b", "a")} for pair in zip(orders[::2], orders[1::2], strict=True))
    assert len({tuple(pair) for pair in zip(orders[::2], orders[1::2], strict=True)}) == 2
    assert orders == list(islice(start_orders("trials"), 48)) != list(islice(start_orders("others"), 48))


def test_the_raw_rounds_of_an_earlier_comparison_stay(tmp_path: Path) -> None:
    for made in ("first", "second", "third"):
        journal = _journal(tmp_path)
        journal.append(made)
        journal.close()
    kept = {path.name: path.read_bytes().strip() for path in tmp_path.iterdir()}
    assert kept == {"blocks.1.jsonl": b"first", "blocks.2.jsonl": b"second", "blocks.jsonl": b"third"}
