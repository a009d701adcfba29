"""Numbers in, estimates out; imports nothing else of zbench, and numpy and scipy only inside functions."""

from zbench.stats.bootstrap import resampled_interval
from zbench.stats.compare import BlockSamples, block_shift, compare_blocks, compare_rounds
from zbench.stats.estimate import median, median_interval, quantile, relative_half_width
from zbench.stats.modes import Modes, two_modes
from zbench.stats.outcome import EXACT, ONE_SAMPLE, Compared, Comparison, Refusal, RefusalReason, Scale
from zbench.stats.paired import SpeedUp, pair_medians, paired_speedup, speedup_between, speedup_by_turns
from zbench.stats.pareto import hypervolume, pareto_front
from zbench.stats.power import blocks_needed
from zbench.stats.ratio import ratio_of_rounds
from zbench.stats.sequential import Look, LookSchedule, look
from zbench.stats.signed_rank import hodges_lehmann
from zbench.stats.spread import median_absolute_deviation, relative_spread
from zbench.stats.stationary import Stationarity, is_stationary, warm_from
from zbench.stats.trend import Drift, drift
from zbench.stats.verdict import Judgement, Kind, Verdict, correct_for_many, deciding_margin, judge

__all__ = [
    "EXACT",
    "ONE_SAMPLE",
    "BlockSamples",
    "Compared",
    "Comparison",
    "Drift",
    "Judgement",
    "Kind",
    "Look",
    "LookSchedule",
    "Modes",
    "Refusal",
    "RefusalReason",
    "Scale",
    "SpeedUp",
    "Stationarity",
    "Verdict",
    "block_shift",
    "blocks_needed",
    "compare_blocks",
    "compare_rounds",
    "correct_for_many",
    "deciding_margin",
    "drift",
    "hodges_lehmann",
    "hypervolume",
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
    "ratio_of_rounds",
    "relative_half_width",
    "relative_spread",
    "resampled_interval",
    "speedup_between",
    "speedup_by_turns",
    "two_modes",
    "warm_from",
]
