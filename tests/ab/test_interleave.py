"""Turns: how long they are, and what they count as."""

import pytest

from zbench.ab.interleave import rounds_a_turn, turn_medians


@pytest.mark.parametrize(("round_s", "rounds"), [(0.001, 8), (0.04, 8), (0.1, 3), (0.29, 2), (0.31, 1), (20.0, 1)])
def test_short_rounds_share_a_turn(round_s: float, rounds: int) -> None:
    assert rounds_a_turn(round_s) == rounds


def test_a_turn_counts_as_its_median() -> None:
    assert turn_medians([9.0, 1.0, 1.0, 2.0, 2.0, 50.0]) == [1.0, 2.0]
    assert turn_medians([3.0, 4.0]) == [3.0, 4.0]
