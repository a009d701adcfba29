"""An executor for tests that has room for one task and does its work itself."""

from collections.abc import Callable
from typing import Any

from zbench.environment import capture
from zbench.executors import Done, OnEvent, Setting, Task, TaskResult


class OneAtATime:
    """See `Executor`; `run_one` says what comes of a task's trial."""

    capacity = 1

    def __init__(self) -> None:
        self.environments: list[dict[str, Any]] = [capture().to_dict()]
        self._task: Task | None = None

    def run_one(self, setting: Setting, task: Task, on_event: OnEvent) -> TaskResult:
        raise NotImplementedError

    def takes_turns(self) -> bool:
        return True

    def submit(self, task: Task) -> None:
        assert self._task is None, "there is room for one"
        self._task = task

    def next_done(self, on_event: OnEvent, should_stop: Callable[[], bool]) -> Done:
        task, self._task = self._task, None
        assert task is not None
        results = tuple(self.run_one(setting, task, on_event) for setting in task.settings)
        return Done(task, results, self.environments[0])

    def abort(self) -> None: ...

    def close(self) -> None: ...
