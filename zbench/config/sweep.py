"""How a sweep is run: how long a trial is measured, which points are tried, where they run and where they are kept."""

import os
from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from zbench.config.ranges import check_name, number, one_of
from zbench.errors import ConfigError

ON_OOM = ("record", "next_offload")

MAX_ROUNDS = 1_000_000
MAX_SECONDS = 1e8
"""Three years; a wait much longer than that is more than the system's own clocks take."""


@dataclass
class MeasureConfig:
    """How long a trial is measured."""

    max_warmup_rounds: int = number(12, 0, MAX_ROUNDS)  # warm-up ends before, once latencies have settled
    min_rounds: int = number(8, 1, MAX_ROUNDS)
    max_rounds: int = number(32, 1, MAX_ROUNDS)
    target_rel_ci: float = number(0.05, 0, 10, above=True)  # half width of the median's 95 % interval over the median
    target_speedup_ci: float = number(0.015, 0, 10, above=True)  # the same of the speed-up, where trials take turns
    budget_s: float = number(10.0, 0, MAX_SECONDS, above=True)  # ends warm-up, and timed rounds after min_rounds
    timeout_s: float = number(600.0, 0, MAX_SECONDS, above=True)  # a trial longer than this is FAILED
    lpips_weights: str | None = None  # safetensors file of lpips.LPIPS(net="alex"); None: no LPIPS
    clip_weights: str | None = None  # folder of a CLIP model; None: no CLIP score
    quality_only: bool = False  # one request a sample, no warm-up: images are judged, and nothing is said of time
    paired: bool = True  # trials of one loaded pipeline take turns with their uncached one; speed-ups are of neighbours


@dataclass
class SearchConfig:
    """Which points of the grid are tried."""

    name: str = MISSING
    target: str = MISSING  # class of the search: module:Class, or an entry point's name
    n_trials: int | None = number(None, 1, 1_000_000)  # random, thresholds: how many at most
    seed: int = number(0, -(2**63), 2**63 - 1)
    storage: str | None = None  # optuna: URL of a database in which its study is kept too, such as sqlite:///study.db
    options: dict[str, Any] = field(default_factory=dict)  # what this search takes beside


@dataclass
class ExecutorConfig:
    """Where trials run."""

    name: str = MISSING
    target: str = MISSING  # class of the executor: module:Class, or an entry point's name
    concurrent_trials: int | None = number(1, 1, 1024)  # side by side; null: as many as there are devices for
    share_device: bool = False  # true: wait for no other measurement on the device; records say so
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
    if measure.max_rounds < measure.min_rounds:
        least = f"must be at least measure.min_rounds={measure.min_rounds}"
        raise ConfigError("measure.max_rounds", measure.max_rounds, least)


def check_sweep(sweep: SweepConfig) -> None:
    """Raise ConfigError for a value that is out of its range."""
    one_of("sweep.on_oom", sweep.on_oom, ON_OOM)
    for key in ("runs_dir", "reports_dir"):
        folder = getattr(sweep, key)
        if not folder:
            raise ConfigError(f"sweep.{key}", "''", "name a folder, or leave it out; . is this one")
        if os.path.expanduser(folder).startswith("~"):
            raise ConfigError(f"sweep.{key}", folder, "there is no such user; a folder that is called so is ./~…")
    if sweep.name is not None:
        check_name("sweep.name", sweep.name, "is a folder's name")
