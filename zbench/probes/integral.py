"""The integral of a sampled rate: joules of watts, bytes of bytes a second; it says nothing of time outside samples."""

from collections.abc import Sequence
from itertools import pairwise


def integral(points: Sequence[tuple[float, float]]) -> float | None:
    """By trapezoids over (seconds, rate) in time order; None under two points."""
    if len(points) < 2:
        return None
    return sum((t1 - t0) * (rate0 + rate1) / 2 for (t0, rate0), (t1, rate1) in pairwise(points))
