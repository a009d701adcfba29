"""How much one command line may ask for; it is said before anything is counted out."""

import math

from hydra.core.override_parser.types import RangeSweep

from zbench.errors import OverrideError

MAX_POINTS = 20_000
"""Points of a sweep: composing more takes a minute, and at a second each they are measured for hours."""


def hold_points(line: str, points: float) -> None:
    """Raise OverrideError, beginning with `line`, for more points than a sweep takes."""
    if points > MAX_POINTS:
        many = f"{points:,.0f}" if points < 1e15 else "endlessly many"
        raise OverrideError(
            f"{line}: {many} points, and a sweep takes at most {MAX_POINTS:,}; list fewer values, or make "
            "several sweeps"
        )


def hold_range(line: str, found: RangeSweep) -> None:
    """Raise OverrideError for a range that never ends, has no numbers, or has too many."""
    if found.start is None or found.stop is None:
        raise OverrideError(f"{line}: a range has a start and a stop, such as range(1,5)")
    if not all(math.isfinite(part) for part in (found.start, found.stop, found.step)) or found.step == 0:
        raise OverrideError(f"{line}: start and stop of a range are finite, its step is not 0; such as range(1,5,2)")
    points = math.ceil((found.stop - found.start) / found.step)
    hold_points(line, points)
    if points < 1:
        raise OverrideError(f"{line}: an empty range; its stop lies beyond its start, such as range(1,5)")
