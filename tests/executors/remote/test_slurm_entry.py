"""What a job runs, as a process of this machine: it measures, is warned, is requeued, and ends when nobody wants it."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import psutil
import pytest
from commands import environment, wait_for
from factories import trial

from zbench.config import EngineConfig, MeasureConfig, SlurmExecutorConfig
from zbench.executors import Completed, Done, Setting, Task
from zbench.executors.remote.pool import RemotePool
from zbench.executors.slurm.queue import JobState
from zbench.executors.slurm.transport import SlurmTransport

CONFIG = SlurmExecutorConfig(name="slurm", target="", share_device=True, silent_s=5.0, poll_s=0.5)
MEASURE = MeasureConfig(max_warmup_rounds=0, min_rounds=2, max_rounds=2, timeout_s=60.0)
RUN = "import sys; from zbench.executors.slurm.entry import run; run(sys.argv[1], float(sys.argv[2]), 0, False)"


class JobsHere:
    """In place of Slurm: a job is a process group of this machine, and its process is its id."""

    def __init__(self) -> None:
        self.begun: dict[str, subprocess.Popen[bytes]] = {}
        self.folders: dict[str, Path] = {}

    def submit(self, folder: Path, prints: Path, devices: int, avoid: Sequence[str]) -> str:
        return self._begin(str(len(self.begun) + 1), folder)

    def _begin(self, job: str, folder: Path) -> str:
        command = [sys.executable, "-c", RUN, str(folder), str(CONFIG.silent_s)]
        self.begun[job] = subprocess.Popen(command, env=environment(), start_new_session=True)
        self.folders[job] = folder
        return job

    def again(self, job: str) -> None:
        """Requeued and begun at once."""
        self.signal(job, signal.SIGKILL)
        self.begun[job].wait()
        self._begin(job, self.folders[job])

    def states(self, ids: Iterable[str]) -> dict[str, JobState] | None:
        return {job: JobState("RUNNING" if self.begun[job].poll() is None else "COMPLETED") for job in ids}

    def cancel(self, ids: Iterable[str]) -> str | None:
        for job in ids:
            self.signal(job, signal.SIGTERM)
        return None

    def processes(self, job: str) -> list[psutil.Process]:
        """The job's own and all that it started."""
        try:
            own = psutil.Process(self.begun[job].pid)
            return [own, *own.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def signal(self, job: str, number: signal.Signals) -> None:
        """As Slurm does: to each of its processes."""
        for process in self.processes(job):
            process.send_signal(number)


@pytest.fixture
def jobs() -> Iterator[JobsHere]:
    found = JobsHere()
    yield found
    for job, process in found.begun.items():
        found.signal(job, signal.SIGKILL)
        process.wait()


@pytest.fixture
def pool(tmp_path: Path, jobs: JobsHere) -> Iterator[RemotePool]:
    transport = SlurmTransport(CONFIG, tmp_path / "slurm", jobs)
    with RemotePool(transport, CONFIG, tmp_path / "logs") as found:
        yield found


def task(folder: Path, round_s: float, number: int = 0) -> Task:
    options = {"round_s": round_s, "step_s": 0.01 + number}
    engine = EngineConfig(name="synthetic", target="synthetic:SyntheticEngine", options=options)
    return Task((Setting(trial(engine=engine), folder / str(number)),), MEASURE)


def measured(done: Done) -> None:
    (result,) = done.results
    assert isinstance(result, Completed), result


def next_done(pool: RemotePool, meanwhile: Callable[[], None] = lambda: None) -> Done:
    """`meanwhile` is called once, when a request is over."""
    called = False

    def on_event(_: Task, event: dict[str, object]) -> None:
        nonlocal called
        if event["event"] == "round" and not called:
            called = True
            meanwhile()

    return pool.next_done(on_event, lambda: False)


def test_a_job_that_is_requeued_is_a_worker_again_and_one_that_is_warned_ends_its_task(
    pool: RemotePool, jobs: JobsHere, tmp_path: Path
) -> None:
    pool.submit(task(tmp_path, 0.3))
    measured(next_done(pool, lambda: jobs.again("1")))
    assert list(jobs.begun) == ["1"]
    pool.submit(task(tmp_path, 0.3, 1))
    measured(next_done(pool, lambda: jobs.signal("1", signal.SIGUSR2)))
    pool.submit(task(tmp_path, 0.01, 2))
    measured(next_done(pool))
    assert list(jobs.begun) == ["1", "2"] and jobs.begun["1"].wait(20) == 0
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.isdigit()) == ["0", "1", "2"]


def test_a_job_ends_with_all_that_it_started_once_its_parent_is_silent(
    pool: RemotePool, jobs: JobsHere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool.submit(task(tmp_path, 0.01))
    measured(next_done(pool))
    processes = jobs.processes("1")
    assert len(processes) > 1
    (pulse,) = (tmp_path / "slurm").glob("*/pulse")
    pulse.unlink()
    pulse.mkdir()  # as where the parent is gone: nobody rewrites it
    began_s = time.monotonic()
    wait_for(lambda: not any(process.is_running() and process.status() != "zombie" for process in processes), 30)
    assert time.monotonic() - began_s > CONFIG.silent_s / 2
