"""How many blocks an A/B needs to tell a change, from turns that were measured: whole A/Bs are drawn from them.

Turns are drawn in stretches of consecutive ones, so that drift and bursts stay as they were (Künsch 1989).
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from zbench.stats.bootstrap import Floats
from zbench.stats.compare import BlockSamples
from zbench.stats.sequential import LookSchedule, look
from zbench.stats.verdict import Verdict

if TYPE_CHECKING:
    from numpy.random import Generator
else:
    Generator = Any

STRETCH = 20  # consecutive turns drawn together
LEAST = 2 * STRETCH  # turns below which stretches are nearly all the same


def draw_turns(latencies: Floats, turns: int, rng: Generator) -> Floats:
    """So many turns of a series in time order, in stretches of consecutive ones."""
    import numpy as np

    begins = rng.integers(0, len(latencies) - STRETCH + 1, -(-turns // STRETCH))
    drawn: Floats = latencies[(begins[:, None] + np.arange(STRETCH)).ravel()[:turns]]
    return drawn


def simulated_run(turns: Floats, slower: float, margin: float, plan: LookSchedule) -> tuple[Verdict, int]:
    """The verdict of an A/B over four times the plan's most blocks of turns in time order, and the blocks it took.

    Blocks are A B B A and B A A B by turns; `slower` is added to every turn of B, as a share.
    """
    import numpy as np

    most = plan.looks[-1]
    quads = np.asarray(turns)[: 4 * most].reshape(most, 4)
    outer, inner = quads[:, [0, 3]], quads[:, [1, 2]]
    turned = (np.arange(most) % 2 == 1)[:, None]
    base = np.where(turned, inner, outer).tolist()
    new = (np.where(turned, outer, inner) * (1 + slower)).tolist()
    blocks = [BlockSamples(*sides) for sides in zip(base, new, strict=True)]
    for count in plan.looks:
        found = look(blocks[:count], plan, margin)
        if found.stop:
            break
    return found.judgement.verdict, found.blocks


def blocks_needed(
    latencies: Sequence[float], slower: float, plan: LookSchedule, power: float = 0.9, runs: int = 100, seed: int = 0
) -> int | None:
    """Blocks after which `power` of A/Bs at a margin of half the change call a version `slower` by that share SLOWER.

    `latencies` are one version's turns here, seconds a round, in time order. None where the plan's most do not suffice.
    ValueError for fewer than 40 latencies.
    """
    import numpy as np

    if len(latencies) < LEAST:
        raise ValueError(f"{len(latencies)} turns: at least {LEAST} are needed")
    rng = np.random.default_rng(seed)
    series = np.asarray(latencies, dtype=np.float64)
    results = [
        simulated_run(draw_turns(series, 4 * plan.looks[-1], rng), slower, slower / 2, plan) for _ in range(runs)
    ]
    told = sorted(blocks for verdict, blocks in results if verdict is Verdict.SLOWER)
    needed = math.ceil(power * runs)
    return told[needed - 1] if len(told) >= needed else None
