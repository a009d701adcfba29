"""zbench as a user runs it: a process of its own, over the torch-free synthetic engine unless a test says otherwise.

`zbench_here` is for tests of what a command says and leaves: it runs in this process, where all is imported. Its
workers are processes all the same.
"""

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import psutil
import pytest

from zbench.cli import main
from zbench.engines.programs.surroundings import LOGS

TESTS = Path(__file__).parent
NOWHERE = str(TESTS / "no_such_folder")
SYNTHETIC = ("--config-dir", str(TESTS / "conf"), "engine=synthetic", "hardware=cpu")


def environment() -> dict[str, str]:
    """With the synthetic engine importable; no terminal width, no colours, no ceilings but a test's."""
    paths = [str(TESTS.parent), str(TESTS / "engines"), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "TERM": "dumb",
        "ZBENCH_CEILINGS_DIR": os.environ.get("ZBENCH_CEILINGS_DIR", NOWHERE),
    }


def start(cwd: Path, *args: str) -> subprocess.Popen[str]:
    """A zbench process in a session of its own, so that signals reach it alone, and heeds each of them."""
    return subprocess.Popen(
        [sys.executable, "-m", "zbench", *args],
        cwd=cwd,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=_heed,
    )


def _heed() -> None:
    """Under nohup the tests ignore SIGHUP, and so would all that they start."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@contextmanager
def serving(cwd: Path, *args: str, port: int = 0) -> "Iterator[tuple[subprocess.Popen[str], str]]":
    """A `zbench serve` that is ready, and its address; ended in any case."""
    process = start(cwd, "serve", *args, "--port", str(port))
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url.startswith("http://127.0.0.1:"), process.communicate()
        yield process, url
    finally:
        if process.returncode is None:
            end(process)


def end(process: "subprocess.Popen[str]") -> str:
    """Ask it to end, and see that it does; what it said on stderr."""
    process.terminate()
    try:
        _, err = process.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        kill(process)
        raise
    return err


def zbench(cwd: Path, *args: str, timeout_s: float = 120) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end."""
    process = start(cwd, *args)
    try:
        out, err = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        kill(process)  # its worker ends with it
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def zbench_here(cwd: Path, *args: str) -> "subprocess.CompletedProcess[str]":
    """What `zbench` does, without a process for it: no start of an interpreter, and no imports."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.chdir(cwd)
        patch.setattr(sys, "argv", ["zbench", *args])
        for name, value in environment().items():
            patch.setenv(name, value)
        code = main(args)
    return subprocess.CompletedProcess(args, code, out.getvalue(), err.getvalue())


def wait_for(condition: Callable[[], bool], timeout_s: float = 60) -> None:
    """Poll until `condition` holds; fails loudly when it never does."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def workers_of(pid: int) -> list[psutil.Process]:
    """Live worker processes of a zbench process."""
    try:
        return [p for p in psutil.Process(pid).children(recursive=True) if p.status() != psutil.STATUS_ZOMBIE]
    except psutil.NoSuchProcess:
        return []


def logging_under(folder: Path) -> list[psutil.Process]:
    """Workers that this process started and that log there; other tests may have left children of their own."""
    found = [child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE]
    return [child for child in found if child.environ().get(LOGS) == str(folder.resolve())]


def kill(process: "subprocess.Popen[str]") -> list[psutil.Process]:
    """`kill -9` of the parent alone; the workers it had, which must end by themselves."""
    workers = workers_of(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    return workers
