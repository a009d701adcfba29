"""How much faster a trial is than its baseline, and how it was measured; always of raw requests.

Example: of `compute=eager,compiled cache=none,dbcache` eager DBCache took turns with the baseline itself, eager without
a cache: *paired*. Compiled DBCache took turns with compiled without a cache; its speed-up over that is paired, and that
one's over the baseline is not: *chained*. A trial that took turns with none is compared with the baseline as both were
at their times: *unpaired*.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from zbench.measurement import Measurement
from zbench.measurement.neighbours import Image, side_by_side_s
from zbench.record import Record
from zbench.stats import SpeedUp, speedup_between, speedup_by_turns

Way = Literal["paired", "chained", "unpaired"]

EQUAL_WORKERS = 0.01
"""Standard deviation by which the times of two processes of the same code differ, as a share, where `zbench doctor
--noise` has not measured it: of 8 pairs of workers on two shared cores. No rounds within a process show it, so what is
not paired has it in its interval."""


@dataclass(frozen=True)
class Faster:
    """A speed-up over the baseline."""

    speedup: SpeedUp
    way: Way | None  # None: the baseline itself, a projection or a load


def companion_id(measurement: Measurement) -> str | None:
    """The uncached trial whose requests took turns with its own in the window; None: there was none."""
    ours = measurement.trial_id
    return next((r.trial_id for r in measurement.window.requests if r.trial_id != ours), None)


def requests_by_turns(records: Iterable[Record]) -> tuple[int, int]:
    """Requests of these trials in their windows, and of the uncached trials that took turns with them besides: those of
    a baseline that was measured in its turns with others are its own.

    Those of one window are in the record of each trial that had its turns there. Windows of several workers may have
    begun at the same time; no two calls of one trial lasted from the same moment to the same.
    """
    measured = [record.measurement for record in records if record.measurement is not None]
    own: set[tuple[object, ...]] = set()
    beside: set[tuple[object, ...]] = set()
    for m in measured:
        for r in m.window.requests:
            call = m.window.started_at, r.trial_id, r.index, r.sent_s, r.done_s
            (own if r.trial_id == m.trial_id else beside).add(call)
    return sum(len(m.requests) for m in measured), len(beside - own)


def neighbours_s(measurement: Measurement) -> list[tuple[Image, float, float]]:
    """Image, its own seconds and the companion's of the same turn, of the requests that count."""
    requests, ours = measurement.window.requests, measurement.trial_id
    return side_by_side_s((r for r in requests if r.trial_id == ours), (r for r in requests if r.trial_id != ours))


def speedup_of(record: Record, baseline: Record | None, companion: Record | None) -> Faster | None:
    """None without a baseline, or where one is measured and the other projected.

    `companion` is the record of the uncached trial that took turns with this one, where the sweep has it. Without it
    those of its requests count that lie in the trial's own window.
    """
    ours, theirs = record.valid_measurement, baseline.valid_measurement if baseline is not None else None
    if ours is None or theirs is None or theirs.sources.get("latency") != ours.sources.get("latency"):
        return None
    between = speedup_between(ours.paired_latencies_s, theirs.paired_latencies_s)
    if between is None or record.is_baseline or ours.projection is not None or record.trial.workload.is_load:
        return None if between is None else Faster(SpeedUp(between.ratio), None)
    paired = speedup_by_turns(neighbours_s(ours))
    of_processes = equal_workers(record) ** 2
    if paired is None:
        return Faster(between.after(SpeedUp(1.0, 0.0), of_processes), "unpaired")
    if companion_id(ours) == record.baseline_id:
        return Faster(paired, "paired")
    uncached = _of_companion(ours, companion)
    further = speedup_between(uncached, theirs.paired_latencies_s)
    if further is None:
        return Faster(between.after(SpeedUp(1.0, 0.0), of_processes), "unpaired")
    return Faster(paired.after(further, of_processes), "chained")


def equal_workers(record: Record) -> float:
    """By how much processes of the same code differ where it was measured, as a share."""
    measured, _ = measured_noise(record)
    return EQUAL_WORKERS if measured is None else measured


def measured_noise(record: Record) -> tuple[float | None, str | None]:
    """The same where that was measured on the trial's device, and when and of what it was; a share of None with words:
    what was measured is of another machine or software."""
    environment, device = record.environment, record.trial.compute.device
    noise = environment.get("noise")
    if noise is not None:
        entry = noise.get(device) or {}
        return entry.get("share"), entry.get("told")
    of_other_device = device == "cpu" and environment.get("devices")  # it was the GPU's
    return (None if of_other_device else environment.get("equal_workers")), None


def _of_companion(ours: Measurement, companion: Record | None) -> list[tuple[Image, float]]:
    known = None if companion is None else companion.valid_measurement
    if known is not None and known.paired_latencies_s:
        return known.paired_latencies_s
    return [
        ((r.prompt_id, r.seed), r.latency_s) for r in ours.window.requests if r.valid and r.trial_id != ours.trial_id
    ]
