"""What a comparison returns: an interval, or a typed reason why there is none."""

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias


class Scale(StrEnum):
    """How new and base are set against each other."""

    RATIO = "ratio"  # new / base, without unit
    DIFFERENCE = "difference"  # new - base, in the metric's unit


class RefusalReason(StrEnum):
    """Why there is nothing to judge."""

    TOO_FEW_SAMPLES = "too_few_samples"
    MISSING = "missing"
    FAILED = "failed"
    NAN = "nan"
    INFINITE = "infinite"
    NEGATIVE = "negative"
    ZERO_BASE = "zero_base"
    ZERO_NEW = "zero_new"
    INCOMPARABLE = "incomparable"
    NOTHING_TO_COMPARE = "nothing_to_compare"


@dataclass(frozen=True)
class Comparison:
    """New against base with the interval [low, high], which holds the truth at least `level` of the time."""

    estimate: float
    low: float
    high: float
    n: int
    unit: str  # what n counts: cycles (of the shorter run), blocks, pairs
    level: float
    scale: Scale
    method: str


EXACT, ONE_SAMPLE = "exact", "one sample"
"""Methods of comparisons without an interval: nothing is left to chance, or each side has one sample."""


@dataclass(frozen=True)
class Refusal:
    """No comparison, and why."""

    reason: RefusalReason
    detail: str  # plain English, without a full stop


Compared: TypeAlias = Comparison | Refusal
