"""How far samples scatter, in measures that one wild round cannot move.

Standard library only.
"""

import math
from collections.abc import Sequence

from zbench.stats.estimate import median

NORMAL = 1.482602218505602  # 1 / Φ⁻¹(3/4): makes the median absolute deviation a normal distribution's sigma


def median_absolute_deviation(samples: Sequence[float]) -> float:
    """1.4826 times the median distance from the median, in the samples' unit (Hampel 1974).

    It is sigma for normal samples; half of them may be wild. ValueError for no samples or one that is not finite.
    """
    _check(samples)
    centre = median(samples)
    return NORMAL * median([abs(sample - centre) for sample in samples])


def relative_spread(samples: Sequence[float]) -> float | None:
    """The median absolute deviation over the median's size, without unit; None for a median of 0. Raises as it does."""
    spread = median_absolute_deviation(samples)
    centre = median(samples)
    return None if centre == 0 else spread / abs(centre)


def _check(samples: Sequence[float]) -> None:
    if not samples:
        raise ValueError("no samples")
    if not all(math.isfinite(sample) for sample in samples):
        raise ValueError("a sample is not finite")
