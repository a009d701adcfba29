"""Records real rounds of one version, for `error_rates.py --recorded`.

python benchmarks/record_rounds.py --out FILE.csv [--rounds 2400] [OVERRIDE ...]

By default the tiny pipeline at 64×64 and one step, in a resident worker, one prompt and seed. Columns: `begun_s`
(seconds after the start), `latency_s`, `disturbances` (as the round's record names them). Beside it, FILE.json says
where that was.
"""

import argparse
import csv
import json
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.progress import track
from small import SMALL

from zbench.ab.side import Side, SideWorker, present_trial, warm_up
from zbench.composition import overlay
from zbench.environment import capture
from zbench.hardware.detect import present_devices
from zbench.sweeper.here import one_job


def main() -> None:
    """Warm up, then write a line a round as it ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=2400)
    parser.add_argument("overrides", nargs="*", default=[])
    arguments = parser.parse_args()
    overrides = overlay(SMALL, arguments.overrides)
    config = one_job(overrides, None)
    trial = present_trial("record_rounds", config, overrides)
    about = {"overrides": overrides, "environment": capture(present_devices()).to_dict()}
    arguments.out.with_suffix(".json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    with TemporaryDirectory() as folder, arguments.out.open("w", newline="", encoding="utf-8") as file:
        worker = SideWorker([Side("a", trial)], Path(folder) / "worker.log", config.measure.timeout_s)
        worker.prepare(time.perf_counter())
        warm_up({"a": worker}, config.measure.max_warmup_rounds, lambda _, latency_s: None)
        rows = csv.writer(file)
        rows.writerow(["begun_s", "latency_s", "disturbances"])
        for _ in track(range(arguments.rounds), description="rounds", disable=not sys.stderr.isatty()):
            made = worker.generate("a", 0)
            rows.writerow([made.begun_s, f"{made.latency_s:.6f}", " ".join(made.disturbances)])
        worker.close()
    print(f"{arguments.rounds} rounds in {arguments.out}")


if __name__ == "__main__":
    main()
