"""How long `zbench plan` takes on grids of several sizes, each in fresh processes, start-up included.

python benchmarks/plan_time.py [--repeats 3] [OVERRIDE ...]

The grids are axes of cache=dbcache on the tiny pipeline; the baseline comes on top. OVERRIDE, such as hardware=b300,
takes the place of what is asked for otherwise.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time

from zbench.composition import overlay

DEFAULTS = ("hardware=cpu", "pipeline=zimage_tiny", "cache=dbcache")
GRIDS = (
    ("cache.max_warmup_steps=range(1,9)", "cache.residual_diff_threshold=range(0.01,0.61,0.01)"),
    (
        "cache.max_warmup_steps=range(1,9)",
        "cache.residual_diff_threshold=range(0.01,0.61,0.01)",
        "cache.max_continuous_cached_steps=range(1,6)",
    ),
    (
        "cache.max_warmup_steps=range(1,9)",
        "cache.residual_diff_threshold=range(0.01,0.51,0.01)",
        "cache.max_continuous_cached_steps=range(1,6)",
        "cache.Fn_compute_blocks=range(1,6)",
    ),
)
GOALS_S = {480: 3.0, 10_000: 30.0}


def plan(overrides: list[str]) -> tuple[float, int]:
    """Wall time of one process, and how many trials it planned."""
    command = [sys.executable, "-m", "zbench", "plan", "--format", "json", *overrides]
    began = time.perf_counter()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    return time.perf_counter() - began, len(json.loads(done.stdout)["trials"])


def main() -> None:
    """Print a line a grid."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("overrides", nargs="*", default=[])
    arguments = parser.parse_args()
    for axes in GRIDS:
        runs = [plan(overlay([*DEFAULTS, *axes], arguments.overrides)) for _ in range(arguments.repeats)]
        seconds, trials = statistics.median(run[0] for run in runs), runs[0][1]
        goal = next((f", goal at most {goal:g} s" for size, goal in GOALS_S.items() if 0 <= trials - size <= 1), "")
        print(f"{trials} trials: {seconds:.2f} s, {1000 * seconds / trials:.2f} ms a trial{goal}")


if __name__ == "__main__":
    main()
