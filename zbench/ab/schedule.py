"""What a comparison counts, and how often it looks: blocks of workers that stay, or launches of both sides."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from zbench.ab.interleave import Block, SideName, turn_medians
from zbench.stats import BlockSamples, LookSchedule

BLOCK_LOOKS = LookSchedule((16, 24, 40, 60, 80, 120, 180, 270, 400, 600), core=80)
LAUNCH_LOOKS = LookSchedule((9, 12, 16, 24, 32, 48), core=16)
BLOCKS_A_LAUNCH = 6
"""More would tell more of these two processes and nothing of others."""
LEAST_APART = 0.03
"""A smaller margin may blame on the code what only differs from process to process, so it takes many processes.

Two workers of the same code differ, by 1 % at 40 ms an image on two shared cores (standard deviation of 8 pairs), and
no number of rounds shows it.
"""


@dataclass(frozen=True)
class ABSchedule:
    """When to look, at what."""

    looks: LookSchedule
    of_launches: bool  # else of blocks

    @property
    def unit(self) -> str:
        """What is counted, as a word."""
        return "launch" if self.of_launches else "block"

    @property
    def units(self) -> str:
        """The same of several."""
        return "launches" if self.of_launches else "blocks"


@dataclass(frozen=True)
class Unit:
    """One of what a schedule counts: a block, or all the blocks of a launch. `seconds` is how long it took in all."""

    blocks: tuple[Block, ...]
    seconds: float

    @property
    def samples(self) -> BlockSamples:
        """Seconds of a round in each turn, a as base and b as new."""
        a, b = ([s for block in self.blocks for s in turn_medians(_seconds(block, side))] for side in ("a", "b"))
        return BlockSamples(a, b)


def schedule_of(*, shared: bool, margin: float) -> ABSchedule:
    """Of sides on one pipeline, or with a worker each."""
    if shared or margin >= LEAST_APART:
        return ABSchedule(BLOCK_LOOKS, of_launches=False)
    return ABSchedule(LAUNCH_LOOKS, of_launches=True)


def start_orders(seed: str) -> Iterator[tuple[SideName, SideName]]:
    """In which order the sides start, without end: by chance, and each order equally often in every two launches.

    The worker that started second was 0.3 to 1 % faster on average, so a fixed order would favour a side.
    """
    chance = random.Random(seed)
    while True:
        orders: list[tuple[SideName, SideName]] = [("a", "b"), ("b", "a")]
        chance.shuffle(orders)
        yield from orders


def _seconds(block: Block, side: str) -> list[float]:
    return [made.latency_s for made in (block.a if side == "a" else block.b)]
