"""Intervals of the median and any quantile, between order statistics: they keep their rate where a bootstrap fails.

A percentile bootstrap of 20 to 100 samples' median covered it 91 to 96 times in 100 instead of 95: a resampled median
takes few distinct values. Interpolated order statistics cover within 0.2 points of 95 % for the median and within 0.9
for other quantiles, on normal, log-normal and bimodal samples alike (`tests/stats/test_quantiles.py` repeats it).
"""

import math
from collections.abc import Callable, Sequence


def quantile_interval(samples: Sequence[float], q: float = 0.5, level: float = 0.95) -> tuple[float, float] | None:
    """An interval that holds the true `q` quantile about `level` of the time, in the samples' unit.

    The median's is Hettmansperger and Sheather's (1986), any other quantile's Hutson's (1999); both are linear between
    two neighbouring order statistics. None where not even the smallest and the largest sample are far enough out: at
    95 % below 6 samples for the median, below 36 for the 0.9 quantile. Samples must be independent; for a promise that
    holds exactly at any number of samples take `median_interval`, which is wider. ValueError for a `q` or `level` not
    between 0 and 1, no samples, a NaN or an infinity.
    """
    if not 0 < q < 1:
        raise ValueError(f"q={q}: must lie between 0 and 1")
    if not 0 < level < 1:
        raise ValueError(f"level={level}: must lie between 0 and 1")
    if not samples:
        raise ValueError("no samples")
    if not all(math.isfinite(sample) for sample in samples):
        raise ValueError("a sample is not finite")
    n = len(samples)
    ranks = _median_ranks(n, level) if q == 0.5 else _fractional_ranks(n, q, level)
    if ranks is None:
        return None
    ordered = sorted(samples)
    return _between(ordered, ranks[0]), _between(ordered, ranks[1])


def _median_ranks(n: int, level: float) -> tuple[float, float] | None:
    """Hettmansperger and Sheather 1986, equation 2.4: between the ranks whose exact rates enclose `level`."""
    wide, tail = 1, 1  # of 2^n; the interval of ranks wide and n + 1 - wide covers 1 - 2 tail / 2^n
    if 1 - 2 * tail / 2**n < level:
        return None
    while wide < n // 2:
        more = tail + math.comb(n, wide)
        if 1 - 2 * more / 2**n < level:
            break
        wide, tail = wide + 1, more
    rate, narrower = 1 - 2 * tail / 2**n, 1 - 2 * (tail + math.comb(n, wide)) / 2**n
    share = (rate - level) / (rate - narrower)
    rank = wide + (n - wide) * share / (wide + (n - 2 * wide) * share)
    return min(rank, (n + 1) / 2), max(n + 1 - rank, (n + 1) / 2)


def _fractional_ranks(n: int, q: float, level: float) -> tuple[float, float] | None:
    """Hutson 1999: the ranks r at which I_q(r, n + 1 - r), the chance that the r-th is below the quantile, is right."""
    from scipy.special import betainc

    def below(rank: float) -> float:
        return float(betainc(rank, n + 1 - rank, q))

    tail = (1 - level) / 2
    if below(1) < 1 - tail or below(n) > tail:
        return None
    return _falls_to(1 - tail, below, n), _falls_to(tail, below, n)


def _falls_to(target: float, falling: Callable[[float], float], n: int) -> float:
    low, high = 1.0, float(n)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > target else (low, middle)
    return (low + high) / 2


def _between(ordered: Sequence[float], rank: float) -> float:
    """The order statistic of a fractional rank, 1 for the smallest."""
    below = math.floor(rank)
    if below >= len(ordered):
        return ordered[-1]
    return ordered[below - 1] + (ordered[below] - ordered[below - 1]) * (rank - below)
