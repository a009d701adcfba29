"""What a job asks of Slurm, as sbatch's options; of a job that zbench starts and of a job file alike."""

import shlex
from collections.abc import Mapping

from zbench.config import SlurmExecutorConfig

OPEN_MODE = {"open-mode": "append"}
"""A job that is requeued goes on in its log."""


def wishes(config: SlurmExecutorConfig, devices: int) -> dict[str, str]:
    """Options of sbatch to their values, without dashes: what the user or a default asks for, and `devices` GPUs."""
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
    asked = {name: str(value) for name, value in of_keys.items() if value is not None}
    return asked | config.sbatch


def header(options: Mapping[str, str]) -> str:
    """The lines of a job file that sbatch reads."""
    return "".join(f"#SBATCH --{name}={shlex.quote(value)}\n" for name, value in sorted(options.items()))
