"""The same sweep again and again in fresh processes: how far medians scatter, and how often their intervals overlap.

python benchmarks/repetitions.py [--times 10] [OVERRIDE ...]

By default three trials of the tiny pipeline. The goal on a quiet machine is a spread of at most 2 % each: the median
absolute deviation of the medians, over their median.
"""

import argparse
import itertools
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from zbench.composition import overlay
from zbench.stats import median_interval, relative_spread
from zbench.store import latest_records, read_records

GOAL = 0.02
SWEEP = (
    "pipeline=zimage_tiny",
    "hardware=cpu",
    "workload=single",
    "cache=dbcache",
    "cache.residual_diff_threshold=0.12,0.24",
    "measure.min_rounds=16",
)


def one_sweep(folder: Path, overrides: list[str]) -> dict[str, list[float]]:
    """Latencies in seconds by label."""
    asked = overlay([*SWEEP, "sweep.name=again", "sweep.fresh=true"], overrides)
    command = [sys.executable, "-m", "zbench", "sweep", *asked]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\nended with {done.returncode}: {done.stderr}")
    records = latest_records(read_records(folder / "runs" / "again" / "records.jsonl"))
    return {r.label: [s for _, s in r.measurement.paired_latencies_s] for r in records if r.measurement}


def main() -> None:
    """Print a line a trial; exit 1 if one scatters more."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("overrides", nargs="*", default=[])
    arguments = parser.parse_args()
    sweeps: list[dict[str, list[float]]] = []
    with tempfile.TemporaryDirectory() as folder:
        for time in range(arguments.times):
            sweeps.append(one_sweep(Path(folder), arguments.overrides))
            print(time + 1, {label: round(statistics.median(s), 4) for label, s in sweeps[-1].items()}, flush=True)
    missed = 0
    for label in sweeps[0]:
        medians = [statistics.median(sweep[label]) for sweep in sweeps]
        intervals = [found for sweep in sweeps if (found := median_interval(sweep[label])) is not None]
        pairs = list(itertools.combinations(intervals, 2))
        overlap = sum(a[0] <= b[1] and b[0] <= a[1] for a, b in pairs)
        spread = relative_spread(medians) or 0.0
        missed += spread > GOAL
        range_ = (max(medians) - min(medians)) / statistics.median(medians)
        share = f"{overlap / len(pairs):.0%}" if pairs else "none made"
        print(f"{label}: spread of medians {spread:.2%}, range {range_:.1%}, intervals that overlap {share}")
    print(f"goal: spread at most {GOAL:.0%}: {'holds' if not missed else f'{missed} missed'}")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
