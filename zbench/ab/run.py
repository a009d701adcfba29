"""One comparison from two sides to a judgement: warm up, measure blocks, stop when the verdict is clear.

Two workers of the same code differ, by 1 % at 40 ms an image on two shared cores (standard deviation of 8 pairs), and
no number of rounds shows it; only sides that share a worker are free of that.

Every block is appended to `<folder>/blocks.jsonl` as it ends, raw, after a first line that says what the sides are
and what took effect on each.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from zbench.ab.interleave import Block, SideName, blocks, rounds_a_turn, turn_medians
from zbench.ab.side import (
    ImagesInvalid,
    Side,
    SideFailed,
    SideWorker,
    refuse_other_content,
    share_a_pipeline,
    warm_up,
)
from zbench.config import MeasureConfig
from zbench.errors import StoreError, cannot_write
from zbench.files import ELSEWHERE, HeldFile
from zbench.hardware.turns import TurnOnDevices
from zbench.measurement import Request
from zbench.stats import BlockSamples, Judgement, Look, LookSchedule, is_stationary, look
from zbench.stats.stationary import LEAST

BLOCKS = "blocks.jsonl"

LEAST_APART = 0.03
"""A smaller margin may blame on the code what only differs from worker to worker."""


class ABListener(Protocol):
    """What a comparison tells while it runs."""

    def note(self, text: str) -> None:
        """A sentence the user should see."""

    def warming(self, side: SideName, latency_s: float) -> None:
        """A warm-up round."""

    def measured(self, block: Block, so_far: Look) -> None:
        """A block is on disk."""


@dataclass(frozen=True)
class ABResult:
    """What came of it. `ended` says why measuring stopped: verdict, last_look, interrupted or invalid_round."""

    judgement: Judgement
    blocks: tuple[Block, ...]
    ended: str


def compare(
    sides: Sequence[Side],
    plan: LookSchedule,
    margin: float,
    folder: Path,
    measure: MeasureConfig,
    listener: ABListener,
    should_stop: Callable[[], bool],
    turn: TurnOnDevices,
) -> ABResult:
    """Measure both sides interleaved, in one resident worker if they can share it, else in one each; `turn` is theirs.

    b is judged against a. Of `measure` only the time-out and the bound of warm-up apply.

    Raises SideFailed if a side cannot make images (a's, where those of both are none), StoreError if `folder` cannot be
    written, ZbenchError where sides that name the same weights have loaded others.
    """
    workers: dict[SideName, SideWorker] = {}
    shared = share_a_pipeline(*sides)
    if not shared and margin < LEAST_APART:
        listener.note(
            "each side has a worker of its own, and equal workers differ by 1 % and more where rounds are short: a "
            f"margin of {100 * margin:g} % may blame that on a side, {100 * LEAST_APART:g} % is safer"
        )
    try:
        with closing(_journal(folder)) as journal:
            began_s = time.perf_counter()
            for group in [sides] if shared else [[side] for side in sides]:
                names = "".join(side.name for side in group)
                worker = SideWorker(group, folder / f"worker-{names}.log", measure.timeout_s)
                workers |= {side.name: worker for side in group}
                worker.prepare(began_s)
            effective = {name: worker.effective[name] for name, worker in workers.items()}
            refuse_other_content(sides, effective)
            _append(journal, _head(sides, plan, margin, workers, effective) | {"turn": turn.about()})
            a_turn = _warm_up(workers, measure.max_warmup_rounds, listener)
            return _measure(workers, a_turn, plan, margin, journal, listener, should_stop)
    except ImagesInvalid as failure:
        raise _base_first(failure, workers) from None
    finally:
        for worker in set(workers.values()):
            worker.close()


def _base_first(failure: ImagesInvalid, workers: Mapping[SideName, SideWorker]) -> ImagesInvalid:
    """The failure of a where its image of the same prompt and seed is none either, whoever's turn came first."""
    if failure.side == "b":
        try:
            workers["a"].generate("a", failure.index)
        except ImagesInvalid as of_base:
            return of_base
        except SideFailed:
            pass  # it had made images before
    return failure


def _warm_up(workers: dict[SideName, SideWorker], bound: int, listener: ABListener) -> dict[SideName, int]:
    """How many rounds a turn of each side is to be."""
    series = warm_up(workers, bound, listener.warming)
    for name, latencies in series.items():
        settled = any(is_stationary(latencies[:rounds]).settled for rounds in range(LEAST, len(latencies) + 1))
        if not settled and bound >= LEAST:
            listener.note(f"--{name} had not settled after {bound} warm-up rounds")
    return {name: rounds_a_turn(min(latencies)) for name, latencies in series.items()}


def _measure(
    workers: dict[SideName, SideWorker],
    a_turn: dict[SideName, int],
    plan: LookSchedule,
    margin: float,
    journal: HeldFile,
    listener: ABListener,
    should_stop: Callable[[], bool],
) -> ABResult:
    made: list[Block] = []
    should_stop()  # whoever is asked knows that blocks have begun: the first is not lost to a Ctrl-C right after it
    for block in blocks(lambda name, index: workers[name].generate(name, index), a_turn):
        made.append(block)
        _append(journal, {"block": block.index, "a": _plain(block.a), "b": _plain(block.b)})
        stopping = should_stop()
        so_far = look(samples(made), plan, margin, ended=stopping)
        listener.measured(block, so_far)
        if so_far.stop:
            ended = "interrupted" if stopping else "last_look" if len(made) == plan.looks[-1] else "verdict"
            return ABResult(so_far.judgement, tuple(made), ended)
    raise AssertionError("blocks have no end")


def samples(made: Sequence[Block]) -> list[BlockSamples]:
    """Seconds of a round in the blocks' turns, a as base and b as new."""
    return [
        BlockSamples(turn_medians([r.latency_s for r in block.a]), turn_medians([r.latency_s for r in block.b]))
        for block in made
    ]


def _head(
    sides: Sequence[Side],
    plan: LookSchedule,
    margin: float,
    workers: Mapping[SideName, SideWorker],
    effective: Mapping[SideName, Mapping[str, Any]],
) -> dict[str, object]:
    return {
        "format": "zbench-ab",
        "margin": margin,
        "looks": plan.looks,
        "level": plan.level,
        "workers": len(set(workers.values())),
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
            for side in sides
        },
    }


def _plain(rounds: Sequence[Request]) -> list[dict[str, object]]:
    return [asdict(r) for r in rounds]


def _journal(folder: Path) -> HeldFile:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        journal = HeldFile(folder / BLOCKS)
        journal.cut(0)
    except BlockingIOError:
        raise StoreError(
            f"{folder} is in use by another comparison; wait for it, or give another sweep.name="
        ) from None
    except OSError as error:
        raise StoreError(cannot_write(str(folder), error, folder, otherwise=ELSEWHERE)) from error
    return journal


def _append(journal: HeldFile, line: dict[str, object]) -> None:
    """Raises StoreError, also where somebody removed or replaced the file."""
    problem = journal.changed()
    if problem is not None:
        raise StoreError(f"{journal.path} {problem}, so the comparison stops; the same command begins anew")
    journal.append(json.dumps(line, ensure_ascii=False, allow_nan=False))
