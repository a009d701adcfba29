"""Executors: where trials run. This module has their protocol and loads them by name; it decides no order of trials.

A new executor is one module with a class that fits `Executor`, and one line `target: module:Class` in `conf/executor/`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from zbench.config import ExecutorConfig, MeasureConfig
from zbench.environment import DeviceLike
from zbench.errors import ConfigError
from zbench.hardware.detect import present_devices
from zbench.measurement import Measurement, Role
from zbench.plugins import check_permitted, load_class, load_object
from zbench.record import Reason
from zbench.trial import Trial


@dataclass(frozen=True)
class Setting:
    """One trial of a task, and where its images go."""

    trial: Trial
    artifacts: Path  # folder for this trial's images and latents
    reference: Path | None = None  # the quality reference's artifacts; None: no quality
    is_reference: bool = False  # whether it is one itself: it makes its images twice, for the noise floor
    role: Role = "trial"
    of_other_weights: bool = False  # whether the reference is of other weights, or another LoRA, on purpose
    is_beside: bool = False  # whether others of its task are compared with its requests


@dataclass(frozen=True)
class Task:
    """One or more trials of one residency, which take turns in one window.

    The first may be the uncached trial of the others (`Setting.is_beside`): perhaps their baseline, and their quality
    reference. It is what a companion is to them, and has a result of its own. Its images are saved before theirs are
    judged.
    """

    settings: tuple[Setting, ...]
    measure: MeasureConfig
    process: str = ""  # of its trials' residency (`engines.process_of`): a worker that has it loads nothing
    companion: Trial | None = None
    """Their residency's uncached trial. It takes turns with them, so that each is compared with its neighbours; it has
    no result, and each of them keeps its requests. An executor that leaves it out measures them unpaired."""

    @property
    def compares_with_first(self) -> bool:
        """Whether the first of several is what the others are compared with."""
        return len(self.settings) > 1 and self.settings[0].is_beside


@dataclass(frozen=True)
class Completed:
    """The trial was measured."""

    measurement: Measurement


@dataclass(frozen=True)
class Failed:
    """The trial has no measurement; later trials are not affected.

    A reason with the code `record.MACHINE` says that the machine failed and not the trial: the sweep stops.
    """

    reason: Reason


@dataclass(frozen=True)
class Stopped:
    """The caller asked to stop; the trial is neither measured nor failed."""


@dataclass(frozen=True)
class Disrupted:
    """Another trial of the task failed, or its companion, so this one has no measurement; it is to be submitted again
    without that."""


TaskResult = Completed | Failed | Stopped | Disrupted


@dataclass(frozen=True)
class Done:
    """A task that ended."""

    task: Task
    results: tuple[TaskResult, ...]  # of its settings, in order
    environment: dict[str, Any] | None  # as its worker said; None where none came to say anything
    beside: tuple[str, ...] = ()  # ids of trials that ran elsewhere on the machine meanwhile

    def __post_init__(self) -> None:
        if len(self.results) != len(self.task.settings):
            raise ValueError(f"{len(self.results)} results for {len(self.task.settings)} settings")


OnEvent = Callable[[Task, dict[str, Any]], None]
"""Told of `loading`, `loaded` and `round` events of a task as `zbench.worker` describes them; of `waiting` with a
`text` that says for whose measurement it waits, and of `slowed` with one that says what slows it, or none any more."""


class Executor(Protocol):
    """Holds as many tasks as it has room for. Nothing that happens to a trial is raised."""

    @property
    def capacity(self) -> int:
        """How many tasks it may hold at once."""
        ...

    @property
    def environments(self) -> list[dict[str, Any]]:
        """Where its tasks may run, as far as that is known before any worker has started."""
        ...

    def submit(self, task: Task) -> None:
        """Begin a task, or keep it until there is a device for it. Never more than `capacity` at once."""
        ...

    def next_done(self, on_event: OnEvent, should_stop: Callable[[], bool]) -> Done:
        """Wait until one of the tasks held has ended.

        `should_stop` is asked a few times a second; once it says so, the requests in progress are the last.
        """
        ...

    def abort(self) -> None:
        """Stop at once, in the middle of a request; every task ends as Stopped. May be called by a signal handler."""
        ...

    def close(self) -> None:
        """Let workers go."""
        ...


@runtime_checkable
class TakingTurns(Protocol):
    """What an executor may be too. Any other is given tasks of one trial, which takes turns with none."""

    def takes_turns(self) -> bool:
        """Whether its workers measure the settings of a task, and its companion, by turns."""
        ...


@dataclass(frozen=True)
class Recovered:
    """A trial that was measured for a command that was killed. Beside which others it ran died with that command."""

    measurement: Measurement
    environment: dict[str, Any]  # as its worker said


@runtime_checkable
class Recovering(Protocol):
    """What an executor of zbench's own may be too, where a task may end when nobody is there any more to be told."""

    def recovered(self, setting: Setting, measure: MeasureConfig) -> Recovered | None:
        """What was measured of just this setting for a command that was killed, with its images in their folder; once.

        Raises MachineError where its cluster is out of reach, StoreError where images cannot be written.
        """
        ...

    def forget(self) -> None:
        """Nobody wants what is left of that any more; what is not forgotten is there for the next command of the run.

        Raises MachineError where its cluster is out of reach.
        """
        ...


