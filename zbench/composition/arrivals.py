"""When requests of a replay are due: the times in `workload.arrivals_file`, so that a trial holds times and no path."""

import math
import os
from dataclasses import replace
from pathlib import Path

from zbench.composition.texts import read_text
from zbench.config import WorkloadConfig
from zbench.config.arrivals import LONGEST_S, MOST_REQUESTS
from zbench.config.ranges import shortened
from zbench.errors import ConfigError, OverrideError


def with_arrivals(workload: WorkloadConfig) -> WorkloadConfig:
    """`workload` with the times of its file. Raises ConfigError where it has both, or for a file without any;
    OverrideError that names file and line."""
    if workload.arrivals_file is None:
        return workload
    if workload.arrival_times_s:
        raise ConfigError("workload.arrivals_file", workload.arrivals_file, "beside workload.arrival_times_s; give one")
    if not workload.arrivals_file:
        raise ConfigError("workload.arrivals_file", "''", "needs a file with a time, in seconds, on each line")
    times_s = read_times(Path(os.path.expanduser(workload.arrivals_file)))
    return replace(workload, arrivals_file=None, arrival_times_s=times_s)


def read_times(path: Path) -> list[float]:
    """Seconds after the start, one a line, none before the one above it; empty lines are left out."""
    try:
        text = read_text(path)
    except OverrideError as error:
        raise OverrideError(f"workload.arrivals_file={error}") from error
    times_s: list[float] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        place = f"workload.arrivals_file={path}, line {number}"
        try:
            time_s = float(line)
        except ValueError:
            raise OverrideError(f"{place}: {shortened(line.strip())} is no number; write seconds, one a line") from None
        if not (math.isfinite(time_s) and 0 <= time_s <= LONGEST_S):
            raise OverrideError(f"{place}: {time_s:g} s; must lie within 0 and {LONGEST_S:g}")
        if times_s and time_s < times_s[-1]:
            raise OverrideError(f"{place}: {time_s:g} s comes after {times_s[-1]:g} s; times must not fall")
        times_s.append(time_s)
    if not times_s:
        raise ConfigError("workload.arrivals_file", path, "holds no time")
    if len(times_s) > MOST_REQUESTS:
        raise ConfigError("workload.arrivals_file", path, f"holds {len(times_s)} times; at most {MOST_REQUESTS}")
    return times_s
