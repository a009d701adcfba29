"""A projected time as the parts that it is the sum of, so that it can say how far it may be off.

It refuses to know what the parts cost, and which spread each has.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from zbench.config import SpreadConfig


class Estimate(NamedTuple):
    """A projected figure, and where it lies nine times in ten."""

    low: float
    point: float
    high: float


@dataclass(frozen=True)
class Parts:
    """Seconds by the part that they go to; the parts are fields of SpreadConfig."""

    seconds: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, **seconds: float) -> "Parts":
        return cls(seconds)

    @property
    def total_s(self) -> float:
        return sum(self.seconds.values())

    def __add__(self, other: "Parts") -> "Parts":
        names = dict.fromkeys([*self.seconds, *other.seconds])
        return Parts({name: self.seconds.get(name, 0.0) + other.seconds.get(name, 0.0) for name in names})

    def __mul__(self, times: float) -> "Parts":
        return Parts({name: times * seconds for name, seconds in self.seconds.items()})

    def range(self, spread: SpreadConfig) -> Estimate:
        """The parts are off independently of each other, the model in all of them alike."""
        total = self.total_s
        if total <= 0:
            return Estimate(total, total, total)
        shares = {name: seconds / total * getattr(spread, name) for name, seconds in self.seconds.items()}
        off = 1 + math.hypot(spread.model, *shares.values())
        return Estimate(total / off, total, total * off)


def longest(*parts: Parts) -> Parts:
    """Of what happens at the same time, what takes longest."""
    return max(parts, key=lambda each: each.total_s)
