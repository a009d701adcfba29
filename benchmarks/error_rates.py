"""How often the A/B is right: equal versions, +2 % and +5 % at a margin of 1 %, on simulated or recorded noise.

python benchmarks/error_rates.py [--runs 200] [--recorded FILE.csv | --launches BLOCKS.jsonl …] [--seed 1]

A recording is a CSV file with the column `latency_s`: the timed rounds of one version, seconds, in time order. They are
put into turns as `zbench ab` would, runs are drawn from these in stretches of consecutive ones, so that drift and
bursts stay as they were, and the new version's turns are then made slower. Simulated noise is that of turns.

Launches are those of equal versions, each with workers of its own: the `blocks.jsonl` of `zbench ab --margin 0.01%`,
which goes on to the last look. A/Bs are drawn from them a launch at a time; which of its sides is new is chance.
"""

import argparse
import csv
import json
import math
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from zbench.ab.interleave import rounds_a_turn, turn_medians
from zbench.ab.schedule import BLOCK_LOOKS, LAUNCH_LOOKS
from zbench.stats import BlockSamples, LookSchedule, Scale, Verdict, block_shift, look
from zbench.stats.power import draw_turns, simulated_run

Floats = NDArray[np.float64]
Noise = Callable[[np.random.Generator, int], Floats]  # a number of turns to the log of each one's slowness

MARGIN = 0.01
LEAST_RECORDED = 100  # turns


def bursts(rng: np.random.Generator, turns: int, chance: float = 0.03, mean_length: float = 4) -> Floats:
    """A neighbour that takes the machine for a few turns, which then last 10 to 100 % longer."""
    slow = np.zeros(turns)
    for begin in np.flatnonzero(rng.random(turns) < chance):
        slow[begin : begin + rng.geometric(1 / mean_length)] = math.log(rng.uniform(1.1, 2.0))
    return slow


def drift(rng: np.random.Generator, turns: int) -> Floats:
    """Up to 10 % up or down over the run, and a random walk of 0.2 % a turn."""
    ramp: Floats = np.linspace(0.0, 0.1, turns, dtype=np.float64) * rng.uniform(-1, 1)
    walk: Floats = np.cumsum(rng.normal(0, 0.002, turns))
    return ramp + walk


def spikes(rng: np.random.Generator, turns: int) -> Floats:
    """One turn in 50 takes 50 times as long."""
    return np.where(rng.random(turns) < 0.02, math.log(50), 0.0)


def modes(rng: np.random.Generator, turns: int) -> Floats:
    """Two clock speeds 8 % apart, kept for 12 turns on average."""
    changes: Floats = np.where(rng.random(turns) < 1 / 12, 1.0, 0.0)
    return 0.08 * (np.cumsum(changes) % 2)


NOISES: dict[str, Noise] = {
    "normal 1 %": lambda rng, n: rng.normal(0, 0.01, n),
    "normal 2 %": lambda rng, n: rng.normal(0, 0.02, n),
    "drift, 1.5 %": lambda rng, n: rng.normal(0, 0.015, n) + drift(rng, n),
    "bursts, 1.5 %": lambda rng, n: rng.normal(0, 0.015, n) + bursts(rng, n),
    "dense bursts, 1 %": lambda rng, n: rng.normal(0, 0.01, n) + bursts(rng, n, 0.08),
    "heavy tails, t3 of 1.5 %": lambda rng, n: 0.015 * rng.standard_t(3, n),
    "rounds of 50 times, 1.5 %": lambda rng, n: rng.normal(0, 0.015, n) + spikes(rng, n),
    "two clocks, 1 %": lambda rng, n: rng.normal(0, 0.01, n) + modes(rng, n),
    "all: t3 of 1 %, drift, bursts": lambda rng, n: 0.01 * rng.standard_t(3, n) + drift(rng, n) + bursts(rng, n, 0.02),
}
LIMIT: dict[str, Noise] = {"normal 3 %": lambda rng, n: rng.normal(0, 0.03, n)}  # where 80 blocks just do


def recorded(path: Path) -> Noise:
    """Noise drawn from a recording. SystemExit for a file that is none."""
    try:
        with path.open(newline="") as file:
            latencies = np.array([float(row["latency_s"]) for row in csv.DictReader(file)])
    except (OSError, KeyError, TypeError, ValueError) as problem:
        sys.exit(f"{path}: not a CSV file with numbers in a column latency_s ({problem!r})")
    if not len(latencies) or not (np.isfinite(latencies) & (latencies > 0)).all():
        sys.exit(f"{path}: latencies must be finite and above 0")
    a_turn = rounds_a_turn(latencies.min())
    turns = len(latencies) // a_turn
    if turns < LEAST_RECORDED:
        sys.exit(f"{path}: needs at least {LEAST_RECORDED * a_turn} latencies, {LEAST_RECORDED} turns of {a_turn}")
    medians = np.log(turn_medians(latencies[: turns * a_turn].tolist(), turns))
    return lambda rng, count: draw_turns(medians, count, rng)