class OnACluster(Protocol):
    """What an executor's class of zbench's own may be too, where its trials run on other machines than this one.

    A plan asks, so nothing is started for an answer. Raises ZbenchError where the cluster cannot be asked.
    """

    @classmethod
    def known_devices(cls, config: ExecutorConfig) -> Sequence[DeviceLike] | None:
        """The GPUs that one trial may have: of each kind as many as the machine has that has most of them. None: nobody
        knows, so that any hardware may be there in any number."""
        ...

    @classmethod
    def known_capacity(cls, config: ExecutorConfig) -> int:
        """How many trials would run at once with `executor.concurrent_trials=null`."""
        ...


def devices_for(config: ExecutorConfig) -> Sequence[DeviceLike] | None:
    """The GPUs that one trial may have where `config` sends it; None: nobody knows. Raises as `OnACluster`."""
    cluster = _cluster(config)
    return present_devices() if cluster is None else cluster.known_devices(config)


def is_elsewhere(config: ExecutorConfig) -> bool:
    """Whether trials run on other machines, so that files which are not here may be there."""
    return _cluster(config) is not None


def trials_at_once(config: ExecutorConfig) -> int:
    """How many trials `config` has side by side. Raises as `OnACluster`."""
    if config.concurrent_trials is not None:
        return config.concurrent_trials
    cluster = _cluster(config)
    return max(len(present_devices()), 1) if cluster is None else cluster.known_capacity(config)


def _cluster(config: ExecutorConfig) -> type[OnACluster] | None:
    """The executor's class, where it is one of a cluster. Code from outside is not asked: it is taken to run trials on
    this machine."""
    key, target = "executor.target", config.target
    if not check_permitted("executor", key, target, allow_code=True).is_own:
        return None
    found = load_class("executor", key, target, Executor)
    return found if hasattr(found, "known_devices") else None


def load_executor(config: ExecutorConfig, log_folder: Path, *, allow_code: bool = False) -> Executor:
    """An executor from `executor.target`, whose workers may run code from outside if `allow_code`.

    It is made with the config, the folder for its workers' logs and `allow_code`. Raises ConfigError as
    `plugins.load_object` does and where it has room for nothing, and what zbench's own raises.
    """
    key, target = "executor.target", config.target
    executor: Executor = load_object(
        "executor",
        key,
        target,
        Executor,
        lambda found: found(config, log_folder, allow_code=allow_code),
        optional=(TakingTurns,),
        allow_code=allow_code,
    )
    if executor.capacity < 1:
        raise ConfigError(key, target, f"its capacity is {executor.capacity}; it must have room for a task")
    return executor
