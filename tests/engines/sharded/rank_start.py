"""Starts the rank processes of a test, and waits for them."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
TESTS = HERE.parents[1]


def run_ranks(place: Path, cases: list[dict[str, Any]], ranks: int) -> None:
    """Run all cases in `ranks` processes, which leave in `place` what they made; they have ended then.

    Once more, with a warning, where one of them broke in native code: torch 2.13 on gloo was seen to do so once, in a
    plain matmul, with cases that passed before and after.
    """
    codes, logs = _once(place, cases, ranks)
    if -signal.SIGSEGV in codes:
        warnings.warn(f"a rank was ended by SIGSEGV, so all run once more; it said\n{logs}", stacklevel=2)
        for made in place.iterdir():
            shutil.rmtree(made) if made.is_dir() else made.unlink()
        codes, logs = _once(place, cases, ranks)
    assert codes == [0] * ranks, logs


def _once(place: Path, cases: list[dict[str, Any]], ranks: int) -> tuple[list[int | None], str]:
    """Exit codes and the ends of the logs."""
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
        return [rank.poll() for rank in started], logs
    finally:
        for rank in started:
            rank.kill()
            rank.wait()
