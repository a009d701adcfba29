"""zbench's peak host memory over what `/usr/bin/time -v` saw of the same process: the goal is within 3 %.

    python benchmarks/agreement/memory.py [--turns 3]

`time` reports the largest of all processes that `zbench run` started, which is the worker. It sees the worker's whole
life, zbench its timed rounds; needs GNU time (`apt-get install time`) and Linux.
"""

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from zbench.store import read_records

GOAL = 0.03
TIME = "/usr/bin/time"


def one_turn(folder: Path) -> tuple[int, int]:
    """Bytes by zbench, bytes by time."""
    overrides = [
        "pipeline=zimage_tiny",
        "hardware=cpu",
        "workload=single",
        "measure=quick",
        "sweep.name=memory",
        "sweep.fresh=true",
    ]
    command = [TIME, "-v", sys.executable, "-m", "zbench", "run", *overrides]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    seen = re.search(r"Maximum resident set size \(kbytes\): (\d+)", done.stderr)
    if done.returncode or seen is None:
        sys.exit(f"{' '.join(command)}\nended with {done.returncode}: {done.stderr}")
    (*_, record) = read_records(folder / "runs" / "memory" / "records.jsonl")
    assert record.measurement is not None and record.measurement.memory.host_peak_rss_bytes is not None
    return record.measurement.memory.host_peak_rss_bytes, 1024 * int(seen[1])


def main() -> None:
    """Print both and their ratio; exit 1 if they are further apart."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=3)
    arguments = parser.parse_args()
    if not Path(TIME).is_file():
        sys.exit(f"{TIME} is not here: apt-get install time")
    with tempfile.TemporaryDirectory() as folder:
        turns = [one_turn(Path(folder)) for _ in range(arguments.turns)]
    for ours, theirs in turns:
        print(f"zbench {ours / 2**20:.1f} MiB, time -v {theirs / 2**20:.1f} MiB, ratio {ours / theirs:.4f}")
    ratio = statistics.median(ours / theirs for ours, theirs in turns)
    holds = abs(ratio - 1) <= GOAL
    print(f"ratio {ratio:.4f}, goal within {GOAL:.0%}: {'holds' if holds else 'missed'}")
    sys.exit(0 if holds else 1)


if __name__ == "__main__":
    main()
