"""The benchmarks of paired sweeps run, and say what they cannot do in a line."""

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
BRIEF = (
    "pipeline=zimage_tiny",
    "hardware=cpu",
    "workload=single",
    "pipeline.height=64",
    "pipeline.width=64",
    "pipeline.steps=6",
    "cache=dbcache",
    "cache.max_warmup_steps=2",
    "cache.residual_diff_threshold=0.24",
    "measure.max_warmup_rounds=1",
    "measure.min_rounds=1",
    "measure.max_rounds=3",
)


def benchmark(name: str, *args: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), *args]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_one_repetition_has_figures_of_each_trial() -> None:
    done = benchmark("repetitions", "--times", "1", *BRIEF)
    assert done.returncode == 0, done.stderr
    first, *told = done.stdout.splitlines()
    assert first.startswith("1 {'none': [") and told[-1] == "goals: hold"
    assert sum("spread of speed-ups" in line for line in told) == 1


@pytest.mark.parametrize("name", ["repetitions", "paired_cost"])
@pytest.mark.parametrize("times", ["0", "-1", "many"])
def test_a_number_of_times_that_is_none_is_one_error(name: str, times: str) -> None:
    done = benchmark(name, f"--times={times}")
    assert done.returncode == 2 and done.stdout == "" and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].endswith(f"argument --times: '{times}' must be a whole number of at least 1")
