"""What reading costs: `python benchmarks/many_records.py [TRIALS …]` (1,000, 10,000 and 100,000 if none is given).

One record of the demo's kind is written as many trials, each with settings, times and images of its own. Then `read`,
`export`, `compare` and `report` run over them, each in a process of its own, and seconds, CPU seconds, peak memory and
CPU microseconds a record are printed. Where others share the cores, CPU seconds say what an idle machine would take.
Records go into a folder that is deleted afterwards; two runs of 100,000 take 2.6 GB of it.
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from zbench.record import Record
from zbench.trial import Trial

DEMO = Path(__file__).parent.parent / "reports" / "cpu" / "demo" / "records.jsonl"
SIZES = (1_000, 10_000, 100_000)
GOALS = {"read": 60, "export": 60, "compare": 60, "report": 120}
"""Seconds for 100,000."""
MOST_BYTES = 2**30
ONLY_READ = "import sys; from pathlib import Path; from zbench.stored import StoredRecords\n"
ONLY_READ += "print(sum(r.measurement is not None for r in StoredRecords([Path(sys.argv[1])]).values()))"


def write_run(folder: Path, trials: int, seed: int) -> None:
    """A journal of one reference and `trials - 1` others; the same trials for every `seed`, with other times."""
    chance = random.Random(seed)
    demo = [json.loads(Record.from_json(line).to_json()) for line in DEMO.read_text(encoding="utf-8").splitlines()]
    measured = [data for data in demo if data["measurement"] is not None]
    reference = next(data for data in measured if data["trial_id"] == data["reference_id"])
    model = min(
        (data for data in measured if data["config"]["cache"]["method"] == "dbcache"), key=lambda data: len(str(data))
    )
    folder.mkdir(parents=True)
    text = json.dumps(model)
    with (folder / "records.jsonl").open("w", encoding="utf-8") as journal:
        journal.write(json.dumps(reference, ensure_ascii=False, separators=(",", ":")) + "\n")
        for number in range(1, trials):
            data = _varied(text, number, chance)
            journal.write(json.dumps(data, ensure_ascii=False, separators=(",", ":")) + "\n")


def _varied(model: str, number: int, chance: random.Random) -> dict[str, Any]:
    data = json.loads(model)
    cache = data["config"]["cache"]
    cache["residual_diff_threshold"] = number / 1e6
    cache["max_warmup_steps"] = number % 5
    trial = Trial.from_dict(data["config"])
    data |= {"trial_id": trial.trial_id, "label": trial.label}
    measurement = data["measurement"]
    measurement["trial_id"] = trial.trial_id
    pace = chance.uniform(0.5, 1.1)
    at_s = 0.0
    for request in measurement["window"]["requests"]:
        stretch = pace * chance.uniform(0.98, 1.02)
        request["trial_id"] = trial.trial_id
        for key in ("latency_s", *(key for key in ("server_s",) if request.get(key))):
            request[key] *= stretch
        request["stages_s"] = {stage: seconds * stretch for stage, seconds in request["stages_s"].items()}
        request["steps_s"] = [seconds * stretch for seconds in request["steps_s"]]
        request["due_s"] = request["sent_s"] = request["begun_s"] = at_s
        at_s += request["latency_s"]
        request["done_s"] = at_s
        request["image_sha256"] = f"{chance.getrandbits(256):064x}"
    for likeness in measurement["quality"] or ():
        likeness |= {"identical": False, "ssim": chance.uniform(0.8, 1.0), "psnr_db": chance.uniform(20, 45)}
    return data


def commands(base: Path, new: Path, out: Path) -> dict[str, list[str]]:
    """What is measured, by name."""
    zbench = [sys.executable, "-m", "zbench"]
    return {
        "read": [sys.executable, "-c", ONLY_READ, str(new / "records.jsonl")],
        "export": [*zbench, "export", str(new), "--out", str(out / "figures.csv")],
        "export csv-rounds": [*zbench, "export", str(new), "--format", "csv-rounds", "--out", str(out / "rounds.csv")],
        "compare": [*zbench, "compare", str(base), str(new)],
        "report": [*zbench, "report", str(new), "--out", str(out / "report")],
    }


def run(command: list[str]) -> tuple[float, float, int, int]:
    """Seconds, CPU seconds, peak memory in bytes, and exit code of a process; what it prints is thrown away."""
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, 1, 3):
        print(said, file=sys.stderr)
    cpu_s = usage.ru_utime + usage.ru_stime
    return time.perf_counter() - began, cpu_s, usage.ru_maxrss * 1024, process.returncode


def main() -> None:
    """Print a line a command and size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trials", nargs="*", type=int, default=SIZES)
    parser.add_argument("--only", action="append", help="a command's name; may be given several times")
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for trials in options.trials:
        with tempfile.TemporaryDirectory(prefix="zbench-many-") as name:
            base, new, out = (Path(name) / part for part in ("base", "new", "out"))
            out.mkdir()
            write_run(base, trials, seed=0)
            write_run(new, trials, seed=1)
            size = (new / "records.jsonl").stat().st_size
            print(f"{trials:,} records of {size / trials / 1000:.1f} kB, {size / 1e9:.2f} GB", flush=True)
            for what, command in commands(base, new, out).items():
                if options.only and what not in options.only:
                    continue
                seconds, cpu_s, peak, code = run(command)
                goal = GOALS.get(what)
                said = f"  {what:18} {seconds:7.2f} s, CPU {cpu_s:7.2f} s  {peak / 2**20:6.0f} MiB"
                said += f"  {1e6 * cpu_s / trials:6.0f} us of CPU a record"
                if goal and trials == SIZES[-1]:
                    holds = seconds <= goal and peak <= MOST_BYTES
                    said += f"  goal {goal} s, 1,024 MiB: {'holds' if holds else 'missed'}"
                print(said + (f"  exit {code}" if code not in (0, 1, 3) else ""), flush=True)


if __name__ == "__main__":
    main()
