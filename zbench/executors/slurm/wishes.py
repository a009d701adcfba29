"""What a job asks of Slurm, as sbatch's options; of a job that zbench starts and of a job file alike."""

import shlex
from collections.abc import Mapping

from zbench.config import SlurmExecutorConfig

OPEN_MODE = {"open-mode": "append"}
"""A job that is requeued goes on in its log."""


Options = dict[str, str | bool]
"""Of sbatch, without dashes; True for one without a value."""


def wishes(config: SlurmExecutorConfig, devices: int) -> Options:
    """What the user or a default asks for, and so many GPUs."""
    kind = "" if config.gpu_type is None else f"{config.gpu_type}:"
    of_keys = {
        "partition": config.partition,
        "account": config.account,
        "qos": config.qos,
        "time": config.time_min,
        "gpus-per-node": f"{kind}{devices}" if devices else None,
        "cpus-per-task": config.cpus,
        "mem": None if config.mem_gib is None else f"{config.mem_gib}G",
    }
    asked = {name: value for name, value in of_keys.items() if value is not None} | config.options
    return {name: value if value is True else str(value) for name, value in asked.items()}


def header(options: Mapping[str, str | bool]) -> str:
    """The lines of a job file that sbatch reads."""
    values = {name: "" if value is True else f"={shlex.quote(str(value))}" for name, value in sorted(options.items())}
    return "".join(f"#SBATCH --{name}{value}\n" for name, value in values.items())
