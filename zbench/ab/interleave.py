"""Blocks of rounds in which two sides take turns, so that whatever drifts befalls both alike; it judges nothing.

A block is A B B A or B A A B, by turns, every round of it on the same prompt and seed: a linear drift cancels within
a block, and so does what a side's turn does to the next.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from zbench.measurement import Round

SideName = Literal["a", "b"]
ORDERS: tuple[tuple[SideName, ...], ...] = (("a", "b", "b", "a"), ("b", "a", "a", "b"))


@dataclass(frozen=True)
class Block:
    """The rounds of one block, by side, each in time order."""

    index: int
    a: tuple[Round, ...]
    b: tuple[Round, ...]


def blocks(generate: Callable[[SideName, int], Round]) -> Iterator[Block]:
    """Blocks without end. `generate(side, index)` makes one round of the workload's pair `index`, in turn."""
    index = 0
    while True:
        made: dict[SideName, list[Round]] = {"a": [], "b": []}
        for side in ORDERS[index % 2]:
            made[side].append(generate(side, index))
        yield Block(index, tuple(made["a"]), tuple(made["b"]))
        index += 1
