"""Numbers in, estimates out; imports nothing else of zbench, and numpy and scipy only inside functions."""

from zbench.stats.bootstrap import resampled_interval
from zbench.stats.compare import Block, compare_blocks, compare_rounds, compare_values
from zbench.stats.estimate import median, median_interval, quantile, relative_half_width
from zbench.stats.outcome import Comparison, Outcome, Reason, Refusal, Scale
from zbench.stats.paired import pair_medians, paired_speedup
from zbench.stats.pareto import pareto_front
from zbench.stats.power import blocks_needed
from zbench.stats.quantiles import quantile_interval
from zbench.stats.sequential import Look, Plan, look
from zbench.stats.signed_rank import hodges_lehmann
from zbench.stats.spread import cliffs_delta, effect_size, median_absolute_deviation, relative_spread
from zbench.stats.stationary import Stationarity, is_stationary, warm_from
from zbench.stats.trend import Drift, drift
from zbench.stats.verdict import Judgement, Kind, Verdict, correct_for_many, judge

__all__ = [
    "Block",
    "Comparison",
    "Drift",
    "Judgement",
    "Kind",
    "Look",
    "Outcome",
    "Plan",
    "Reason",
    "Refusal",
    "Scale",
    "Stationarity",
    "Verdict",
    "blocks_needed",
    "cliffs_delta",
    "compare_blocks",
    "compare_rounds",
    "compare_values",
    "correct_for_many",
    "drift",
    "effect_size",
    "hodges_lehmann",
    "is_stationary",
    "judge",
    "look",
    "median",
    "median_absolute_deviation",
    "median_interval",
    "pair_medians",
    "paired_speedup",
    "pareto_front",
    "quantile",
    "quantile_interval",
    "relative_half_width",
    "relative_spread",
    "resampled_interval",
    "warm_from",
]
