"""Runs in the peer's own environment: one trial of optimum-benchmark for each number of steps.

python peer_run.py MODEL_FOLDER ROUNDS WARMUP STEPS [STEPS ...] --out FILE [--relaxed]

`--relaxed` lets its process launcher sleep while the worker measures instead of spinning on a core, nothing else.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import optimum_benchmark.launchers.process.launcher as process_launcher
from optimum_benchmark import Benchmark, BenchmarkConfig, InferenceConfig, ProcessConfig, PyTorchConfig

SIDE = 256


class Patient:
    """A connection whose `poll` waits a moment, as `multiprocessing` would if it were asked to."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def poll(self) -> bool:
        """Whether something came within 50 ms."""
        return bool(self._connection.poll(0.05))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


def patient_pipe() -> tuple[Any, Any]:
    """As the launcher calls it: the worker's end and its own."""
    from multiprocessing import Pipe

    theirs, own = Pipe()
    return theirs, Patient(own)


def one_trial(model: str, rounds: int, warmup: int, steps: int) -> tuple[float, float]:
    """Wall seconds of a trial, and the median latency that it reports."""
    scenario = InferenceConfig(
        iterations=rounds,
        duration=0,
        warmup_runs=warmup,
        latency=True,
        memory=True,
        input_shapes={"batch_size": 1},
        call_kwargs={"num_inference_steps": steps, "guidance_scale": 0.0, "height": SIDE, "width": SIDE},
    )
    backend = PyTorchConfig(model=model, library="diffusers", task="text-to-image", device="cpu", no_weights=False)
    config = BenchmarkConfig(name="tiny", launcher=ProcessConfig(), scenario=scenario, backend=backend)
    began = time.perf_counter()
    report = Benchmark.launch(config)
    wall_s = time.perf_counter() - began
    return wall_s, statistics.median(report.call.latency.values)


def main() -> None:
    """Writes JSON: a pair of seconds for each number of steps."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("rounds", type=int)
    parser.add_argument("warmup", type=int)
    parser.add_argument("steps", type=int, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--relaxed", action="store_true")
    options = parser.parse_args()
    if options.relaxed:
        process_launcher.Pipe = patient_pipe
    trials = [one_trial(options.model, options.rounds, options.warmup, steps) for steps in options.steps]
    options.out.write_text(json.dumps(trials), encoding="utf-8")  # its logs are on stdout


if __name__ == "__main__":
    main()
