"""Where a projection's figures lie nine times in ten: of a latency, and of a speed-up of two projections.

It refuses to make up a range for records that were projected before there was one.
"""

import math
from statistics import median

from zbench.measurement import Measurement
from zbench.record import Record
from zbench.trial import Trial

Ends = tuple[float, float]


def latency_ends(measurement: Measurement) -> Ends | None:
    """Of the median of its rounds; None where it is measured, or older."""
    rounds = measurement.projection.rounds if measurement.projection is not None else []
    ends = [(r.low_s, r.high_s) for r in rounds if r.low_s is not None and r.high_s is not None]
    if not ends or len(ends) < len(rounds):
        return None
    return median(low for low, _ in ends), median(high for _, high in ends)


def memory_ends(measurement: Measurement, trial: Trial) -> Ends | None:
    """Of the peak on hardware that is not here, bytes."""
    projection = measurement.projection
    if projection is None or not projection.image_parts_s or trial.hardware is None:
        return None
    off = 1 + trial.hardware.efficiency.spread.memory
    return projection.peak_device_bytes / off, projection.peak_device_bytes * off


def speedup_ends(speedup: float, record: Record, baseline: Record) -> Ends | None:
    """Of a speed-up of one projection over another onto the same hardware.

    What both have in common is off in both alike and cancels out: only what one has more of than the other counts.
    """
    ours, theirs = record.valid_measurement, baseline.valid_measurement
    onto, other = record.trial.hardware, baseline.trial.hardware
    if ours is None or theirs is None or onto is None or other is None or onto.name != other.name:
        return None
    if ours.projection is None or theirs.projection is None:
        return None
    parts, others = ours.projection.image_parts_s, theirs.projection.image_parts_s
    total, whole = sum(parts.values()), sum(others.values())
    if not total or not whole:
        return None
    spread = vars(onto.efficiency.spread)
    moved = {name: abs(parts.get(name, 0.0) / total - others.get(name, 0.0) / whole) for name in {*parts, *others}}
    model = spread["model"] if record.trial.compute != baseline.trial.compute else 0.0
    off = 1 + math.hypot(model, *(share * spread.get(name, 0.0) for name, share in moved.items()))
    return speedup / off, speedup * off
