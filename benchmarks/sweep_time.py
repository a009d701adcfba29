"""What an experiment's sweep takes, how much of that is generation, and what a resident trial costs beyond it.

    python benchmarks/sweep_time.py [--out FOLDER] EXPERIMENT [OVERRIDE ...]

Runs `zbench sweep experiment=EXPERIMENT` from an empty run folder, notes when each trial's line appears, and takes
from the journal what was generated in between: the rest is starting, loading, configuring, hashing, images, quality,
records on disk, the talk and the report. `--out` keeps runs and report.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

from zbench.measurement import Measurement
from zbench.store import read_records

GOALS_S = {"demo": 240.0, "masks24": 150.0}
GENERATION_GOAL = {"masks24": 0.70}
TRIAL_GOAL_S = 0.3
HOME = Path(__file__).resolve().parents[1]


def generated_s(m: Measurement) -> float:
    """Seconds of generation in a trial, warm-up included."""
    return sum(m.warmup_latencies_s) + sum(r.latency_s for r in m.requests)


def main() -> None:
    """Print the three figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("experiment")
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_args()
    name = options.experiment
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.out or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "zbench", "sweep", f"experiment={name}", f"sweep.name={name}"]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HOME), os.environ.get("PYTHONPATH", "")])}
        began = time.monotonic()
        process = subprocess.Popen(
            [*command, *options.overrides],
            cwd=folder,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        assert process.stderr is not None
        ends = []
        for line in process.stderr:
            if line.startswith("["):
                ends.append(time.monotonic())
            else:
                print(line, end="", file=sys.stderr)
        code = process.wait()
        wall_s = time.monotonic() - began
        records = read_records(folder / "runs" / name / "records.jsonl")
    generations = [generated_s(r.measurement) for r in records if r.measurement]
    beyond = [b - a - s for (a, b), s in zip(pairwise(ends), generations[1:], strict=False)]
    goal = f" (goal {GOALS_S[name]:.0f} s)" if name in GOALS_S else ""
    share_goal = f" (goal {GENERATION_GOAL[name]:.0%})" if name in GENERATION_GOAL else ""
    print(f"exit {code}, {len(records)} trials, {wall_s:.1f} s from start to report{goal}")
    print(f"generation {sum(generations):.1f} s, {sum(generations) / wall_s:.0%} of it{share_goal}")
    if ends and beyond:
        before_s, after_s = ends[0] - began, wall_s - (ends[-1] - began)
        print(f"until the first trial's line {before_s:.1f} s, after the last {after_s:.1f} s")
        print(
            f"a trial beyond its generations: median {statistics.median(beyond):.3f} s, mean "
            f"{statistics.fmean(beyond):.3f} s, most {max(beyond):.3f} s (resident: goal at most {TRIAL_GOAL_S} s)"
        )
    sys.exit(code)


if __name__ == "__main__":
    main()
