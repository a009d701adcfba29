"""When warming up is over: the latest rounds have neither shifted nor kept falling. Standard library only.

Rounds cost seconds, so series are short: a verdict is possible from 4 rounds on. Simulated (`tests/stats/`):
stationary noise of 0.5 to 3 % settles after 4 rounds at the median and by the 12th nearly always; a decay of 30 % with
a time constant of 3 rounds and noise of 1 % settles after 10 to 12 rounds, when under 2 % of it is left; one slow
first round is waited out until it has left the window. Rounds must be alike: warm up with one prompt and seed, or
divide each by its pair's own median first.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from zbench.stats.estimate import median
from zbench.stats.trend import drift

TOLERANCE = 0.02  # a shift of so much of the median is none
BOUND = 12
LEAST = 4
WINDOWS = (2, 3)  # rounds compared with as many before: 2 answer early, 3 see past one wild round
IN_NOISE = 0.5  # a shift below this many sigmas of one round is none either
TREND_ROUNDS = 6
TREND_P = 0.1  # two-sided, so one in 20 stationary series looks as if it fell


@dataclass(frozen=True)
class Stationarity:
    """Whether a series has settled, why, and by what figures."""

    settled: bool
    reason: str  # settled, too_few_rounds, shifted, falling, not_a_latency
    shift: float | None = None  # of the latest rounds against those before, over the median; negative: faster
    spread: float | None = None  # of one round, over the median


def is_stationary(series: Sequence[float | None], tolerance: float = TOLERANCE) -> Stationarity:
    """Whether the last rounds of `series` (seconds, in time order, all warm-up rounds so far) have settled.

    Settled means both: for k of 2 or 3, the medians of the last k rounds and of the k before differ by no more than
    `tolerance` of the median or half a round's sigma (sigma from second differences, which a slope does not inflate);
    and the last 6 rounds or fewer do not fall (Kendall's test, with a fall of over half the tolerance across them).
    A missing, non-finite or non-positive latency among the last 6 is never settled. ValueError for a `tolerance` that
    is not positive.
    """
    if not tolerance > 0:
        raise ValueError(f"tolerance={tolerance}: must be positive")
    if len(series) < LEAST:
        return Stationarity(False, "too_few_rounds")
    latest = [value for value in series[-TREND_ROUNDS:] if value is not None and math.isfinite(value) and value > 0]
    if len(latest) < min(len(series), TREND_ROUNDS):
        return Stationarity(False, "not_a_latency")
    scale = median(latest)
    latest = [value / scale for value in latest]
    settled, shift, spread = False, 0.0, 0.0
    for k in WINDOWS:
        if len(latest) < 2 * k or settled:
            continue
        shift = median(latest[-k:]) - median(latest[-2 * k : -k])
        spread = _sigma(latest[-2 * k :])
        settled = abs(shift) <= max(tolerance, IN_NOISE * spread)
    if not settled:
        return Stationarity(False, "shifted", shift, spread)
    trend = drift(latest)
    fall = -trend.per_round * (len(latest) - 1)
    if trend.tau < 0 and trend.p_value <= TREND_P and fall > tolerance / 2:
        return Stationarity(False, "falling", shift, spread)
    return Stationarity(True, "settled", shift, spread)


def warm_from(series: Sequence[float | None], tolerance: float = TOLERANCE, bound: int = BOUND) -> int | None:
    """How many of the first rounds of `series` are warm-up; None while it is not over.

    The fewest rounds at which `is_stationary` holds, at most `bound`, at which warm-up ends in any case: whether it
    had settled by then, `is_stationary(series[:bound])` says. ValueError for a `bound` below 1.
    """
    if bound < 1:
        raise ValueError(f"bound={bound}: must be at least 1")
    for rounds in range(1, min(len(series), bound) + 1):
        if rounds == bound or is_stationary(series[:rounds], tolerance).settled:
            return rounds
    return None


def _sigma(latest: Sequence[float]) -> float:
    """A round's sigma: second differences have √6 of it, and 0.6745 of theirs is the median size."""
    bends = [
        abs(before - 2 * here + after) for before, here, after in zip(latest, latest[1:], latest[2:], strict=False)
    ]
    return median(bends) / math.sqrt(6) / 0.6745
