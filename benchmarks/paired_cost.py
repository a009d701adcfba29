"""What pairing costs: one sweep with measure.paired=true and with false, side by side, for equally many trial requests.

    python benchmarks/paired_cost.py [--times 1] [OVERRIDE ...]

By default the settings of `experiment=demo`, 8 rounds each. Both sweeps start from nothing; which comes first changes
from time to time. Prints both times, from the command's start to its report, and their ratio. The goal is 1.4.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

from fresh_sweep import fresh_sweep, times

from zbench.analysis.speedup import requests_by_turns
from zbench.composition import overlay

GOAL = 1.4
SWEEP = ("experiment=demo", "measure.min_rounds=8", "measure.max_rounds=8")


def one_sweep(overrides: list[str], paired: bool) -> tuple[float, int, int]:
    """Seconds, requests of trials, and requests of the uncached trials that took turns with them."""
    asked = overlay([*SWEEP, f"measure.paired={str(paired).lower()}"], overrides)
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        records = fresh_sweep(Path(folder), asked)
        took_s = time.monotonic() - began
    return took_s, *requests_by_turns(records)


def main() -> None:
    """Print a line a sweep and the ratio; exit 1 if it is above the goal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=times, default=1)
    parser.add_argument("overrides", nargs="*", default=[])
    options = parser.parse_args()
    took_s: dict[bool, list[float]] = {True: [], False: []}
    for index in range(options.times):
        for paired in (False, True) if index % 2 else (True, False):
            seconds, own, beside = one_sweep(options.overrides, paired)
            took_s[paired].append(seconds)
            told = f"measure.paired={str(paired).lower():5}  {seconds:6.1f} s  {own} requests of trials"
            print(f"{told}, {beside} of uncached trials beside them", flush=True)
    ratio = statistics.median(took_s[True]) / statistics.median(took_s[False])
    print(f"paired takes {ratio:.2f} times as long (goal at most {GOAL})")
    sys.exit(1 if ratio > GOAL else 0)


if __name__ == "__main__":
    main()
