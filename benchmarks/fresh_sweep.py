"""A sweep in a process of its own, of this very zbench, for benchmarks that look at what came of it."""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from zbench.record import Record
from zbench.store import latest_records, read_records

HOME = Path(__file__).resolve().parents[1]
NAME = "again"


def fresh_sweep(folder: Path, overrides: Sequence[str]) -> list[Record]:
    """Its records; the journal is kept in `folder`. SystemExit where it fails."""
    command = [sys.executable, "-m", "zbench", "sweep", *overrides, f"sweep.name={NAME}"]
    path = os.pathsep.join([str(HOME), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\nended with {done.returncode}: {done.stderr}")
    return latest_records(read_records(folder / "runs" / NAME / "records.jsonl"))


def times(text: str) -> int:
    """How often, as an argument: at least once."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number of at least 1")
    return int(text)
