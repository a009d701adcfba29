"""How often `zbench ab` is right on this machine: A/A, +2 % and +5 % planted as extra work, 64×64 and one step.

python benchmarks/live_error_rates.py [--runs 20] [--margin 1%] [--apart | --whole] [--planted X] [--lanes 1] [OVERRIDE]

Every run is a `zbench ab` of its own, with a fresh worker that both sides share or, `--apart`, one for each, as two
revisions have. Goals as in `error_rates.py`; INCONCLUSIVE counts as a miss. `--whole`: images of 256×256 in 8 steps,
A/A and +8 %, which is to be found within a minute of measuring; `--planted 0.08` takes these alone. With `--lanes 6`
six A/Bs run side by side, each on two cores of its own, or on `--cores` of them; the machine's last are taken first.
"""

import argparse
import json
import os
import queue
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from small import SMALL

from zbench.composition import overlay

HERE = Path(__file__).parent
WHOLE = ("pipeline=zimage_tiny", "hardware=cpu", "workload=single", "pipeline.steps=8")
PLANTED = "engine=planted cache=dbcache cache.max_warmup_steps=8 cache.residual_diff_threshold={extra}"
OF_ITS_OWN = " engine.options.worker=b"
SOON_S = 60
MIN_SHARE = {0.02: 0.8, 0.05: 0.99, 0.08: 0.99}
"""Of so much slower sides, the share that is to be found."""


@dataclass(frozen=True)
class Compared:
    """What one `zbench ab` said."""

    extra: float
    verdict: str
    ratio: float | None
    blocks: int
    seconds: float

    def __str__(self) -> str:
        measured = "no ratio" if self.ratio is None else f"{100 * (self.ratio - 1):+.2f} %"
        return f"planted {self.extra:+.0%}: {self.verdict}, {measured}, {self.blocks} blocks, {self.seconds:.0f} s"


class Lanes:
    """Places for A/Bs side by side: cores of their own, and turns of their own."""

    def __init__(self, number: int, each: int, folder: str) -> None:
        cores = sorted(os.sched_getaffinity(0), reverse=True)
        if number > 1 and number * each > len(cores):
            raise SystemExit(f"--lanes {number}: needs {number * each} cores, and {len(cores)} are here")
        self._free: queue.Queue[tuple[Path, set[int]]] = queue.Queue()
        for lane in range(number):
            place = Path(folder) / f"lane{lane}"
            place.mkdir()
            self._free.put((place, set(cores[lane * each :][:each] if number > 1 else cores)))

    def run(self, extra: float, options: argparse.Namespace) -> Compared:
        """One A/B, in the next free place."""
        place, cores = self._free.get()
        try:
            os.sched_setaffinity(0, cores)  # of this thread, and of what it starts
            return one_run(extra, options, place)
        finally:
            self._free.put((place, cores))


def one_run(extra: float, options: argparse.Namespace, folder: Path) -> Compared:
    """One A/B in a folder."""
    command = [sys.executable, "-m", "zbench", "ab", "--allow-code", "--config-dir", str(HERE / "conf")]
    overrides = overlay(WHOLE if options.whole else SMALL, options.overrides)
    command += ["--format", "json", *overrides, "--margin", options.margin, "--a", PLANTED.format(extra=0)]
    command += ["--b", PLANTED.format(extra=extra) + (OF_ITS_OWN if options.apart else "")]
    path = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH", "")]))
    surroundings = {**os.environ, "PYTHONPATH": path}
    if options.lanes > 1:
        surroundings["ZBENCH_TURNS_DIR"] = str(folder)
    began = time.monotonic()
    done = subprocess.run(command, cwd=folder, env=surroundings, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1, 3) or not done.stdout:
        sys.exit(f"{' '.join(command)}\nended with {done.returncode}: {done.stderr}")
    said = json.loads(done.stdout)
    ratio = said["ratio"] and said["ratio"]["estimate"]
    return Compared(extra, said["verdict"], ratio, said["blocks"], time.monotonic() - began)


def all_runs(slower: tuple[float, ...], options: argparse.Namespace) -> Iterator[Compared]:
    """Each as it ends, begun by turns, so that a bad hour befalls all alike."""
    with TemporaryDirectory() as folder, ThreadPoolExecutor(options.lanes) as threads:
        lanes = Lanes(options.lanes, options.cores, folder)
        running = [threads.submit(lanes.run, extra, options) for _ in range(options.runs) for extra in slower]
        try:
            yield from (each.result() for each in as_completed(running))
        finally:
            threads.shutdown(cancel_futures=True)


def goals(made: list[Compared], slower: tuple[float, ...]) -> Iterator[tuple[str, bool]]:
    """What is to hold, and whether it does."""
    verdicts = {extra: Counter(run.verdict for run in made if run.extra == extra) for extra in slower}
    if same := verdicts.get(0.0):
        yield "A/A: at most 1 % SLOWER", same["SLOWER"] <= 0.01 * same.total()
        yield "A/A: at most 20 % INCONCLUSIVE", same["INCONCLUSIVE"] <= 0.2 * same.total()
    for extra, counts in verdicts.items():
        print(f"{extra:+.0%} of {counts.total()}: " + ", ".join(f"{said} {n}" for said, n in counts.most_common()))
        if extra:
            share = MIN_SHARE.get(extra, 0.99)
            yield f"{extra:+.0%}: at least {share:.0%} SLOWER", counts["SLOWER"] >= share * counts.total()
    if 0.08 in slower:
        longest = max(run.seconds for run in made if run.extra == 0.08)
        yield f"+8%: within {SOON_S} s, start included (longest {longest:.0f} s)", longest <= SOON_S


def main() -> None:
    """Print a line a slow-down; exit 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--margin", default="1%")
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument("--apart", action="store_true", help="a worker for each side")
    kinds.add_argument("--whole", action="store_true", help="256×256 in 8 steps")
    parser.add_argument("--planted", type=float, nargs="+", help="these slow-downs alone")
    parser.add_argument("--lanes", type=int, default=1, help="A/Bs side by side")
    parser.add_argument("--cores", type=int, default=2, help="of each lane, where there are several")
    parser.add_argument("overrides", nargs="*", default=[])
    options = parser.parse_args()
    slower = tuple(options.planted or ((0.0, 0.08) if options.whole else (0.0, 0.02, 0.05)))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    made = []
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("A/Bs", total=options.runs * len(slower))
        for run in all_runs(slower, options):
            print(run, flush=True)
            made.append(run)
            bar.advance(task)
    found = dict(goals(made, slower))
    for goal, holds in found.items():
        print(f"{goal}: {'holds' if holds else 'MISSED'}")
    sys.exit(0 if all(found.values()) else 1)


if __name__ == "__main__":
    main()
