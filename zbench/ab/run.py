"""One comparison from two sides to a judgement: workers make blocks, and measuring stops when the verdict is clear.

Every block is appended to `<folder>/blocks.jsonl` as it ends, raw, after a first line that says what the sides are
and what took effect on each.
"""

import math
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Protocol

from zbench.ab.interleave import Block
from zbench.ab.launch import Launcher, LaunchListener
from zbench.ab.schedule import LEAST_APART, ABSchedule, Unit, schedule_of
from zbench.ab.side import Side, share_a_pipeline
from zbench.config import MeasureConfig
from zbench.errors import StoreError, cannot_write
from zbench.files import ELSEWHERE, HeldFile
from zbench.hardware.turns import TurnOnDevices
from zbench.stats import Comparison, Judgement, Look, LookSchedule, Scale, Verdict, look

BLOCKS = "blocks.jsonl"

NARROWER = 0.9
"""Two looks later an interval is to be at most this share as wide. Samples that scatter as before make it about 0.7."""


class ABListener(LaunchListener, Protocol):
    """What a comparison tells while it runs."""

    def measured(self, done: int, schedule: ABSchedule, left_s: float, so_far: Look) -> None:
        """So many blocks or launches are on disk; at most `left_s` seconds are to come."""


@dataclass(frozen=True)
class ABResult:
    """What came of it.

    `ended` says why measuring stopped: verdict, last_look, budget, no_narrower, interrupted or invalid_round.
    """

    judgement: Judgement
    blocks: tuple[Block, ...]
    ended: str
    launches: int = 1


@dataclass(frozen=True)
class Bounds:
    """`margin` is the share by which b may be slower. Nothing begins that would not end within the budget."""

    margin: float
    budget_s: float


def compare(
    sides: Sequence[Side],
    bounds: Bounds,
    folder: Path,
    measure: MeasureConfig,
    listener: ABListener,
    should_stop: Callable[[], bool],
    turn: TurnOnDevices,
) -> ABResult:
    """Measure both sides interleaved, in one resident worker if they can share it, else in workers of their own.

    `turn` is the one that it has. b is judged against a. Of `measure` only the time-out and the bound of warm-up apply.

    Raises SideFailed if a side cannot make images (a's, where those of both are none), StoreError if `folder` cannot be
    written, ZbenchError where sides that name the same weights have loaded others.
    """
    began_s = time.perf_counter()
    schedule = schedule_of(shared=share_a_pipeline(*sides), margin=bounds.margin)
    if schedule.of_launches:
        listener.note(
            "each side has a worker of its own, and equal workers differ by 1 % and more where rounds are short: a "
            f"margin of {100 * bounds.margin:g} % takes {schedule.looks.looks[0]} launches of both and more; "
            f"{100 * LEAST_APART:g} % would take one"
        )
    about = {"margin": bounds.margin, "looks": schedule.looks.looks, "level": schedule.looks.level, "of": schedule.unit}
    about |= {"turn": turn.about()}
    with closing(_journal(folder)) as journal:
        ends_s = began_s + bounds.budget_s
        launcher = Launcher(sides, about, folder, measure, journal, listener, should_stop, ends_s)
        with closing(launcher.units(schedule)) as units:
            return _judged(units, schedule, bounds, began_s, listener, should_stop)


def _judged(
    units: Iterable[Unit],
    schedule: ABSchedule,
    bounds: Bounds,
    began_s: float,
    listener: ABListener,
    should_stop: Callable[[], bool],
) -> ABResult:
    made: list[Unit] = []
    widths: dict[int, float] = {}
    for unit in units:
        made.append(unit)
        a_unit_s = sum(each.seconds for each in made) / len(made)
        left_s = bounds.budget_s - (time.perf_counter() - began_s)
        stopping, late = should_stop(), left_s < a_unit_s
        samples = [each.samples for each in made]
        so_far = look(samples, schedule.looks, bounds.margin, ended=stopping or late, unit=schedule.units)
        to_come_s = max(0.0, min(left_s, a_unit_s * (schedule.looks.looks[-1] - len(made))))
        listener.measured(len(made), schedule, to_come_s, so_far)
        stuck = _no_narrower(widths, so_far, schedule.looks)
        if so_far.stop or stuck:
            ended = "interrupted" if stopping else _why(so_far, schedule.looks, late=late, stuck=stuck)
            every = tuple(block for each in made for block in each.blocks)
            return ABResult(so_far.judgement, every, ended, len(made) if schedule.of_launches else 1)
    raise AssertionError("units have no end")


def _why(so_far: Look, plan: LookSchedule, *, late: bool, stuck: bool) -> str:
    if so_far.judgement.verdict is not Verdict.INCONCLUSIVE:
        return "verdict"
    if so_far.blocks == plan.looks[-1]:
        return "last_look"
    return "budget" if late else "no_narrower" if stuck else "verdict"


def _no_narrower(widths: dict[int, float], so_far: Look, plan: LookSchedule) -> bool:
    """Whether past the plan's core the interval shrinks no more; `widths` are those of the looks so far."""
    found = so_far.judgement.outcome
    if not isinstance(found, Comparison) or found.scale is not Scale.RATIO or so_far.blocks not in plan.looks:
        return False
    widths[so_far.blocks] = math.log(found.high / found.low)
    place = plan.looks.index(so_far.blocks)
    if plan.core is None or so_far.blocks <= plan.core or place < 2:
        return False
    return widths[so_far.blocks] > NARROWER * widths.get(plan.looks[place - 2], math.inf)


def _keep_earlier(folder: Path) -> None:
    """Raw rounds of an earlier comparison in the same folder, by the next free name: `blocks.1.jsonl` and so on."""
    earlier = folder / BLOCKS
    if earlier.stat().st_size:
        names = (folder / f"{earlier.stem}.{number}{earlier.suffix}" for number in count(1))
        shutil.copyfile(earlier, next(name for name in names if not name.exists()))


def _journal(folder: Path) -> HeldFile:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        journal = HeldFile(folder / BLOCKS)
        _keep_earlier(folder)
        journal.cut(0)
    except BlockingIOError:
        raise StoreError(
            f"{folder} is in use by another comparison; wait for it, or give another sweep.name="
        ) from None
    except OSError as error:
        raise StoreError(cannot_write(str(folder), error, folder, otherwise=ELSEWHERE)) from error
    return journal
