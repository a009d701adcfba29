"""zbench's latency over that of tools that know nothing of it, on the same call: the goal is within 1 %.

python benchmarks/agreement/latency.py [--turns 5] [--rounds 24]

A bare loop, pyperf and pytest-benchmark each time the call in a process of its own. All take turns, each turn in
another order, and a ratio is that of two medians of one turn.
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

from tools import bare_loop, pyperf, pytest_benchmark, zbench

from zbench.stats.estimate import median_interval

GOAL = 0.01
TOOLS = {"a bare loop": bare_loop, "pyperf": pyperf, "pytest-benchmark": pytest_benchmark, "zbench": zbench}


def main() -> None:
    """Print a line a tool; exit 1 if one is further off."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=24)
    arguments = parser.parse_args()
    seconds: dict[str, list[float]] = {name: [] for name in TOOLS}
    names = list(TOOLS)
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(arguments.turns):
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                seconds[name].append(TOOLS[name](arguments.rounds, Path(folder)))
            print("turn", turn + 1, {name: round(times[-1], 4) for name, times in seconds.items()}, flush=True)
    missed = 0
    for name in names[:-1]:
        ratios = [ours / theirs for ours, theirs in zip(seconds["zbench"], seconds[name], strict=True)]
        ratio, interval = statistics.median(ratios), median_interval(ratios)
        missed += abs(ratio - 1) > GOAL
        spread = f"{min(ratios):.4f} to {max(ratios):.4f}" if interval is None else "{:.4f} to {:.4f}".format(*interval)
        print(f"zbench over {name}: {ratio:.4f} ({spread} over {len(ratios)} turns)")
    print(f"goal: within {GOAL:.0%}: {'holds' if not missed else f'{missed} missed'}")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
