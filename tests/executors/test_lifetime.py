"""No worker outlives its parent, whatever keeps its threads: nor does what it started."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from commands import wait_for
from factories import trial

from zbench.config import EngineConfig
from zbench.errors import MachineError
from zbench.executors.client import WorkerClient
from zbench.worker import watcher

ENDS_WITHIN_S = 10.0
HERE = Path(__file__).parent


@pytest.fixture
def engines_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    path = [str(HERE.parent / "engines"), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))


@pytest.mark.parametrize("is_stopped", [False, True], ids=["native code holds the interpreter", "and it is stopped"])
def test_a_worker_and_what_it_started_die_with_a_killed_parent(
    tmp_path: Path, is_stopped: bool, engines_importable: None
) -> None:
    of = trial(engine=EngineConfig(name="stubborn", target="stubborn:StubbornEngine"))
    measure = {"max_warmup_rounds": 0, "min_rounds": 2, "max_rounds": 2, "timeout_s": 600.0}
    task = tmp_path / "task.json"
    task.write_text(json.dumps({"trial": of.to_dict(), "measure": measure, "folder": str(tmp_path)}))
    parent = subprocess.Popen([sys.executable, str(HERE / "parent.py"), str(task)], stdout=subprocess.DEVNULL)
    try:
        wait_for(lambda: said(tmp_path) is not None)
        (worker,) = psutil.Process(parent.pid).children()
        started = [*worker.children(recursive=True), *watchers_of(worker.pid)]
        assert said(tmp_path) in {each.pid for each in started} and len(started) == 2
        if is_stopped:
            os.kill(worker.pid, signal.SIGSTOP)
    finally:
        parent.kill()
        parent.wait()
    _, alive = psutil.wait_procs([worker, *started], timeout=ENDS_WITHIN_S)
    assert not alive, "the watcher, which has no more to watch, is among those that must end"


def said(folder: Path) -> int | None:
    """The process id that the engine wrote into its worker's log."""
    for log in folder.glob("logs/*.log"):
        found = re.search(r"child (\d+)", log.read_text())
        if found:
            return int(found[1])
    return None


def watchers_of(worker: int) -> list[psutil.Process]:
    """Those that wait beside it."""
    every = psutil.process_iter(["cmdline"])
    return [each for each in every if (each.info["cmdline"] or [""])[-2:] == [watcher.__file__, str(worker)]]


def test_the_watcher_ends_with_a_worker_that_was_let_go(tmp_path: Path) -> None:
    client = WorkerClient(tmp_path / "worker.log")
    while client.environment is None:
        assert client.next_event(60.0) is not None
    waiting = watchers_of(client.process.pid)
    client.quit()
    _, alive = psutil.wait_procs(waiting, timeout=ENDS_WITHIN_S)
    assert len(waiting) == 1 and not alive


def test_a_worker_that_cannot_be_started_is_one_line(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    with pytest.raises(MachineError, match="cannot start a worker, /no/such/python: No such file or directory"):
        WorkerClient(tmp_path / "worker.log", python="/no/such/python")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(MachineError, match=r"cannot start a worker, .*file"):
        WorkerClient(tmp_path / "file" / "worker.log")
    assert before is None or len(os.listdir("/proc/self/fd")) == before, "pipes are closed again"
