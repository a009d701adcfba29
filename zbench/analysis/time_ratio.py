"""How much longer one trial takes than another of the same work, of raw requests.

Example: F1B0_W2 and F1B0_W4 took turns with the uncached trial, one at noon and one at night. Each is compared with
what the uncached trial took in its own turns; so it does not matter that the machine was slower at night. Where both
had their turns in one window they are compared with each other. What took turns with none is compared as it was
measured.
"""

import math
from dataclasses import dataclass

from zbench.analysis.speedup import companion_id, equal_workers, neighbours_s
from zbench.measurement import Measurement, Request
from zbench.measurement.neighbours import side_by_side_s
from zbench.record import Record
from zbench.stats import Comparison, SpeedUp, ratio_of_rounds, speedup_by_turns

SIGMAS = 1.96
"""Of a normal distribution 95 % lie so many standard deviations around its centre."""


@dataclass(frozen=True)
class TimeRatio:
    """New over base, with its 95 % interval: below 1 the new one is faster."""

    estimate: float
    low: float
    high: float


def time_ratio(new: Record, base: Record, *, one_process: bool) -> TimeRatio | None:
    """None for too few rounds, and where a trial was not measured. `one_process`: whether the same process served both.

    What two processes of the same code differ by is in the interval, unless each was compared by turns.
    """
    ours, theirs = new.valid_measurement, base.valid_measurement
    if ours is None or theirs is None:
        return None
    by_turns = _by_turns(ours, theirs)
    if by_turns is not None:
        return _turned(by_turns)
    found = ratio_of_rounds(ours.paired_latencies_s, theirs.paired_latencies_s)
    if not isinstance(found, Comparison):
        return None
    further = 0.0 if one_process else SIGMAS * equal_workers(new)
    low, high = (math.hypot(math.log(found.estimate / bound), further) for bound in (found.low, found.high))
    return TimeRatio(found.estimate, found.estimate * math.exp(-low), found.estimate * math.exp(high))


def _by_turns(ours: Measurement, theirs: Measurement) -> SpeedUp | None:
    """How much faster `ours` is, if what it took turns with leads to `theirs`."""
    beside, others = companion_id(ours), companion_id(theirs)
    if beside == theirs.trial_id:
        return speedup_by_turns(neighbours_s(ours))
    if others == ours.trial_id:
        return _inverse(speedup_by_turns(neighbours_s(theirs)))
    if beside is None or beside != others:
        return None
    if _of(ours, beside) == _of(theirs, beside):  # the same calls: one window
        return speedup_by_turns(side_by_side_s(_of(ours, ours.trial_id), _of(theirs, theirs.trial_id)))
    mine, back = speedup_by_turns(neighbours_s(ours)), _inverse(speedup_by_turns(neighbours_s(theirs)))
    return None if mine is None or back is None else mine.after(back)


def _of(measurement: Measurement, trial_id: str) -> list[Request]:
    return [r for r in measurement.window.requests if r.trial_id == trial_id]


def _inverse(found: SpeedUp | None) -> SpeedUp | None:
    return None if found is None else SpeedUp(1 / found.ratio, found.variance, found.freedom)


def _turned(faster: SpeedUp) -> TimeRatio | None:
    interval = faster.interval
    return None if interval is None else TimeRatio(1 / faster.ratio, 1 / interval[1], 1 / interval[0])
