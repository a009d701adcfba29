"""How much zbench's probes change the latency they measure: bare `pipe(…)` and a probed round, interleaved in one run.

    python benchmarks/probe_overhead.py [--turns 40] [OVERRIDE ...]
    python benchmarks/probe_overhead.py pipeline=zimage_turbo pipeline.weights=random

Overrides are zbench's; by default the tiny pipeline runs on what is here, the GPU where there is one. Two clocks, one
pipeline, one process: in a bare turn the engine's wrappers are off and nothing samples, in a probed one the stage
clock, the thread that watches the GPU and the watch on the host are on as in a worker. A turn is as many calls as take
a second, so that the thread does sample, and each pair of turns comes in random order. The goal is a median of paired
ratios of at most 1.005. On a busy machine the interval printed beside it is wide, and then it says nothing.
"""

import argparse
import gc
import math
import os
import random
import statistics
import time

os.environ.setdefault("CACHE_DIT_LOG_LEVEL", "error")

from agreement.call import Call, chosen

from zbench.probes.disturbance import RoundWatch
from zbench.stats.estimate import median_interval
from zbench.worker.gauges import Gauges
from zbench.worker.measuring import quiet_collector

DEFAULTS = ("pipeline=zimage_tiny", "hardware=auto", "workload=single")
TURN_S = 1.0
WARM_UP = 3
GOAL = 1.005


class Turns:
    """Both ways to make the same image."""

    def __init__(self, overrides: list[str]) -> None:
        self._gauges = Gauges()  # before anything touches the GPU, as in a worker
        self._call = Call(overrides)
        self._watch = RoundWatch()
        self.device = self._call.engine.device
        self.ways = {"bare": self._bare_s, "probed": self._probed_s}

    def take(self, kind: str, calls: int) -> float:
        """Mean seconds of a call."""
        return self.ways[kind](calls) / calls

    def _bare_s(self, calls: int) -> float:
        """As anyone would write it, the device idle at both ends as in the engine."""
        spent_s = 0.0
        with self._call.engine.unwatched():
            for _ in range(calls):
                arguments = self._call.arguments()
                self._synchronize()
                began = time.perf_counter()
                self._call.engine.pipe(**arguments)
                self._synchronize()
                spent_s += time.perf_counter() - began
        return spent_s

    def _probed_s(self, calls: int) -> float:
        self._call.latencies_s.clear()
        self._gauges.start(self._call.engine.watch())
        for _ in range(calls):
            self._watch.begin()
            self._gauges.begin_round()
            self._call()
            self._watch.end()
            self._gauges.end_round()
        self._gauges.stop(calls)
        return sum(self._call.latencies_s)

    def _synchronize(self) -> None:
        if self.device == "cuda":
            import torch

            torch.cuda.synchronize()

    def close(self) -> None:
        """Let go of the pipeline."""
        self._call.engine.close()


def main() -> None:
    """Print both medians, their ratio, and the interval of the paired ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=40, help="turns of each kind")
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE", help=f"beside {' '.join(DEFAULTS)}")
    arguments = parser.parse_args()
    turns = Turns(chosen(DEFAULTS, arguments.overrides))
    warm_s = [turns.take(kind, 1) for _ in range(WARM_UP) for kind in turns.ways]
    calls = max(1, math.ceil(TURN_S / warm_s[-1]))
    seen: dict[str, list[float]] = {kind: [] for kind in turns.ways}
    order = random.Random(0)
    with quiet_collector():
        for _ in range(arguments.turns):
            for kind in order.sample(sorted(turns.ways), 2):
                seen[kind].append(turns.take(kind, calls))
            gc.collect()
    print(f"on {turns.device}, {calls} calls a turn")
    turns.close()
    _report(seen)


def _report(seen: dict[str, list[float]]) -> None:
    medians = {kind: statistics.median(latencies) for kind, latencies in seen.items()}
    ratios = [probed / bare for bare, probed in zip(seen["bare"], seen["probed"], strict=True)]
    interval = median_interval(ratios)
    for kind, latencies in seen.items():
        print(f"{kind:<7} median {medians[kind]:.4f} s, least {min(latencies):.4f} s, {len(latencies)} turns")
    between = f"{interval[0]:.4f} to {interval[1]:.4f}" if interval else "too few turns for an interval"
    print(f"median of paired ratios {statistics.median(ratios):.4f}, 95 % interval {between}; goal at most {GOAL}")
    print(f"ratio of medians {medians['probed'] / medians['bare']:.4f}")


if __name__ == "__main__":
    main()
