"""When an A/B may stop early: looks at pre-set numbers of blocks, at levels that together spend the error once.

Looking five times at 95 % would be wrong far more often than 5 times in 100. Here the error that may be spent grows as
the cube of the share of blocks measured (Kim and DeMets 1987; between O'Brien and Fleming, who spend next to nothing
early, and Pocock, who leaves too little for the end), and each look's level follows from what the looks before it have
spent (Lan and DeMets 1983). Intervals at these levels hold at all looks together (Jennison and Turnbull 1989), so any
verdict may stop the run and all error rates stay below the nominal one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from zbench.stats.bootstrap import Floats
from zbench.stats.compare import BlockSamples, compare_blocks
from zbench.stats.outcome import Refusal, RefusalReason, Scale
from zbench.stats.verdict import Judgement, Kind, Verdict, judge

LOOKS = (16, 24, 40, 60, 80)  # below 14 blocks signed ranks cannot be as sure as the first look asks
GRID = 401  # points of the numerical integral: levels are right to 4 digits
POWER = 3


@dataclass(frozen=True)
class LookSchedule:
    """At which numbers of blocks to look, and the confidence over all looks together.

    The default suits turns that scatter by 1 to 3 %. At a margin of 1 %, a version 2 % slower is told after 25 blocks
    on average where they scatter by 1 %, after 50 at 2 % and 65 at 3 %; there, 2 runs in 10 are unclear even after 80.
    For several trials take `correct_for_many` for `level`.
    """

    looks: tuple[int, ...] = LOOKS
    level: float = 0.95
    core: int | None = None
    """Blocks by which half of the error may be spent, as the cube; the other half is spent evenly on those after them.

    For runs that mostly end early and may go on for long. None: all of it as the cube, by the last look.
    """

    def __post_init__(self) -> None:
        """ValueError for looks that do not rise from at least 1, a level not between 0 and 1, a core past all looks."""
        if not self.looks or self.looks[0] < 1 or any(b <= a for a, b in zip(self.looks, self.looks[1:], strict=False)):
            raise ValueError(f"looks={self.looks}: must rise, from at least 1 block")
        if not 0 < self.level < 1:
            raise ValueError(f"level={self.level}: must lie between 0 and 1")
        if self.core is not None and not 0 < self.core < self.looks[-1]:
            raise ValueError(f"core={self.core}: must lie between 0 and the last look, {self.looks[-1]}")

    def levels(self) -> tuple[float, ...]:
        """The level of the interval at each look."""
        return _levels(self.looks, tuple(self._spent(look) for look in self.looks))

    def level_at_end(self, blocks: int) -> float:
        """The level if measuring ends at `blocks` for a reason that is not in the data, such as a budget of time.

        All that the looks before have not spent may be spent, as at the last look.
        """
        before = tuple(look for look in self.looks if look < blocks)
        spent = (*(self._spent(look) for look in before), 1 - self.level)
        return _levels((*before, blocks), spent)[-1]

    def _spent(self, blocks: int) -> float:
        last = self.looks[-1]
        if self.core is None:
            share = (blocks / last) ** POWER
        elif blocks <= self.core:
            share = (blocks / self.core) ** POWER / 2
        else:
            share = (1 + (blocks - self.core) / (last - self.core)) / 2
        return float((1 - self.level) * share)


@dataclass(frozen=True)
class Look:
    """What the blocks so far say: stop with the judgement, or go on."""

    stop: bool
    judgement: Judgement
    blocks: int  # that were judged; those measured since the last look were not


def look(
    blocks: Sequence[BlockSamples],
    plan: LookSchedule,
    margin: float,
    kind: Kind = Kind.RELATIVE,
    *,
    higher_is_better: bool = False,
    ended: bool = False,
    unit: str = "blocks",
) -> Look:
    """Judge the blocks measured so far, in time order, at the last look that they reach.

    Stops at any verdict but INCONCLUSIVE, at the last look, and at data that more blocks cannot mend (a NaN, a missing
    sample). Blocks beyond the look are left out, so that calling it more often changes nothing. `ended`: no more
    blocks will come, for a reason that is not in the data; then all blocks are judged. ValueError as `judge` raises.
    """
    reached = [count for count in plan.looks if count <= len(blocks)]
    last = plan.looks[-1]
    if ended and blocks and len(blocks) < last:
        count, level = len(blocks), plan.level_at_end(len(blocks))
    elif reached:
        count, level = reached[-1], plan.levels()[len(reached) - 1]
    else:
        count, level = 0, plan.level
    scale = Scale.RATIO if kind is Kind.RELATIVE else Scale.DIFFERENCE
    outcome = compare_blocks(blocks[:count], scale=scale, level=level, unit=unit)
    if not count and blocks:
        detail = f"{len(blocks)} of the {plan.looks[0]} {unit} that the first look needs"
        outcome = Refusal(RefusalReason.TOO_FEW_SAMPLES, detail)
    judgement = judge(outcome, margin, kind, higher_is_better=higher_is_better)
    hopeless = isinstance(outcome, Refusal) and outcome.reason is not RefusalReason.TOO_FEW_SAMPLES and bool(blocks)
    stop = ended or count == last or judgement.verdict is not Verdict.INCONCLUSIVE or hopeless
    return Look(stop, judgement, count)


@lru_cache(maxsize=128)
def _levels(counts: tuple[int, ...], spent: tuple[float, ...]) -> tuple[float, ...]:
    """Two-sided levels at which a Brownian motion first leaves its bounds with the `spent` probabilities.

    Armitage, McPherson and Rowe 1969: the density of paths still inside, carried from look to look.
    """
    import numpy as np
    from scipy.special import ndtr, ndtri

    levels: list[float] = []
    places: Floats = np.zeros(1)
    weights: Floats = np.ones(1)  # density times width: the chance of being there, without having left before
    before, paid = 0.0, 0.0
    for count, so_far in zip(counts, spent, strict=True):
        time = count / counts[-1]
        step = math.sqrt(time - before)
        tail = max((so_far - paid) / 2, 1e-15)
        low, high = 0.0, float(-ndtri(tail / 2)) * math.sqrt(time) + 1
        for _ in range(60):
            bound = (low + high) / 2
            leaves = float(weights @ ndtr((places - bound) / step))
            low, high = (bound, high) if leaves > tail else (low, bound)
        levels.append(1 - 2 * float(ndtr(-bound / math.sqrt(time))))
        inside = np.linspace(-bound, bound, GRID)
        steps = (inside[:, None] - places[None, :]) / step
        density = np.exp(-(steps**2) / 2) @ weights / (step * math.sqrt(2 * math.pi))
        width = np.full(GRID, inside[1] - inside[0])
        width[[0, -1]] /= 2
        places, weights, before, paid = inside, density * width, time, so_far
    return tuple(levels)
