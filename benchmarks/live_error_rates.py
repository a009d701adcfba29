"""How often `zbench ab` is right on this machine: A/A, +2 % and +5 % planted as extra work, 64×64 and one step.

python benchmarks/live_error_rates.py [--runs 20] [--margin 1%] [--apart] [OVERRIDE ...]

Every run is a `zbench ab` of its own, with a fresh worker that both sides share or, `--apart`, one for each, as two
revisions have. Goals as in `error_rates.py`; INCONCLUSIVE counts as a miss.
"""

import argparse
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from small import SMALL

from zbench.composition import overlay

HERE = Path(__file__).parent
SLOWER = (0.0, 0.02, 0.05)
PLANTED = "engine=planted cache=dbcache cache.residual_diff_threshold={extra}"
OF_ITS_OWN = " engine.options.worker=b"


def one_run(extra: float, margin: str, apart: bool, overrides: list[str], folder: str) -> tuple[str, int, float | None]:
    """The verdict, the blocks it took, and the ratio that was measured."""
    command = [sys.executable, "-m", "zbench", "ab", "--allow-code", "--config-dir", str(HERE / "conf")]
    command += ["--format", "json", *overlay(SMALL, overrides), "--margin", margin, "--a", PLANTED.format(extra=0)]
    command += ["--b", PLANTED.format(extra=extra) + (OF_ITS_OWN if apart else "")]
    path = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    if done.returncode not in (0, 1, 3) or not done.stdout:
        sys.exit(f"{' '.join(command)}\nended with {done.returncode}: {done.stderr}")
    said = json.loads(done.stdout)
    return said["verdict"], said["blocks"], said["ratio"] and said["ratio"]["estimate"]


def main() -> None:
    """Print a line a slow-down; exit 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--margin", default="1%")
    parser.add_argument("--apart", action="store_true", help="a worker for each side")
    parser.add_argument("overrides", nargs="*", default=[])
    arguments = parser.parse_args()
    runs = arguments.runs
    verdicts: dict[float, Counter[str]] = {extra: Counter() for extra in SLOWER}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with TemporaryDirectory() as folder, Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("A/Bs", total=runs * len(SLOWER))
        for _ in range(runs):  # by turns, so that a bad hour befalls all alike
            for extra in SLOWER:
                verdict, blocks, ratio = one_run(extra, arguments.margin, arguments.apart, arguments.overrides, folder)
                verdicts[extra][verdict] += 1
                measured = "no ratio" if ratio is None else f"{100 * (ratio - 1):+.2f} %"
                print(f"planted {extra:+.0%}: {verdict}, {measured}, {blocks} blocks", flush=True)
                bar.advance(task)
    same, two, five = (verdicts[extra] for extra in SLOWER)
    goals = {
        "A/A: at most 1 % SLOWER": same["SLOWER"] <= 0.01 * runs,
        "A/A: at most 20 % INCONCLUSIVE": same["INCONCLUSIVE"] <= 0.2 * runs,
        "+2 %: at least 80 % SLOWER": two["SLOWER"] >= 0.8 * runs,
        "+5 %: at least 99 % SLOWER": five["SLOWER"] >= 0.99 * runs,
    }
    for extra, counts in verdicts.items():
        print(f"{extra:+.0%} of {runs}: " + ", ".join(f"{verdict} {n}" for verdict, n in counts.most_common()))
    for goal, holds in goals.items():
        print(f"{goal}: {'holds' if holds else 'MISSED'}")
    sys.exit(0 if all(goals.values()) else 1)


if __name__ == "__main__":
    main()
