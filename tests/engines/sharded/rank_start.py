"""Starts the rank processes of a test, and waits for them."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
TESTS = HERE.parents[1]


def run_ranks(place: Path, cases: list[dict[str, Any]], ranks: int) -> None:
    """Run all cases in `ranks` processes, which leave in `place` what they made; they have ended then."""
    (place / "cases.json").write_text(json.dumps(cases))
    paths = [str(TESTS.parent), str(TESTS), str(HERE), os.environ.get("PYTHONPATH", "")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1"}
    started = []
    for rank in range(ranks):
        with (place / f"{rank}.log").open("w") as log:
            command = [sys.executable, str(HERE / "ranks_main.py"), str(rank), str(place)]
            started.append(subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT))
    until = time.monotonic() + 600
    try:
        while any(rank.poll() is None for rank in started) and time.monotonic() < until:
            if any(rank.poll() not in (None, 0) for rank in started):
                break  # the others would wait for it
            time.sleep(0.2)
        logs = "\n".join((place / f"{rank}.log").read_text()[-2000:] for rank in range(ranks))
        assert [rank.poll() for rank in started] == [0] * ranks, logs
    finally:
        for rank in started:
            rank.kill()
            rank.wait()
