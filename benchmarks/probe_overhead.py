"""How much zbench's probes change the latency they measure: bare `pipe(…)` and `engine.generate`, interleaved.

    python benchmarks/probe_overhead.py [--rounds 40] [--side 256] [--cache]

Two clocks, one pipeline, one process: in a bare round the engine's wrappers are off, in a probed one they are on, and
each pair of rounds comes in random order. The goal is a median of paired ratios of at most 1.01. On a busy machine
the interval printed beside it is wide, and then it says nothing.
"""

import argparse
import gc
import os
import random
import statistics
import time
from typing import Any

os.environ.setdefault("CACHE_DIT_LOG_LEVEL", "error")

from zbench.config import (
    CacheConfig,
    ComputeConfig,
    DBCacheConfig,
    EngineConfig,
    OffloadConfig,
    ParallelConfig,
    PipelineConfig,
    Prompt,
    WorkloadConfig,
)
from zbench.engines.reference import ReferenceEngine, call_arguments
from zbench.stats.estimate import median_interval
from zbench.trial import Trial

PROMPT = "a large red circle on a white background"
GOAL = 1.01


def main() -> None:
    """Print both medians, their ratio, and the interval of the paired ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40, help="rounds of each kind")
    parser.add_argument("--side", type=int, default=256, help="image side in pixels")
    parser.add_argument("--cache", action="store_true", help="with DBCache on")
    arguments = parser.parse_args()
    pipeline = PipelineConfig(
        name="zimage_tiny",
        preset="zimage_tiny",
        height=arguments.side,
        width=arguments.side,
        max_sequence_length=128,
    )
    engine = ReferenceEngine()
    engine.load(_trial(pipeline))
    engine.configure(DBCacheConfig(max_warmup_steps=2) if arguments.cache else CacheConfig())
    rounds = {"bare": lambda: _bare_s(engine, pipeline), "probed": lambda: engine.generate(PROMPT, 0).latency_s}
    for warm_up in (*rounds.values(), *rounds.values()):
        warm_up()
    gc.collect()
    gc.disable()  # as the worker does during timed rounds
    seen: dict[str, list[float]] = {"bare": [], "probed": []}
    order = random.Random(0)
    for _ in range(arguments.rounds):
        for kind in order.sample(sorted(rounds), 2):
            seen[kind].append(rounds[kind]())
    gc.enable()
    engine.close()
    _report(seen)


def _bare_s(engine: ReferenceEngine, pipeline: PipelineConfig) -> float:
    """Seconds of one call as anyone would write it."""
    call: dict[str, Any] = call_arguments(pipeline, PROMPT, 0)
    with engine.unwatched():
        began = time.perf_counter()
        engine.pipe(**call)
        return time.perf_counter() - began


def _report(seen: dict[str, list[float]]) -> None:
    medians = {kind: statistics.median(latencies) for kind, latencies in seen.items()}
    ratios = [probed / bare for bare, probed in zip(seen["bare"], seen["probed"], strict=True)]
    interval = median_interval(ratios)
    for kind, latencies in seen.items():
        print(f"{kind:<7} median {medians[kind]:.4f} s, least {min(latencies):.4f} s, {len(latencies)} rounds")
    between = f"{interval[0]:.4f} to {interval[1]:.4f}" if interval else "too few rounds for an interval"
    print(f"median of paired ratios {statistics.median(ratios):.4f}, 95 % interval {between}; goal at most {GOAL}")
    print(f"ratio of medians {medians['probed'] / medians['bare']:.4f}")


def _trial(pipeline: PipelineConfig) -> Trial:
    return Trial(
        pipeline=pipeline,
        engine=EngineConfig(name="reference", target="zbench.engines.reference:ReferenceEngine"),
        parallel=ParallelConfig(),
        offload=OffloadConfig(),
        cache=CacheConfig(),
        compute=ComputeConfig(),
        workload=WorkloadConfig(name="single", prompts=[Prompt(id="en-circle", text=PROMPT)]),
    )


if __name__ == "__main__":
    main()
