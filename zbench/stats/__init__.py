"""Numbers in, estimates out; imports nothing else of zbench."""

from zbench.stats.estimate import median, median_interval, quantile, relative_half_width
from zbench.stats.paired import pair_medians, paired_speedup
from zbench.stats.pareto import pareto_front

__all__ = [
    "median",
    "median_interval",
    "pair_medians",
    "paired_speedup",
    "pareto_front",
    "quantile",
    "relative_half_width",
]
