"""Each way to time the call, in a process of its own: the medians of equally many calls after equal warm-up."""

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from zbench.store import read_records

HERE = Path(__file__).parent
WARMUP = 5


def zbench(rounds: int, folder: Path) -> float:
    """`zbench run`, from its journal."""
    prompt = "{id: circle, text: a large red circle on a white background, language: en}"
    overrides = [
        "workload=single",
        f"workload.prompts=[{prompt}]",
        f"measure.max_warmup_rounds={WARMUP}",
        f"measure.min_rounds={rounds}",
        f"measure.max_rounds={rounds}",
        "sweep.name=agreement",
        "sweep.fresh=true",
    ]
    _run([sys.executable, "-m", "zbench", "run", *overrides], folder)
    (*_, record) = read_records(folder / "runs" / "agreement" / "records.jsonl")
    assert record.measurement is not None
    return statistics.median(r.latency_s for r in record.measurement.rounds)


def bare_loop(rounds: int, folder: Path) -> float:
    """A loop around `perf_counter`, written here."""
    return float(_run([sys.executable, str(HERE / "tools.py"), str(rounds)], folder))


def pyperf(rounds: int, folder: Path) -> float:
    """`pyperf.Runner.bench_func` with one process and one call a value."""
    out = folder / "pyperf.json"
    out.unlink(missing_ok=True)
    options = ["--processes=1", "--loops=1", f"--values={rounds}", f"--warmups={WARMUP}", f"--output={out}"]
    _run([sys.executable, str(HERE / "by_pyperf.py"), *options], folder)
    runs = json.loads(out.read_text())["benchmarks"][0]["runs"]
    return statistics.median(value for run in runs for value in run.get("values", []))


def pytest_benchmark(rounds: int, folder: Path) -> float:
    """`benchmark.pedantic` with one iteration a round."""
    out = folder / "pytest.json"
    test = str(HERE / "by_pytest_benchmark.py")
    options = ["-q", "-p", "no:cacheprovider", "-c", os.devnull, f"--rootdir={HERE}", f"--benchmark-json={out}"]
    _run([sys.executable, "-m", "pytest", test, *options], folder, ROUNDS=str(rounds), WARMUP=str(WARMUP))
    return float(json.loads(out.read_text())["benchmarks"][0]["stats"]["median"])


def _run(command: list[str], folder: Path, **environment: str) -> str:
    env = {**os.environ, **environment}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\nended with {done.returncode}: {done.stderr}{done.stdout}")
    return done.stdout


def _loop(rounds: int) -> float:
    from call import bare_call

    call = bare_call()
    for _ in range(WARMUP):
        call()
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


if __name__ == "__main__":
    print(_loop(int(sys.argv[1])))
