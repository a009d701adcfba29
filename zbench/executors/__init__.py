"""Executors: where trials run. This module has their protocol and loads them by name; it decides no order of trials."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from zbench.config import ExecutorConfig, MeasureConfig
from zbench.measurement import Measurement
from zbench.plugins import load_class
from zbench.record import Reason
from zbench.trial import Trial


@dataclass(frozen=True)
class Task:
    """One trial to be run, and where its images go."""

    trial: Trial
    measure: MeasureConfig
    artifacts: Path  # folder for this trial's images and latents
    reference: Path | None = None  # the quality reference's artifacts; None: no quality
    is_reference: bool = False  # whether it is one itself: it makes its images twice, for the noise floor


@dataclass(frozen=True)
class Completed:
    """The trial was measured."""

    measurement: Measurement


@dataclass(frozen=True)
class Failed:
    """The trial has no measurement; later trials are not affected."""

    reason: Reason


@dataclass(frozen=True)
class Stopped:
    """The caller asked to stop; the trial is neither measured nor failed."""


TaskResult = Completed | Failed | Stopped
OnEvent = Callable[[dict[str, Any]], None]
"""Told of `loading`, `loaded` and `round` events as `zbench.worker` describes them."""


class Executor(Protocol):
    """Runs one task at a time. Calls to `run` never raise for what happens to the trial."""

    def run(self, task: Task, on_event: OnEvent, should_stop: Callable[[], bool]) -> TaskResult:
        """Run a task to its end. `should_stop` is asked a few times a second; then the current round is the last."""
        ...

    def abort(self) -> None:
        """Stop at once, in the middle of a round; `run` then returns Stopped. May be called from a signal handler."""
        ...

    def close(self) -> None:
        """Let workers go."""
        ...


def executor_class(config: ExecutorConfig, *, allow_code: bool = False) -> type[Any]:
    """What `executor.target` names, not yet made. Raises ConfigError as `plugins.load_class` does."""
    return load_class("executor", "executor.target", config.target, Executor, allow_code=allow_code)


def load_executor(config: ExecutorConfig, log_folder: Path, *, allow_code: bool = False) -> Executor:
    """An executor from `executor.target`, whose workers may run code from outside if `allow_code`.

    Raises ConfigError as `executor_class` does.
    """
    executor: Executor = executor_class(config, allow_code=allow_code)(log_folder, allow_code=allow_code)
    return executor
