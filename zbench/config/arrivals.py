"""When requests are asked for: which keys of a workload go with which `workload.arrivals`, and none without meaning."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from zbench.config.ranges import one_of
from zbench.errors import ConfigError

if TYPE_CHECKING:
    from zbench.config.pipeline import WorkloadConfig

ARRIVALS = ("sequential", "concurrent", "poisson", "replay")

MOST_REQUESTS = 100_000
MOST_AT_ONCE = 10_000
LONGEST_S = 1e6
"""Eleven days."""

OF_KINDS: dict[str, tuple[str, ...]] = {
    "concurrency": ("concurrent", "poisson", "replay"),
    "rate_per_s": ("poisson",),
    "requests": ("concurrent", "poisson", "replay"),
    "arrivals_seed": ("poisson",),
    "arrivals_file": ("replay",),
    "arrival_times_s": ("replay",),
    "latency_objective_s": ("concurrent", "poisson", "replay"),
    "warm_up": ("concurrent", "poisson", "replay"),
}
"""Keys that mean something only for some kinds of arrivals."""


def check_arrivals(workload: WorkloadConfig) -> None:
    """Raise ConfigError for a key that its kind of arrivals does not know or lacks."""
    kind = workload.arrivals
    one_of("workload.arrivals", kind, ARRIVALS)
    for name, kinds in OF_KINDS.items():
        value = getattr(workload, name)
        says_nothing = value is None or value is True or value == [] or (name == "arrivals_seed" and value == 0)
        if kind not in kinds and not says_nothing:
            way = " or ".join(f"workload.arrivals={each}" for each in kinds)
            shown = str(value).lower() if isinstance(value, bool) else value
            raise ConfigError(f"workload.{name}", shown, f"means nothing with workload.arrivals={kind}; add {way}")
    if kind == "concurrent" and workload.concurrency is None:
        raise ConfigError("workload.concurrency", "null", "is needed by workload.arrivals=concurrent: how many at once")
    if kind == "poisson" and workload.rate_per_s is None and workload.latency_objective_s is None:
        problem = "name a rate, or workload.latency_objective_s=, for which the highest rate is then sought"
        raise ConfigError("workload.rate_per_s", "null", problem)
    if kind == "replay":
        _check_times(workload)


def _check_times(workload: WorkloadConfig) -> None:
    times_s = workload.arrival_times_s
    if not times_s and not workload.arrivals_file:
        raise ConfigError(
            "workload.arrivals_file", "null", "is needed by workload.arrivals=replay: seconds, one a line"
        )
    for former, later in pairwise(times_s):
        if later < former:
            raise ConfigError("workload.arrival_times_s", later, f"comes after {former}; times must not fall")
    if workload.requests is not None and times_s and workload.requests > len(times_s):
        problem = f"there are {len(times_s)} times; ask for fewer, or leave it out"
        raise ConfigError("workload.requests", workload.requests, problem)
