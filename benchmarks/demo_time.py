"""What the demo's sweep takes, how much of that is generation, and what a resident trial costs beyond its generations.

    python benchmarks/demo_time.py [OVERRIDE ...]

Runs `zbench sweep experiment=demo` in an empty folder, notes when each trial's line appears, and takes from the
journal what was generated in between: the rest is configuring, hashing, images, quality, records on disk and the talk.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

from zbench.measurement import Measurement
from zbench.store import read_records

SWEEP_GOAL_S = 240.0
TRIAL_GOAL_S = 0.3


def generated_s(m: Measurement) -> float:
    """Seconds of generation in a trial, warm-up included."""
    return sum(m.warmup_latencies_s) + sum(r.latency_s for r in m.rounds)


def main() -> None:
    """Print the three figures."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "zbench", "sweep", "experiment=demo", "sweep.name=demo", *sys.argv[1:]]
        began = time.monotonic()
        process = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        assert process.stderr is not None
        ends = [time.monotonic() for line in process.stderr if line.startswith("[")]
        code = process.wait()
        wall_s = time.monotonic() - began
        records = read_records(Path(folder) / "runs" / "demo" / "records.jsonl")
    generations = [generated_s(r.measurement) for r in records if r.measurement]
    beyond = [b - a - s for (a, b), s in zip(pairwise(ends), generations[1:], strict=True)]
    print(f"exit {code}, {len(records)} trials, {wall_s:.1f} s from start to report (goal {SWEEP_GOAL_S:.0f} s)")
    print(f"generation {sum(generations):.1f} s, {sum(generations) / wall_s:.0%} of it")
    print(
        f"a resident trial beyond its generations: median {statistics.median(beyond):.3f} s, "
        f"mean {statistics.fmean(beyond):.3f} s, most {max(beyond):.3f} s (goal at most {TRIAL_GOAL_S} s)"
    )


if __name__ == "__main__":
    main()
