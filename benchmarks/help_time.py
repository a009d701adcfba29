"""How long `zbench --help` takes, beside a bare interpreter that does nothing; both as processes, interleaved.

python benchmarks/help_time.py [--repeats 15]
"""

import argparse
import statistics
import subprocess
import sys
import time

GOAL_S = 0.4


def seconds(*arguments: str) -> float:
    """Wall time of one process."""
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def main() -> None:
    """Print both medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    repeats = parser.parse_args().repeats
    pairs = [(seconds("-c", "pass"), seconds("-m", "zbench", "--help")) for _ in range(repeats)]
    bare, help_ = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(f"bare interpreter {bare:.3f} s, zbench --help {help_:.3f} s, ratio {help_ / bare:.2f}")
    print(f"goal at most {GOAL_S} s")


if __name__ == "__main__":
    main()
