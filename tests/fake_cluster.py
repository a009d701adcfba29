"""A cluster for tests of a pool: what its nodes say is scripted, and its clock runs as it is polled."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from factories import ENVIRONMENT, measurement, trial

from zbench.config import ComputeConfig, DBCacheConfig, ExecutorConfig, MeasureConfig, ParallelConfig
from zbench.executors import Completed, Done, Setting, Task
from zbench.executors.remote import Heard, Lost, wire
from zbench.executors.remote.pool import RemotePool
from zbench.trial import Trial

SOMEWHERE = ExecutorConfig(name="somewhere", target="x:Y")


class FakeCluster:
    """See `Transport`. Where nothing is to be heard, the next step of `script` is taken; after the last one the test
    waits in vain, and fails."""

    def __init__(self, capacity: int = 2) -> None:
        self.capacity = capacity
        self.environments: list[dict[str, Any]] = []
        self.script: deque[Callable[[], object]] = deque()
        self.started: list[tuple[str, int, tuple[str, ...]]] = []
        self.sent: dict[str, list[tuple[dict[str, Any], dict[str, bytes]]]] = {}
        self.killed: list[str] = []
        self.now_s = 0.0
        self.is_closed = False
        self._words: deque[Heard | Lost] = deque()

    def clock(self) -> float:
        return self.now_s

    def start(self, worker: str, devices: int, begin: bytes, avoid: Sequence[str]) -> None:
        self.started.append((worker, devices, tuple(avoid)))
        self.sent[worker] = []

    def send(self, worker: str, message: bytes) -> None:
        head, files = wire.unpacked(message)
        self.sent[worker].append((head, {name: bytes(data) for name, data in files.items()}))

    def poll(self, wait_s: float) -> list[Heard | Lost]:
        self.now_s += wait_s
        if not self._words:
            assert self.script, "nothing more happens on this cluster"
            self.script.popleft()()
        words, self._words = list(self._words), deque()
        return words

    def kill(self, worker: str) -> None:
        self.killed.append(worker)

    def close(self) -> None:
        self.is_closed = True

    # What a test says

    def then(self, *steps: Callable[[], object]) -> None:
        self.script.extend(steps)

    def worker(self, number: int) -> str:
        """Of those that were started, the one of this number from 0."""
        return self.started[number][0]

    def says(self, number: int, head: dict[str, Any], files: dict[str, bytes] | None = None) -> None:
        self._words.append(Heard(self.worker(number), wire.packed(head, files)))

    def comes(self, number: int, node: str = "a") -> None:
        here = {**ENVIRONMENT, "node": node}
        self.says(number, {"say": "hello", "wire": wire.VERSION, "node": node, "environment": here})

    def measures(self, number: int, files: dict[str, bytes] | None = None) -> None:
        """A worker ends the task that it was sent last."""
        task = self.task(number)
        results = [{"measurement": asdict(measurement(setting.trial))} for setting in task.settings]
        self.answers(number, results, files)

    def answers(self, number: int, results: list[dict[str, Any]], files: dict[str, bytes] | None = None) -> None:
        told = {"say": "done", "results": results, "environment": ENVIRONMENT, "log": "it printed this\n"}
        self.says(number, told, files)

    def is_lost(self, number: int, why: str = "the node died", *, requeued: bool = False) -> None:
        self._words.append(Lost(self.worker(number), why, requeued))

    def said_to(self, number: int) -> list[str]:
        return [head["say"] for head, _ in self.sent[self.worker(number)]]

    def task(self, number: int) -> Task:
        runs = [head for head, _ in self.sent[self.worker(number)] if head["say"] == "run"]
        return wire.task_in(runs[-1]["task"], Path("artifacts"), Path("references"))


def pool_over(cluster: FakeCluster, folder: Path) -> RemotePool:
    return RemotePool(cluster, SOMEWHERE, folder / "logs", clock=cluster.clock)


def on_a_gpu(threshold: float, devices: int = 1) -> Trial:
    """A trial; another one for each threshold."""
    return trial(
        DBCacheConfig(residual_diff_threshold=threshold),
        compute=ComputeConfig(device="cuda"),
        parallel=ParallelConfig(ulysses_size=devices),
    )


def task_of(folder: Path, *trials: Trial, process: str = "p") -> Task:
    settings = tuple(Setting(each, folder / "artifacts" / each.trial_id) for each in trials)
    return Task(settings, MeasureConfig(), process)


def next_done(pool: RemotePool, told: list[dict[str, Any]] | None = None, stop: bool = False) -> Done:
    return pool.next_done(lambda _, event: None if told is None else told.append(event), lambda: stop)


def is_measured(done: Done) -> bool:
    return all(isinstance(result, Completed) for result in done.results)
