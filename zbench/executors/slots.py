"""Where a local executor's tasks run: a slot a task, with the devices that its worker sees; it starts no worker."""

from dataclasses import dataclass, field, replace

from zbench.config import ParallelConfig, ServedEngineConfig
from zbench.errors import ConfigError
from zbench.executors import Task, TaskResult
from zbench.executors.client import Patience, WorkerClient
from zbench.hardware.detect import describe_present
from zbench.hardware.nvml import Device
from zbench.hardware.turns import TurnOnDevices
from zbench.methods.parallel import ParallelDims


@dataclass
class Slot:
    """Room for one task, with the devices that it may use."""

    devices: list[Device]
    variables: dict[str, str]  # that show a worker these devices alone
    client: WorkerClient | None = None
    shown: dict[str, str] = field(default_factory=dict)  # variables that its worker was started with
    process: str | None = None  # residency of what its worker has loaded
    parallel: ParallelConfig | None = None  # degrees of what it ran last; None: nothing yet
    running: "RunningTask | None" = None

    def forget(self) -> WorkerClient | None:
        """Its worker, of which nothing is known here any more."""
        client, self.client, self.process, self.parallel = self.client, None, None, None
        return client


@dataclass
class RunningTask:
    """A task that a worker was told to run."""

    task: Task
    patience: Patience
    turn: TurnOnDevices
    log_offset: int
    kills_before: int
    begun: bool = False  # whether its turn has come, and the worker was told
    said: str = ""  # for whom it waits
    told_to_stop: bool = False
    turn_of: str | None = None  # id of the trial whose turn it is, where there are several
    left_s: dict[str, float] = field(default_factory=dict)  # of the time that each of several may take
    measured: list[TaskResult] | None = None  # what came of it, while its worker goes on to profile
    beside: dict[str, None] = field(default_factory=dict)

    def hand_over(self, trial_id: str, limit_s: float) -> None:
        """Of several trials it is this one's turn: each has `limit_s` of its own, loading is the first one's."""
        former = self.turn_of or self.task.settings[0].trial.trial_id
        if trial_id != former:
            self.left_s[former] = self.patience.left_s()
            self.patience.renew(self.left_s.get(trial_id, limit_s))
        self.turn_of = trial_id


def slots_on(concurrent: int | None, present: list[Device]) -> list[Slot]:
    """One for the whole machine, or one a GPU; None: as many as there are GPUs."""
    concurrent = max(len(present), 1) if concurrent is None else concurrent
    if concurrent == 1:
        return [Slot(present, {})]
    if concurrent > len(present):
        raise ConfigError(
            "executor.concurrent_trials",
            concurrent,
            f"needs a GPU for each, and there are {len(present)} ({describe_present(present)}); "
            f"give at most {max(len(present), 1)}",
        )
    return [
        Slot([device], {"CUDA_VISIBLE_DEVICES": device.uuid or str(device.index), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"})
        for device in present[:concurrent]
    ]


def has_a_device_of_its_own(task: Task) -> bool:
    """Whether it may run beside others: on one GPU. Trials on the CPU share its cores, and those of a server that is
    there already share that."""
    trial = task.settings[0].trial
    if isinstance(trial.engine, ServedEngineConfig) and trial.engine.base_url is not None:
        return False
    return trial.compute.device == "cuda" and ParallelDims.of(trial.parallel).devices == 1


def is_of_another_group(slot: Slot, task: Task) -> bool:
    """Whether a worker's processes, or those that the task needs, work for one topology and one pipeline alone."""
    parallel = task.settings[0].trial.parallel
    if slot.parallel is None or all(ParallelDims.of(each).devices == 1 for each in (slot.parallel, parallel)):
        return False
    return (slot.process, replace(slot.parallel, grid={})) != (task.process, replace(parallel, grid={}))
