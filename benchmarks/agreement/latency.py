"""zbench's latency over that of tools that know nothing of it, on the same call: the goal is within 1 %.

python benchmarks/agreement/latency.py [--rounds 30]

pyperf and pytest-benchmark, each in a process of its own, time the very calls that zbench times from within, so that
nothing but the two ways of timing differs. The bare loop calls diffusers' pipeline with zbench's timers off; its rounds
take turns with timed ones.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from call import Call

HERE = Path(__file__).parent
WARMUP = 5
GOAL = 0.01


def bare_loop(rounds: int, folder: Path) -> tuple[list[float], list[float]]:
    """Seconds by zbench, and by a loop around `perf_counter`."""
    call, bare = Call(), []
    for _ in range(WARMUP):
        call()
    call.latencies_s.clear()
    for turn in range(rounds):
        for timed in (True, False) if turn % 2 else (False, True):
            if timed:
                call()
                continue
            with call.engine.unwatched():
                began = time.perf_counter()
                call.bare()
                bare.append(time.perf_counter() - began)
    return call.latencies_s, bare


def pyperf(rounds: int, folder: Path) -> tuple[list[float], list[float]]:
    """Seconds by zbench, and by `pyperf.Runner.bench_func`: one process, one call a value."""
    out = folder / "pyperf.json"
    options = ["--processes=1", "--loops=1", f"--values={rounds}", f"--warmups={WARMUP}", f"--output={out}"]
    ours = _run(
        [sys.executable, str(HERE / "by_pyperf.py"), *options, "--inherit-environ=LATENCIES,OMP_NUM_THREADS"], folder
    )
    runs = json.loads(out.read_text())["benchmarks"][0]["runs"]
    return ours[-rounds:], [value for run in runs for value in run.get("values", [])]


def pytest_benchmark(rounds: int, folder: Path) -> tuple[list[float], list[float]]:
    """Seconds by zbench, and by `benchmark.pedantic` with one iteration a round."""
    out = folder / "pytest.json"
    options = ["-q", "-p", "no:cacheprovider", "-c", os.devnull, f"--rootdir={HERE}", f"--benchmark-json={out}"]
    command = [sys.executable, "-m", "pytest", str(HERE / "by_pytest_benchmark.py"), *options]
    ours = _run(command, folder, ROUNDS=str(rounds), WARMUP=str(WARMUP))
    return ours[-rounds:], json.loads(out.read_text())["benchmarks"][0]["stats"]["data"]


def _run(command: list[str], folder: Path, **environment: str) -> list[float]:
    latencies = folder / "latencies.json"
    latencies.unlink(missing_ok=True)
    env = {**os.environ, **environment, "LATENCIES": str(latencies)}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    if done.returncode or not latencies.is_file():
        sys.exit(f"{' '.join(command)}\nended with {done.returncode}: {done.stderr}{done.stdout}")
    found: list[float] = json.loads(latencies.read_text())
    return found


def main() -> None:
    """Print a line a tool; exit 1 if one is further off."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    arguments = parser.parse_args()
    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        for name, tool in {"a bare loop": bare_loop, "pyperf": pyperf, "pytest-benchmark": pytest_benchmark}.items():
            ours, theirs = tool(arguments.rounds, Path(folder))
            assert len(ours) == len(theirs) == arguments.rounds
            ratio = statistics.median(ours) / statistics.median(theirs)
            missed += abs(ratio - 1) > GOAL
            medians = f"{statistics.median(ours):.4f} s over {statistics.median(theirs):.4f} s"
            print(f"zbench over {name}: {ratio:.4f} ({medians}, {arguments.rounds} rounds)", flush=True)
    print(f"goal: within {GOAL:.0%}: {'holds' if not missed else f'{missed} missed'}")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
