"""How far samples scatter and how far two sets lie apart, in measures that one wild round cannot move.

Standard library only.
"""

import math
from bisect import bisect_left, bisect_right
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


def effect_size(new: Sequence[float], base: Sequence[float]) -> float | None:
    """The shift of the median over the pooled spread, without unit, positive if `new` is larger; 1 is one sigma.

    A robust Cohen's d: spreads are median absolute deviations, pooled by their squares weighed with n - 1. None where
    both spreads are 0 or neither set has two samples. ValueError for no samples or one that is not finite.
    """
    spreads = [median_absolute_deviation(new), median_absolute_deviation(base)]
    weights = [len(new) - 1, len(base) - 1]
    if sum(weights) == 0:
        return None
    variance = sum(weight * spread**2 for weight, spread in zip(weights, spreads, strict=True)) / sum(weights)
    return None if variance == 0 else (median(new) - median(base)) / math.sqrt(variance)


def cliffs_delta(new: Sequence[float], base: Sequence[float]) -> float:
    """The chance that a sample of `new` exceeds one of `base`, less that of the opposite; -1 to 1 (Cliff 1993).

    ValueError for no samples or one that is not finite.
    """
    _check(new)
    _check(base)
    ordered = sorted(base)
    wins = sum(bisect_left(ordered, sample) for sample in new)
    losses = sum(len(ordered) - bisect_right(ordered, sample) for sample in new)
    return (wins - losses) / (len(new) * len(base))


def _check(samples: Sequence[float]) -> None:
    if not samples:
        raise ValueError("no samples")
    if not all(math.isfinite(sample) for sample in samples):
        raise ValueError("a sample is not finite")
