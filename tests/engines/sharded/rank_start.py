"""Starts the rank processes of a test, and waits for them; also the process that they are forked from.

`python rank_start.py MODULE FOLDER RANKS` imports MODULE once, which takes seconds of each core, and forks. Each rank
calls `main(folder, rank, ranks)` of it, and has its words in FOLDER/RANK.log.
"""

import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

HERE = Path(__file__).parent
TESTS = HERE.parents[1]
Run = Callable[[Path, int, int], None]
CODES = "codes.json"
WITHIN_S = 900


def run_ranks(module: str, place: Path, ranks: int) -> None:
    """Have `ranks` processes run `module`, and leave in `place` what they made; they have ended then.

    Once more, with a warning, where one of them broke in native code: torch 2.13 on gloo was seen to do so once, in a
    plain matmul, with cases that passed before and after; that was before `gather.ONE_AT_A_TIME`.
    """
    given = {path.name: path.read_bytes() for path in place.iterdir()}
    codes, logs = _once(module, place, ranks)
    if -signal.SIGSEGV in codes:
        warnings.warn(f"a rank was ended by SIGSEGV, so all run once more; it said\n{logs}", stacklevel=2)
        for made in place.iterdir():
            shutil.rmtree(made) if made.is_dir() else made.unlink()
        for name, data in given.items():
            (place / name).write_bytes(data)
        codes, logs = _once(module, place, ranks)
    assert codes == [0] * ranks, logs


def _once(module: str, place: Path, ranks: int) -> tuple[list[int | None], str]:
    """Exit codes, of ranks that were ended None, and the ends of the logs."""
    paths = [str(TESTS.parent), str(TESTS), str(HERE), os.environ.get("PYTHONPATH", "")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, __file__, module, str(place), str(ranks)]
    with (place / "start.log").open("w") as log:
        started = subprocess.Popen(
            command, env={**env, "OMP_NUM_THREADS": "1"}, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        started.wait(WITHIN_S)
    finally:
        if started.poll() is None:
            os.killpg(started.pid, signal.SIGKILL)  # with all ranks
            started.wait()
    codes = json.loads((place / CODES).read_text()) if (place / CODES).exists() else [None] * ranks
    logs = "\n".join(path.read_text()[-2000:] for path in sorted(place.glob("*.log")))
    return codes, logs


def main(module: str, place: Path, ranks: int) -> None:
    """Fork the ranks. Once one fails the others are ended, for they would wait for it."""
    run = importlib.import_module(module).main
    running = {_forked(run, place, rank, ranks): rank for rank in range(ranks)}
    codes: list[int | None] = [None] * ranks
    while running:
        pid, status = os.wait()
        code = codes[running.pop(pid)] = os.waitstatus_to_exitcode(status)
        if code:
            break
    for pid in running:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    (place / CODES).write_text(json.dumps(codes))


def _forked(run: Run, place: Path, rank: int, ranks: int) -> int:
    """The process id of a rank."""
    pid = os.fork()
    return pid if pid else _as_rank(run, place, rank, ranks)


def _as_rank(run: Run, place: Path, rank: int, ranks: int) -> NoReturn:
    code = 1
    try:
        with (place / f"{rank}.log").open("w") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        run(place, rank, ranks)
        code = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
