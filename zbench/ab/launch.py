"""Workers that are started, warmed up and make blocks; every block is on disk before anybody judges it."""

import json
import math
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any, Protocol

from zbench.ab.interleave import Block, SideName, blocks, rounds_a_turn
from zbench.ab.schedule import BLOCKS_A_LAUNCH, ABSchedule, Unit, start_orders
from zbench.ab.side import (
    MOST_AGAIN,
    ImagesInvalid,
    Side,
    SideFailed,
    SideWorker,
    refuse_other_content,
    share_a_pipeline,
    warm_up,
)
from zbench.config import MeasureConfig
from zbench.errors import StoreError
from zbench.files import HeldFile
from zbench.measurement import Request
from zbench.probes.device import FOREIGN, THROTTLED
from zbench.stats import is_stationary
from zbench.stats.stationary import LEAST

Workers = dict[SideName, SideWorker]


class LaunchListener(Protocol):
    """What launching tells."""

    def note(self, text: str) -> None:
        """A sentence the user should see."""

    def launching(self, launch: int) -> None:
        """Workers are started, for the first time (0) or again."""

    def warming(self, side: SideName, latency_s: float) -> None:
        """A warm-up round."""


class Launcher:
    """Both sides of a comparison and where it keeps its blocks. Of `measure` the time-out and warm-up's bound apply."""

    def __init__(
        self,
        sides: Sequence[Side],
        about: Mapping[str, Any],
        folder: Path,
        measure: MeasureConfig,
        journal: HeldFile,
        listener: LaunchListener,
        should_stop: Callable[[], bool],
        ends_s: float = math.inf,
    ) -> None:
        """`about` is what the journal's first line says besides the sides. Who asks `should_stop` is measuring.

        `ends_s`, by `time.perf_counter`: of a launch no block but the first begins that would end later.
        """
        self._sides, self._about, self._folder, self._measure = sides, about, folder, measure
        self._journal, self._listener, self._should_stop = journal, listener, should_stop
        self._began_s, self._ends_s = time.perf_counter(), ends_s
        self._written = 0  # blocks
        self._against = Counter[str]()  # rounds of all launches that the GPU's state speaks against, by the reason
        self._clocks_mhz: dict[SideName, list[float]] = {}  # of each of their valid rounds

    def units(self, schedule: ABSchedule) -> Generator[Unit]:
        """What the schedule counts, without end. Raises as `compare` does."""
        try:
            if not schedule.of_launches:
                with self._launched(("a", "b"), 0) as made:
                    for block in made:
                        yield Unit((block,), block.seconds)
            for number, order in enumerate(start_orders("".join(side.trial.trial_id for side in self._sides))):
                began_s = time.perf_counter()
                with self._launched(order, number) as made:
                    few = tuple(self._few_of(made))
                yield Unit(few, time.perf_counter() - began_s)
        finally:
            self._tell_against()
            self._tell_clocks()

    @contextmanager
    def _launched(self, order: Sequence[SideName], launch: int) -> Iterator[Iterator[Block]]:
        """Blocks of fresh workers that are warm, started in this order; without end."""
        self._listener.launching(launch)
        by_name = {side.name: side for side in self._sides}
        groups = [list(self._sides)] if share_a_pipeline(*self._sides) else [[by_name[name]] for name in order]
        workers: Workers = {}
        try:
            self._start(groups, workers)
            for worker in workers.values():
                worker.knows_beside(workers.values())
            effective = {name: worker.effective[name] for name, worker in workers.items()}
            refuse_other_content(self._sides, effective)
            if not self._written:
                self._append(self._head(workers, effective))
                self._listener.note(_cold(workers))
            yield self._blocks(workers, self._warm_up(workers), launch)
        except ImagesInvalid as failure:
            raise _base_first(failure, workers) from None
        finally:
            for worker in set(workers.values()):
                self._against += worker.against
                for name, clocks in worker.clocks_mhz.items():
                    self._clocks_mhz.setdefault(name, []).extend(clocks)
                worker.close()

    def _tell_against(self) -> None:
        again = f"each was made again, up to {MOST_AGAIN} times"
        throttled = [(cause.removeprefix(THROTTLED), n) for cause, n in self._against.most_common() if cause != FOREIGN]
        if throttled:
            causes = ", ".join(f"{cause} in {n}" for cause, n in throttled)
            self._listener.note(f"the GPU was throttled in rounds ({causes}); {again}; see to its cooling and power")
        if self._against[FOREIGN]:
            rounds = f"in {self._against[FOREIGN]} rounds; {again}; stop it, or compare on another GPU"
            self._listener.note(f"a process that is not of this comparison computed on the GPU {rounds}")

    def _tell_clocks(self) -> None:
        """Of both sides, where NVML said them: one that ran at another clock is not slower by its code."""
        if len(self._clocks_mhz) == len(self._sides):
            means = ", ".join(f"{name} {fmean(clocks):.0f} MHz" for name, clocks in sorted(self._clocks_mhz.items()))
            self._listener.note(f"GPU clock on average, warm-up included: {means}")

    def _start(self, groups: Sequence[list[Side]], workers: Workers) -> None:
        """Add workers that made their sides' first images. b's failure waits for a, which may fail in the same way.

        They import at the same time, each on a core of its own, and load one after another."""
        started = []
        for group in groups:
            log = self._folder / f"worker-{''.join(side.name for side in group)}.log"
            started.append(SideWorker(group, log, self._measure.timeout_s))
            workers |= {side.name: started[-1] for side in group}
        of_new: SideFailed | None = None
        for step in (SideWorker.start_importing, SideWorker.finish_importing, self._prepare):
            for worker in list(started):
                try:
                    step(worker)
                except SideFailed as failure:
                    if failure.side == "a":
                        raise
                    of_new = failure
                    started.remove(worker)
        if of_new is not None:
            raise of_new

    def _prepare(self, worker: SideWorker) -> None:
        worker.prepare(self._began_s)

    def _warm_up(self, workers: Workers) -> dict[SideName, int]:
        """How many rounds a turn of each side is to be."""
        bound = self._measure.max_warmup_rounds
        series = warm_up(workers, bound, self._listener.warming)
        for name, latencies in series.items():
            settled = any(is_stationary(latencies[:rounds]).settled for rounds in range(LEAST, len(latencies) + 1))
            if not settled and bound >= LEAST:
                self._listener.note(f"--{name} had not settled after {bound} warm-up rounds")
        return {name: rounds_a_turn(min(latencies)) for name, latencies in series.items()}

    def _blocks(self, workers: Workers, a_turn: Mapping[SideName, int], launch: int) -> Iterator[Block]:
        self._should_stop()  # measuring begins: the first block is not lost to a Ctrl-C right after it
        for block in blocks(lambda name, index: workers[name].generate(name, index), a_turn):
            line = {"block": self._written, "launch": launch, "a": _plain(block.a), "b": _plain(block.b)}
            self._append(line)
            self._written += 1
            yield block

    def _few_of(self, made: Iterator[Block]) -> Iterator[Block]:
        for block in islice(made, BLOCKS_A_LAUNCH):
            yield block
            if self._should_stop() or time.perf_counter() + block.seconds > self._ends_s:
                return

    def _head(self, workers: Workers, effective: Mapping[SideName, Mapping[str, Any]]) -> dict[str, object]:
        return {
            "format": "zbench-ab",
            **self._about,
            "workers": len(set(workers.values())),
            "cold": {
                name: {"load_s": worker.load_s, "first_latency_s": worker.first_latency_s[name]}
                for name, worker in workers.items()
            },
            "environment": workers["a"].environment,
            "sides": {
                side.name: {
                    "trial": side.trial.to_dict(),
                    "label": side.trial.label,
                    "revision": side.revision,
                    "python": side.python,
                    "environment": workers[side.name].environment,
                    "effective": effective[side.name],  # its content included
                }
                for side in self._sides
            },
        }

    def _append(self, line: dict[str, object]) -> None:
        """Raises StoreError, also where somebody removed or replaced the file."""
        problem = self._journal.changed()
        if problem is not None:
            raise StoreError(f"{self._journal.path} {problem}, so the comparison stops; the same command begins anew")
        self._journal.append(json.dumps(line, ensure_ascii=False, allow_nan=False))


def _cold(workers: Workers) -> str:
    """What starting cost before anything is compared; one load serves sides that share a pipeline."""
    own = len(set(workers.values())) > 1
    loads = {worker: name if own else "both" for name, worker in sorted(workers.items(), reverse=True)}
    said = [f"{whose} loaded in {w.load_s:.2g} s" for w, whose in reversed(loads.items()) if w.load_s is not None]
    said += [f"first image of {name} {worker.first_latency_s[name]:.2g} s" for name, worker in sorted(workers.items())]
    return f"cold: {', '.join(said)}"


def _base_first(failure: ImagesInvalid, workers: Workers) -> ImagesInvalid:
    """The failure of a where its image of the same prompt and seed is none either, whoever's turn came first."""
    if failure.side == "b":
        try:
            workers["a"].generate("a", failure.index)
        except ImagesInvalid as of_base:
            return of_base
        except SideFailed:
            pass  # it had made images before
    return failure


def _plain(rounds: Sequence[Request]) -> list[dict[str, object]]:
    return [asdict(r) for r in rounds]
