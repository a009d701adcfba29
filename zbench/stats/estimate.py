"""Median, quantiles and the median's confidence interval, from raw samples.

It assumes no distribution and refuses to invent what few samples cannot give: with less than six
there is no interval that covers the median 95 times in 100, so there is none. Standard library
only: the parent process and the worker both import it, and `zbench --help` must stay quick.
"""

import math
from collections.abc import Sequence


def median(samples: Sequence[float]) -> float:
    """The middle sample, or the mean of the middle two. ValueError for no samples or a NaN."""
    return quantile(samples, 0.5)


def quantile(samples: Sequence[float], q: float) -> float:
    """The `q` quantile, linear between order statistics (Hyndman and Fan 1996, type 7; numpy's default).

    `q` is within 0 and 1. ValueError for another `q`, no samples or a NaN.
    """
    if not 0 <= q <= 1:
        raise ValueError(f"q={q}: must be within 0 and 1")
    ordered = _ordered(samples)
    position = q * (len(ordered) - 1)
    below = math.floor(position)
    above = math.ceil(position)
    if below == above:
        return ordered[below]
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def median_interval(samples: Sequence[float], confidence: float = 0.95) -> tuple[float, float] | None:
    """An interval that holds the true median at least `confidence` of the time, whatever the distribution.

    The number of samples below the median is Binomial(n, 1/2), so the k-th smallest and the k-th
    largest sample enclose it with probability 1 - 2 P(Bin(n, 1/2) <= k - 1); k is the largest that
    still keeps the promise (Conover 1999, section 3.2; Le Boudec 2010, theorem 2.1).

    None where not even the smallest and the largest sample keep it: at 95 % below 6 samples, since
    five enclose the median only 1 - 2/2^5 = 93.75 % of the time. Samples must be independent.
    ValueError for a `confidence` outside 0 to 1, no samples or a NaN.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence}: must lie between 0 and 1")
    ordered = _ordered(samples)
    n = len(ordered)
    rank = _rank(n, confidence)
    return None if rank == 0 else (ordered[rank - 1], ordered[n - rank])


def relative_half_width(samples: Sequence[float], confidence: float = 0.95) -> float | None:
    """Half the median's interval over the median; None without an interval or with a median of 0."""
    interval = median_interval(samples, confidence)
    centre = median(samples)
    if interval is None or centre == 0:
        return None
    low, high = interval
    return (high - low) / 2 / abs(centre)


def _rank(n: int, confidence: float) -> int:
    """The largest k with 2 P(Bin(n, 1/2) <= k - 1) <= 1 - confidence; 0 if there is none."""
    total = 2**n
    tail = 0  # n choose 0, + n choose 1, ...: whole numbers, so nothing is rounded away
    for rank in range(n // 2):
        tail += math.comb(n, rank)
        if 1 - 2 * tail / total < confidence:
            return rank
    return n // 2


def _ordered(samples: Sequence[float]) -> list[float]:
    if not samples:
        raise ValueError("no samples")
    if any(math.isnan(sample) for sample in samples):
        raise ValueError("a sample is NaN")
    return sorted(samples)