def recorded_launches(paths: Sequence[Path]) -> Floats:
    """The log of new over base of each launch. SystemExit for a file that is none."""
    logs = []
    for path in paths:
        try:
            head, *lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
            if head["of"] != "launch":
                sys.exit(f"{path}: its sides shared a worker, or its margin took one launch")
            turns: dict[int, tuple[list[float], list[float]]] = {}
            for line in lines:
                of_launch = turns.setdefault(line["launch"], ([], []))
                for made, side in zip(of_launch, ("a", "b"), strict=True):
                    made.extend(turn_medians([request["latency_s"] for request in line[side]]))
        except (OSError, KeyError, TypeError, ValueError) as problem:
            sys.exit(f"{path}: not the blocks of a zbench ab ({problem!r})")
        logs += [block_shift(BlockSamples(base, new), Scale.RATIO) for base, new in turns.values()]
    return np.array(logs)


def launch_rates(logs: Floats, slower: float, runs: int, seed: int, plan: LookSchedule) -> "Rates":
    """Judge `runs` A/Bs of launches drawn from recorded ones."""
    rng = np.random.default_rng(seed)
    verdicts, used = Counter[Verdict](), []
    for _ in range(runs):
        drawn = rng.choice(logs, plan.looks[-1]) * rng.choice([-1, 1], plan.looks[-1])
        launches = [BlockSamples([1.0], [ratio]) for ratio in (np.exp(drawn) * (1 + slower)).tolist()]
        for launch in plan.looks:
            found = look(launches[:launch], plan, MARGIN)
            if found.stop:
                break
        verdicts[found.judgement.verdict] += 1
        used.append(found.blocks)
    return Rates(slower, verdicts, float(np.mean(used)))


@dataclass(frozen=True)
class Rates:
    """The verdicts of many runs on one noise at one slow-down."""

    slower: float
    verdicts: Counter[Verdict]
    blocks: float  # mean used

    def holds(self) -> bool:
        """Whether the goal is met: of 200 A/A at most 2 SLOWER, 40 INCONCLUSIVE; 160 of +2 % and 198 of +5 % SLOWER."""
        runs, wrong = self.verdicts.total(), self.verdicts[Verdict.SLOWER]
        if self.slower == 0:
            return wrong <= 0.01 * runs and self.verdicts[Verdict.INCONCLUSIVE] <= 0.2 * runs
        return wrong >= (0.99 if self.slower >= 0.05 else 0.8) * runs


def rates(noise: Noise, slower: float, runs: int, seed: int, plan: LookSchedule) -> Rates:
    """Judge `runs` A/Bs."""
    rng = np.random.default_rng(seed)
    turns = 4 * plan.looks[-1]
    results = [simulated_run(np.exp(noise(rng, turns)), slower, MARGIN, plan) for _ in range(runs)]
    return Rates(slower, Counter(verdict for verdict, _ in results), float(np.mean([used for _, used in results])))


def judge_launches(logs: Floats, runs: int, seed: int) -> int:
    """Print one line a slow-down; 1 if a goal is missed."""
    scatter = float(np.std(logs, ddof=1))
    print(f"{len(logs)} recorded launches of equal versions: b over a {np.mean(logs):+.2%}, scatter {scatter:.2%}")
    print(f"{runs} A/Bs each, margin {MARGIN:.0%}, looks at {LAUNCH_LOOKS.looks} launches")
    every = [launch_rates(logs, slower, runs, seed, LAUNCH_LOOKS) for slower in (0.0, 0.02, 0.05)]
    for found in every:
        counts = ", ".join(f"{count} {verdict}" for verdict, count in found.verdicts.items())
        print(f"{found.slower:+.0%}: {found.blocks:.1f} launches, {counts}; {'holds' if found.holds() else 'MISSED'}")
    return 0 if all(found.holds() for found in every) else 1


def main() -> None:
    """Print one line a noise and slow-down; exit 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--recorded", type=Path)
    parser.add_argument("--launches", type=Path, nargs="+")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.launches:
        sys.exit(judge_launches(recorded_launches(arguments.launches), arguments.runs, arguments.seed))
    noises = {f"recorded {arguments.recorded}": recorded(arguments.recorded)} if arguments.recorded else NOISES | LIMIT
    plan, missed = BLOCK_LOOKS, 0
    print(f"{arguments.runs} runs each, margin {MARGIN:.0%}, looks at {plan.looks} blocks of 2 + 2 turns")
    print(f"{'noise':34} {'new':>5} {'blocks':>6}  {'  '.join(f'{verdict:>9}' for verdict in Verdict)}  goal")
    for name, noise in noises.items():
        for slower in (0.0, 0.02, 0.05):
            found = rates(noise, slower, arguments.runs, arguments.seed, plan)
            counts = "  ".join(f"{found.verdicts[verdict]:{max(9, len(verdict))}}" for verdict in Verdict)
            goal = "holds" if found.holds() else "MISSED"
            missed += name not in LIMIT and not found.holds()
            remark = ", at the limit: not counted" if name in LIMIT else ""
            print(f"{name:34} {slower:+5.0%} {found.blocks:6.1f}  {counts}  {goal}{remark}", flush=True)
    print("A/A: at most 1 % SLOWER and 20 % INCONCLUSIVE; +2 %: at least 80 % SLOWER; +5 %: at least 99 % SLOWER")
    print("every goal holds" if not missed else f"{missed} goals missed")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
