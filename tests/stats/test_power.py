"""How many blocks a change needs, by A/Bs drawn from rounds."""

import numpy as np
import pytest

from zbench.stats import LookSchedule, Verdict, blocks_needed
from zbench.stats.power import draw_turns, simulated_run

PLAN = LookSchedule()


def noise(sigma: float, rounds: int = 200, seed: int = 1) -> list[float]:
    return list(np.exp(np.random.default_rng(seed).normal(0, sigma, rounds)))


def test_more_noise_and_smaller_changes_need_more_blocks() -> None:
    def needed(sigma: float, change: float) -> float:
        blocks = blocks_needed(noise(sigma), change, PLAN, runs=30)
        return float("inf") if blocks is None else blocks

    assert needed(0.01, 0.05) == PLAN.looks[0]
    assert needed(0.01, 0.05) <= needed(0.01, 0.02) < needed(0.01, 0.005)
    assert needed(0.01, 0.02) < needed(0.03, 0.02)
    assert needed(0.10, 0.01) == float("inf")


def test_the_answer_is_the_same_each_time() -> None:
    assert blocks_needed(noise(0.02), 0.02, PLAN, runs=20) == blocks_needed(noise(0.02), 0.02, PLAN, runs=20)


def test_what_it_promises_holds_on_fresh_rounds() -> None:
    """Of new A/Bs on the same noise, about 9 in 10 are SLOWER by then."""
    blocks = blocks_needed(noise(0.015, 400), 0.02, PLAN)
    assert blocks is not None
    rng = np.random.default_rng(9)
    results = [simulated_run(np.exp(rng.normal(0, 0.015, 320)), 0.02, 0.01, PLAN) for _ in range(60)]
    in_time = sum(verdict is Verdict.SLOWER and used <= blocks for verdict, used in results)
    assert in_time >= 0.75 * len(results)


def test_turns_are_drawn_in_stretches() -> None:
    drawn = draw_turns(np.arange(100.0), 50, np.random.default_rng(0))
    assert len(drawn) == 50 and (np.diff(drawn) == 1).sum() >= 47


def test_too_few_turns_are_refused() -> None:
    with pytest.raises(ValueError, match="39 turns: at least 40"):
        blocks_needed(noise(0.01, 39), 0.02, PLAN)
