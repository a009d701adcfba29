"""Turns: how long they are, and what they count as."""

from typing import Any

import pytest

from zbench.ab.interleave import blocks, rounds_a_turn, turn_medians


@pytest.mark.parametrize(
    ("round_s", "rounds"), [(0.001, 8), (0.04, 8), (0.1, 3), (0.29, 3), (0.3, 1), (0.0, 8), (20.0, 1)]
)
def test_short_rounds_share_a_turn(round_s: float, rounds: int) -> None:
    assert rounds_a_turn(round_s) == rounds


def test_each_side_has_turns_of_its_own_length() -> None:
    made: list[str] = []

    def generate(side: str, index: int) -> Any:
        made.append(f"{side}{index}")

    first = next(blocks(generate, {"a": 3, "b": 1}))
    assert made == ["a0", "a0", "a0", "b0", "b0", "a0", "a0", "a0"]
    assert (len(first.a), len(first.b)) == (6, 2)


def test_a_turn_counts_as_its_median() -> None:
    assert turn_medians([9.0, 1.0, 1.0, 2.0, 2.0, 50.0]) == [1.0, 2.0]
    assert turn_medians([3.0, 4.0]) == [3.0, 4.0]
