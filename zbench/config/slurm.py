"""What `executor=slurm` asks a cluster for: a job's partition, time and size, and how many jobs at once."""

import re
from dataclasses import dataclass
from typing import Any

from zbench.config.ranges import number, one_of, shortened
from zbench.config.sweep import ExecutorConfig
from zbench.errors import ConfigError

SLURM_MODES = ("resident", "job_per_task")

SBATCH_OPTION = re.compile(r"[a-z][a-z0-9-]*")

HAVE_A_KEY = {
    "partition": "partition",
    "account": "account",
    "qos": "qos",
    "time": "time_min",
    "cpus-per-task": "cpus",
    "mem": "mem_gib",
    "signal": "ahead_s",
}
"""Options of sbatch, and the key of `executor` that sets each."""

SET_HERE = re.compile(
    "array|chdir|dependency|error|export(-file)?|gpus(-per-(node|task))?|input|job-name|(no-)?requeue|nodes|"
    "ntasks(-per-node)?|open-mode|output|parsable|test-only|wait|wrap"
)
"""Options of sbatch that zbench decides itself, or cannot do with."""


@dataclass
class SlurmExecutorConfig(ExecutorConfig):
    """Where trials run: in jobs of Slurm, `concurrent_trials` of them at once, each with its trials' GPUs.

    `options` are further options of sbatch, such as {constraint: nvlink, exclude: n7, exclusive: true}.
    """

    partition: str | None = None  # null: the cluster's own default, as for each that is null
    account: str | None = None
    qos: str | None = None
    time_min: int = number(60, 1, 525_600)  # a job's time limit; a resident job takes trials until then
    gpu_type: str | None = None  # as the cluster calls it, such as h100; null: any
    cpus: int | None = number(None, 1, 4096)  # cores of a job
    mem_gib: int | None = number(None, 1, 65536)  # host memory of a job
    mode: str = "resident"  # resident: a job holds a worker and takes trials; job_per_task: each task is a job
    ahead_s: int = number(90, 1, 3600)  # so long before its time is up a job takes no more trials
    silent_s: float = number(120.0, 5, 86_400)  # who was not heard of for so long is gone: a job, and a job's parent
    poll_s: float = number(15.0, 0.5, 3600)  # between two questions to Slurm


def check_executor(executor: ExecutorConfig) -> None:
    """Raise ConfigError for what no line of a job file may hold, and for options that have another key."""
    if not isinstance(executor, SlurmExecutorConfig):
        return
    one_of("executor.mode", executor.mode, SLURM_MODES)
    if executor.concurrent_trials is None:
        raise ConfigError("executor.concurrent_trials", None, "say how many jobs Slurm may have of it at once")
    for name in ("partition", "account", "qos", "gpu_type"):
        value = getattr(executor, name)
        if value is not None:
            _hold_to_a_line(f"executor.{name}", value)
    for name, value in executor.options.items():
        _check_option(name, value)
    if executor.ahead_s >= executor.time_min * 60:
        least = f"must be less than executor.time_min={executor.time_min} minutes"
        raise ConfigError("executor.ahead_s", executor.ahead_s, f"{least}, or no trial begins")


def _check_option(name: str, value: Any) -> None:
    key, shown = f"executor.options.{name}", shortened(str(value))
    if not SBATCH_OPTION.fullmatch(name):
        raise ConfigError("executor.options", shortened(name), "is no option of sbatch; write it without its dashes")
    if name in HAVE_A_KEY:
        raise ConfigError(key, shown, f"set executor.{HAVE_A_KEY[name]} instead")
    if SET_HERE.fullmatch(name):
        raise ConfigError(key, shown, "zbench decides that itself; leave it out")
    if value is False or not isinstance(value, str | int | float):
        raise ConfigError(key, shown, "must be a text or a number; true for an option without a value")
    _hold_to_a_line(key, str(value))


def _hold_to_a_line(key: str, value: str) -> None:
    """It stands in a line of a job file, so it is one word or some, and ends no line."""
    if not value.strip() or not value.isprintable():
        raise ConfigError(key, shortened(value), "must be text of one line, without control characters")
