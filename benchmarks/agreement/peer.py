"""zbench beside its nearest peer, optimum-benchmark, on the same tiny pipeline and grid: seconds a trial, and latency.

python benchmarks/agreement/peer.py --venv FOLDER [--rounds 8] [--steps 4 6 8]

The peer lives in an environment of its own, made in FOLDER if it is not there (its process launcher, one process a
trial). It runs twice: stock, where the parent spins on a core while the worker measures, and relaxed, where the parent
sleeps. zbench runs its isolated worker. Both measure equally many rounds of a 256×256 image after equal warm-up. The
goal is at least 5 times fewer seconds a trial; beyond: 10.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

from zbench.store import read_records
from zbench.zimage.layout import preset_folder

HERE = Path(__file__).parent
PEER = ["optimum-benchmark==0.6.0", "torch==2.13.0", "diffusers==0.36.0", "transformers>=4.57,<5"]
"""The newest that fit together: it needs transformers 4, and so an older diffusers."""
GOAL, BEYOND = 5, 10
WARMUP = 4


def prepare(folder: Path) -> Path:
    """The interpreter of the peer's environment, made if need be."""
    python = folder / "bin" / "python"
    if not python.is_file():
        venv.create(folder, with_pip=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *PEER], check=True)
    return python


def by_peer(python: Path, rounds: int, steps: list[int], *flags: str) -> list[tuple[float, float]]:
    """(seconds of the trial, median latency) for each number of steps."""
    numbers = [str(number) for number in (rounds, WARMUP, *steps)]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "trials.json"
        command = [str(python), str(HERE / "peer_run.py"), str(preset_folder("zimage_tiny")), *numbers]
        command += ["--out", str(out), *flags]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode or not out.is_file():
            sys.exit(f"{' '.join(command)}\nended with {done.returncode}: {done.stderr[-3000:]}")
        return [(wall, latency) for wall, latency in json.loads(out.read_text(encoding="utf-8"))]


def by_zbench(rounds: int, steps: list[int]) -> list[tuple[float, float]]:
    """The same; the trials share one worker, whose start and report are spread over them."""
    overrides = [
        "pipeline=zimage_tiny",
        "hardware=cpu",
        "workload=single",
        f"pipeline.steps={','.join(map(str, steps))}",
        f"measure.max_warmup_rounds={WARMUP}",
        f"measure.min_rounds={rounds}",
        f"measure.max_rounds={rounds}",
        "sweep.name=peer",
    ]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "zbench", "sweep", *overrides]
        began = time.perf_counter()
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        wall_s = time.perf_counter() - began
        if done.returncode:
            sys.exit(f"{' '.join(command)}\nended with {done.returncode}: {done.stderr}")
        records = read_records(Path(folder) / "runs" / "peer" / "records.jsonl")
    medians = {
        r.config["pipeline"]["steps"]: statistics.median(s for _, s in r.measurement.paired_latencies_s)
        for r in records
        if r.measurement
    }
    return [(wall_s / len(steps), medians[number]) for number in steps]


def main() -> None:
    """Print a line a tool and number of steps, then the ratios; exit 1 below the goal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--venv", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--steps", type=int, nargs="+", default=[4, 6, 8])
    options = parser.parse_args()
    python = prepare(options.venv.resolve())
    found = {
        "zbench": by_zbench(options.rounds, options.steps),
        "optimum-benchmark, stock": by_peer(python, options.rounds, options.steps),
        "optimum-benchmark, relaxed": by_peer(python, options.rounds, options.steps, "--relaxed"),
    }
    for name, trials in found.items():
        told = ", ".join(f"{s} steps {latency:.3f} s" for s, (_, latency) in zip(options.steps, trials, strict=True))
        print(f"{name}: {statistics.fmean(wall for wall, _ in trials):.1f} s a trial; latency {told}")
    ours = statistics.fmean(wall for wall, _ in found["zbench"])
    ratios = {name: statistics.fmean(wall for wall, _ in trials) / ours for name, trials in found.items()}
    for name in list(found)[1:]:
        print(f"{name} over zbench: {ratios[name]:.1f} times the seconds a trial (goal {GOAL}, beyond {BEYOND})")
    sys.exit(0 if ratios["optimum-benchmark, stock"] >= GOAL else 1)


if __name__ == "__main__":
    main()
