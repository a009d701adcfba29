"""Whether a series of rounds creeps up or down, and by how much a round; standard library only."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from zbench.stats.estimate import median

EXACT = 50  # rounds up to which the chance of a trend is counted out, not approximated


@dataclass(frozen=True)
class Drift:
    """A trend over rounds."""

    per_round: float  # Theil–Sen slope, in the series' unit a round
    tau: float  # Kendall's tau-b, -1 to 1
    p_value: float  # two-sided: how often a series without trend looks at least as trended


def drift(series: Sequence[float]) -> Drift:
    """The Theil–Sen slope (Sen 1968) and Kendall's test against the order of rounds (Mann 1945).

    Without ties and up to 50 rounds the p-value is exact, else normal with the variance corrected for ties, without a
    correction for continuity: as scipy.stats.kendalltau has it. A constant series has no trend: slope 0, tau 0, p 1.
    ValueError for fewer than two rounds or one that is not finite.
    """
    n = len(series)
    if n < 2:
        raise ValueError("a trend needs at least two rounds")
    if not all(math.isfinite(sample) for sample in series):
        raise ValueError("a sample is not finite")
    slopes = [(series[j] - series[i]) / (j - i) for i in range(n) for j in range(i + 1, n)]
    score = sum((slope > 0) - (slope < 0) for slope in slopes)
    pairs = n * (n - 1) // 2
    ties = [count for count in Counter(series).values() if count > 1]
    untied = pairs - sum(count * (count - 1) // 2 for count in ties)
    if untied == 0:
        return Drift(0.0, 0.0, 1.0)
    tau = score / math.sqrt(untied * pairs)
    exact = not ties and n <= EXACT
    return Drift(median(slopes), tau, _exact_p(n, abs(score)) if exact else _normal_p(n, score, ties))


def _exact_p(n: int, score: int) -> float:
    """The share of the n! orders with a score at least as far from 0 (Kendall 1970, chapter 5)."""
    counts = _inversions(n)
    pairs = n * (n - 1) // 2
    most = (pairs - score) // 2  # inversions of a score at least as high
    return min(1.0, 2 * sum(counts[: most + 1]) / math.factorial(n))


@lru_cache(maxsize=64)
def _inversions(n: int) -> tuple[int, ...]:
    """How many orders of n rounds have 0, 1, 2, ... inversions."""
    counts = [1]
    for size in range(2, n + 1):
        longer = [0] * (len(counts) + size - 1)
        for inversions, ways in enumerate(counts):
            for more in range(size):
                longer[inversions + more] += ways
        counts = longer
    return tuple(counts)


def _normal_p(n: int, score: int, ties: Sequence[int]) -> float:
    variance = (n * (n - 1) * (2 * n + 5) - sum(t * (t - 1) * (2 * t + 5) for t in ties)) / 18
    return math.erfc(abs(score) / math.sqrt(2 * variance))
