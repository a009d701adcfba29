"""What a resident trial costs beyond its generations: the wall clock of a `LocalExecutor` less the rounds it ran.

    python benchmarks/trial_overhead.py [--trials 12] [--rounds 8]

The first trial starts the worker and loads the pipeline; it is the baseline of the others and is not counted. The goal
is at most 0.3 s a trial. Included are configuring, hashing, images, quality and everything that travels by pipe.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from zbench.config import (
    CacheConfig,
    ComputeConfig,
    DBCacheConfig,
    EngineConfig,
    ExecutorConfig,
    MeasureConfig,
    OffloadConfig,
    ParallelConfig,
    PipelineConfig,
    Prompt,
    WorkloadConfig,
)
from zbench.engines import Descriptions
from zbench.executors import Completed, Setting, Task
from zbench.executors.local import LocalExecutor
from zbench.trial import Trial

GOAL_S = 0.3
PROMPTS = [
    Prompt(id="en-circle", text="a large red circle on a white background"),
    Prompt(id="zh-square", language="zh", text="灰色背景上有一个蓝色的正方形"),
]


def main() -> None:
    """Print every trial's overhead and their median."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=12, help="resident trials after the first")
    parser.add_argument("--rounds", type=int, default=8, help="timed rounds a trial")
    arguments = parser.parse_args()
    measure = MeasureConfig(min_rounds=arguments.rounds, max_rounds=arguments.rounds)
    with tempfile.TemporaryDirectory() as folder, LocalExecutor(ExecutorConfig(), Path(folder) / "logs") as executor:
        baseline = Path(folder) / "baseline"
        _overhead_s(executor, Setting(_trial(CacheConfig()), baseline), measure)
        overheads = []
        for index in range(arguments.trials):
            trial = _trial(DBCacheConfig(max_warmup_steps=2, residual_diff_threshold=0.1 + 0.02 * index))
            setting = Setting(trial, Path(folder) / str(index), baseline)
            overheads.append(_overhead_s(executor, setting, measure))
            print(f"{trial.label:<24} {overheads[-1]:.3f} s")
    mean_s = statistics.fmean(overheads)
    print(f"median {statistics.median(overheads):.3f} s, mean {mean_s:.3f} s, most {max(overheads):.3f} s a trial")
    print(f"goal at most {GOAL_S} s a trial")


def _overhead_s(executor: LocalExecutor, setting: Setting, measure: MeasureConfig) -> float:
    began = time.perf_counter()
    executor.submit(Task((setting,), measure, Descriptions().process(setting.trial)))
    (outcome,) = executor.next_done(lambda task, event: None, lambda: False).results
    wall_s = time.perf_counter() - began
    if not isinstance(outcome, Completed):
        raise SystemExit(f"{setting.trial.label}: {outcome}")
    measured = outcome.measurement
    return wall_s - sum(measured.warmup_latencies_s) - sum(r.latency_s for r in measured.requests)


def _trial(cache: CacheConfig) -> Trial:
    return Trial(
        pipeline=PipelineConfig(
            name="zimage_tiny", preset="zimage_tiny", height=256, width=256, max_sequence_length=128
        ),
        engine=EngineConfig(name="reference", target="zbench.engines.reference:ReferenceEngine"),
        parallel=ParallelConfig(),
        offload=OffloadConfig(),
        cache=cache,
        compute=ComputeConfig(),
        workload=WorkloadConfig(name="pair", prompts=PROMPTS),
    )


if __name__ == "__main__":
    main()
