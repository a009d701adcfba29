"""How a sweep is run: how long a trial is measured, which points are tried, where they run and where they are kept."""

import re
from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from zbench.config.ranges import at_least, one_of
from zbench.errors import ConfigError

ON_OOM = ("record", "next_offload")


@dataclass
class MeasureConfig:
    """How long a trial is measured."""

    max_warmup_rounds: int = 12  # warm-up ends before, once latencies have settled
    min_rounds: int = 8
    max_rounds: int = 16
    target_rel_ci: float = 0.05  # half width of the median's 95 % interval over the median
    budget_s: float = 10.0  # warm-up ends once this is spent, timed rounds once min_rounds are done as well
    timeout_s: float = 600.0  # a trial longer than this is FAILED
    lpips_weights: str | None = None  # safetensors file of lpips.LPIPS(net="alex"); None: no LPIPS
    clip_weights: str | None = None  # folder of a CLIP model; None: no CLIP score


@dataclass
class SearchConfig:
    """Which points of the grid are tried."""

    name: str = MISSING
    target: str = MISSING  # class of the search: module:Class, or an entry point's name
    n_trials: int | None = None  # random: how many points
    seed: int = 0
    options: dict[str, Any] = field(default_factory=dict)  # what a search from elsewhere needs


@dataclass
class ExecutorConfig:
    """Where trials run."""

    name: str = MISSING
    target: str = MISSING  # class of the executor: module:Class, or an entry point's name
    concurrent_trials: int = 1  # how many trials run side by side, each on a device of its own
    options: dict[str, Any] = field(default_factory=dict)  # what an executor from elsewhere needs


@dataclass
class SweepConfig:
    """Where a sweep is kept and what it measures again."""

    name: str | None = None
    runs_dir: str = "runs"
    reports_dir: str = "reports"
    retry_failed: bool = False
    fresh: bool = False
    on_oom: str = "record"  # next_offload: a trial out of memory is tried again with the offload predicted to fit
    baseline: str | None = None  # overrides of how the work is done; speed-ups are over it. null: the quality reference
    reference_weights: str | None = None  # as pipeline.weights: all images are judged against those of these weights


def check_measure(measure: MeasureConfig) -> None:
    """Raise ConfigError for a value that is out of its range."""
    at_least("measure.max_warmup_rounds", measure.max_warmup_rounds, 0)
    at_least("measure.min_rounds", measure.min_rounds, 1)
    if measure.max_rounds < measure.min_rounds:
        least = f"must be at least measure.min_rounds={measure.min_rounds}"
        raise ConfigError("measure.max_rounds", measure.max_rounds, least)
    for key in ("target_rel_ci", "budget_s", "timeout_s"):
        if getattr(measure, key) <= 0:
            raise ConfigError(f"measure.{key}", getattr(measure, key), "must be above 0")


def check_search(search: SearchConfig) -> None:
    """Raise ConfigError for a value that is out of its range; what a search needs besides, it says itself."""
    if search.n_trials is not None:
        at_least("search.n_trials", search.n_trials, 1)


def check_executor(executor: ExecutorConfig) -> None:
    """Raise ConfigError for a value that is out of its range."""
    at_least("executor.concurrent_trials", executor.concurrent_trials, 1)


def check_sweep(sweep: SweepConfig) -> None:
    """Raise ConfigError for a value that is out of its range."""
    one_of("sweep.on_oom", sweep.on_oom, ON_OOM)
    if sweep.name is not None and not re.fullmatch(r"\w[\w.-]*", sweep.name):
        raise ConfigError("sweep.name", sweep.name, "is a folder's name: letters, digits, '_', '-' and '.'")
