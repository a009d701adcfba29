"""Numbers in, estimates out; imports nothing else of zbench."""

from zbench.stats.estimate import median, median_interval, quantile, relative_half_width
from zbench.stats.pareto import pareto_front

__all__ = ["median", "median_interval", "pareto_front", "quantile", "relative_half_width"]
