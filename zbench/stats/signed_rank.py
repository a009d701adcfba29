"""The Hodges–Lehmann location of a sample with its exact interval from signed ranks (Hollander et al. 2014, 3.2).

It asks only that the samples are independent and symmetric about the location, which differences of interleaved A and
B are, however heavy their tails; nearly 3 in 10 of them may be wild. It loses 4.5 % of efficiency on normal noise.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

from zbench.stats.bootstrap import Floats


def hodges_lehmann(samples: Sequence[float], level: float = 0.95) -> tuple[float, tuple[float, float] | None]:
    """The median of all pairwise means, and the interval that holds it at least `level` of the time.

    Both are in the samples' unit. The interval is None where too few samples cannot keep `level`: at 95 % below 6.
    ValueError for a `level` not between 0 and 1, no samples or one that is not finite.
    """
    import numpy as np

    if not 0 < level < 1:
        raise ValueError(f"level={level}: must lie between 0 and 1")
    if not len(samples):
        raise ValueError("no samples")
    values = np.asarray(samples, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ValueError("a sample is not finite")
    first, second = np.triu_indices(len(values))
    means = np.sort(values[first] / 2 + values[second] / 2)
    rank = int(np.searchsorted(_at_most(len(values)), (1 - level) / 2, side="right"))
    centre = float(np.median(means))
    return centre, (float(means[rank - 1]), float(means[-rank])) if rank else None


def fewest_samples(level: float) -> int:
    """The fewest samples that can have an interval at `level`: n of them enclose the median 1 - 2/2^n of the time."""
    return math.ceil(1 - math.log2(1 - level) - 1e-9)


@lru_cache(maxsize=256)
def _at_most(n: int) -> Floats:
    """P(rank sum <= w) for w = 0, 1, ...: each rank counts with probability 1/2."""
    import numpy as np

    chances = np.ones(1)
    for rank in range(1, n + 1):
        longer = np.zeros(len(chances) + rank)
        longer[: len(chances)] += chances / 2
        longer[rank:] += chances / 2
        chances = longer
    return np.asarray(np.cumsum(chances), dtype=np.float64)
