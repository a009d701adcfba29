"""Pairs of workers of the same code beside each other: by how much processes differ, whatever rounds within one say."""

import time
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

from zbench.ab.interleave import SideName, blocks, rounds_a_turn
from zbench.ab.schedule import BLOCKS_A_LAUNCH, Unit
from zbench.ab.side import Side, SideWorker, warm_up
from zbench.config import MeasureConfig
from zbench.stats import Scale, block_shift

PAIRS = 6


def equal_pairs(side: Side, measure: MeasureConfig, folder: Path, show: Callable[[str], None]) -> list[float]:
    """The log of the second worker's time over the first's, of each of PAIRS pairs. Raises SideFailed.

    Both take turns, and which starts first changes from pair to pair.
    """
    made: list[float] = []
    began_s = time.perf_counter()
    for pair in range(PAIRS):
        left = "" if not made else f", {(PAIRS - pair) * (time.perf_counter() - began_s) / pair:.0f} s left"
        show(f"pair {pair + 1} of {PAIRS} of equal workers{left}")
        made.append(_one_pair(side, measure, folder, ("a", "b") if pair % 2 == 0 else ("b", "a")))
    return made


def _one_pair(side: Side, measure: MeasureConfig, folder: Path, order: tuple[SideName, SideName]) -> float:
    workers: dict[SideName, SideWorker] = {}
    try:
        for name in order:
            workers[name] = SideWorker([replace(side, name=name)], folder / f"worker-{name}.log", measure.timeout_s)
        for worker in workers.values():
            worker.start_importing()
        for worker in workers.values():
            worker.finish_importing()
        for worker in workers.values():
            worker.prepare(time.perf_counter())
        for worker in workers.values():
            worker.knows_beside(workers.values())
        warm = warm_up(workers, measure.max_warmup_rounds, lambda *_: None)
        a_turn = {name: rounds_a_turn(min(latencies)) for name, latencies in warm.items()}
        made = islice(blocks(lambda name, index: workers[name].generate(name, index), a_turn), BLOCKS_A_LAUNCH)
        return block_shift(Unit(tuple(made), 0.0).samples, Scale.RATIO)
    finally:
        for worker in workers.values():
            worker.close()
