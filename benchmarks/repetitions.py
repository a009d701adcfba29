"""The same sweep again and again in fresh processes: how far its figures scatter, and how often intervals overlap.

    python benchmarks/repetitions.py [--times 10] [--beside-load] [OVERRIDE ...]

By default five trials of the tiny pipeline, of at most 64 rounds each: the spread of a speed-up falls as the root of
their number, and the usual 32 leave it between 1 and 2 % on two cores. The goals are for speed-ups: a spread (median
absolute deviation over the median) of at most 1 %, and at least 90 % of the pairs of intervals overlap. With
`--beside-load` as many sweeps follow beside a process that keeps one core busy: each speed-up lies within 3 % of the
quiet ones' median, or is marked.
"""

import argparse
import itertools
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from fresh_sweep import fresh_sweep, times

from zbench.analysis.figures import TrialFigures
from zbench.analysis.view import view_of
from zbench.composition import overlay
from zbench.stats import relative_spread

SPREAD, OVERLAP, MOVED = 0.01, 0.9, 0.03
LOAD_S = 3600
"""The busy process ends by itself after so long."""
SWEEP = (
    "pipeline=zimage_tiny",
    "hardware=cpu",
    "workload=single",
    "cache=dbcache",
    "cache.residual_diff_threshold=0.12,0.24",
    "measure.max_rounds=64",
    "measure.budget_s=20",
    "measure.target_speedup_ci=0.008",
)
Interval = tuple[float | None, float | None]


def one_sweep(folder: Path, overrides: list[str]) -> dict[str, TrialFigures]:
    """Figures by label."""
    records = fresh_sweep(folder, overlay([*SWEEP, "sweep.fresh=true"], overrides))
    return {row.label: row for row in view_of(records).complete}


def sweeps(number: int, overrides: list[str]) -> list[dict[str, TrialFigures]]:
    """So many, each told in a line."""
    made = []
    with tempfile.TemporaryDirectory() as folder:
        for index in range(number):
            made.append(one_sweep(Path(folder), overrides))
            told = {label: (row.latency_median_s, row.speedup) for label, row in made[-1].items()}
            print(index + 1, {label: [round(x, 4) for x in pair if x] for label, pair in told.items()}, flush=True)
    return made


@contextmanager
def busy_core() -> Iterator[None]:
    """A process that computes on one core."""
    code = f"import time; end = time.monotonic() + {LOAD_S}\nwhile time.monotonic() < end: pass"
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        try:
            yield
        finally:
            process.kill()


def overlapping(intervals: Sequence[Interval]) -> float | None:
    """The share of pairs of them that overlap."""
    known = [(low, high) for low, high in intervals if low is not None and high is not None]
    pairs = list(itertools.combinations(known, 2))
    return sum(a[0] <= b[1] and b[0] <= a[1] for a, b in pairs) / len(pairs) if pairs else None


def told(
    name: str,
    rows: Sequence[TrialFigures],
    value: Callable[[TrialFigures], float | None],
    interval: Callable[[TrialFigures], Interval],
) -> tuple[float, float | None]:
    """Print the spread of a figure and how often its intervals overlap; return both."""
    found = [x for row in rows if (x := value(row)) is not None]
    spread, share = (relative_spread(found) or 0.0) if found else 0.0, overlapping([interval(row) for row in rows])
    overlap = "none made" if share is None else f"{share:.0%}"
    print(f"{rows[0].label}: spread of {name} {spread:.2%}, intervals that overlap {overlap}")
    return spread, share


def moved(quiet: Sequence[TrialFigures], loaded: Sequence[TrialFigures]) -> bool:
    """Print how far a load moved a trial's speed-up; whether by more than the goal without being marked."""
    before, after = ([row.speedup for row in rows if row.speedup] for rows in (quiet, loaded))
    by = statistics.median(after) / statistics.median(before) - 1
    marked = sum(bool(row.caveats) for row in loaded)
    print(f"{quiet[0].label}: speed-up beside a busy core {by:+.1%}, {marked} of {len(loaded)} marked")
    return any(
        row.speedup is not None and abs(row.speedup / statistics.median(before) - 1) > MOVED and not row.caveats
        for row in loaded
    )


def main() -> None:
    """Print lines for each trial; exit 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=times, default=10)
    parser.add_argument("--beside-load", action="store_true")
    parser.add_argument("overrides", nargs="*", default=[])
    options = parser.parse_args()
    quiet = sweeps(options.times, options.overrides)
    loaded = []
    if options.beside_load:
        with busy_core():
            loaded = sweeps(options.times, options.overrides)
    missed = 0
    for label, first in quiet[0].items():
        rows = [made[label] for made in quiet]
        told("medians", rows, lambda row: row.latency_median_s, lambda row: (row.latency_low_s, row.latency_high_s))
        if first.is_baseline:
            continue
        spread, share = told(
            "speed-ups", rows, lambda row: row.speedup, lambda row: (row.speedup_low, row.speedup_high)
        )
        missed += spread > SPREAD or (share is not None and share < OVERLAP)
        missed += bool(loaded) and moved(rows, [made[label] for made in loaded])
    print(f"goals: {'hold' if not missed else f'{missed} missed'}")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
