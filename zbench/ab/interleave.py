"""Blocks of rounds in which two sides take turns, so that whatever drifts befalls both alike; it judges nothing.

A block is A B B A or B A A B, by turns, every round of it on the same prompt and seed: a linear drift cancels within
a block, and what a side's turn does to the next within two. Where rounds are short a turn is several of them, and
counts as their median: the first round after the other side's turn is slower, and a burst of other load hits few.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from zbench.measurement import Request
from zbench.stats import median

SideName = Literal["a", "b"]
ORDERS: tuple[tuple[SideName, ...], ...] = (("a", "b", "b", "a"), ("b", "a", "a", "b"))
TURNS = 2
"""Of each side in a block."""
TURN_S = 0.3
"""How long a turn should last."""
MOST_A_TURN = 8


@dataclass(frozen=True)
class Block:
    """The rounds of one block, by side, each in time order and half of them a turn's."""

    index: int
    a: tuple[Request, ...]
    b: tuple[Request, ...]

    @property
    def seconds(self) -> float:
        """Of all its rounds."""
        return sum(made.latency_s for made in (*self.a, *self.b))


def rounds_a_turn(round_s: float) -> int:
    """How many rounds of so many seconds a turn needs: 1, or at least the 3 that a median needs to leave one out."""
    if round_s <= TURN_S / MOST_A_TURN:
        return MOST_A_TURN
    return 1 if round_s >= TURN_S else max(math.ceil(TURN_S / round_s), 3)


def turn_medians(latencies_s: Sequence[float], turns: int = TURNS) -> list[float]:
    """Seconds of a round in each of so many turns, from those of all rounds (a multiple of `turns`) in time order."""
    size = len(latencies_s) // turns
    return [median(latencies_s[turn * size : (turn + 1) * size]) for turn in range(turns)]


def blocks(generate: Callable[[SideName, int], Request], a_turn: Mapping[SideName, int]) -> Iterator[Block]:
    """Blocks without end; `a_turn` says how many rounds a turn of each side is.

    `generate(side, index)` makes one round of the workload's pair `index`, in turn.
    """
    index = 0
    while True:
        made: dict[SideName, list[Request]] = {"a": [], "b": []}
        for side in ORDERS[index % 2]:
            made[side].extend(generate(side, index) for _ in range(a_turn[side]))
        yield Block(index, tuple(made["a"]), tuple(made["b"]))
        index += 1
