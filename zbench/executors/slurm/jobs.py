"""Submits jobs through submitit, and finds out before any is submitted what is lacking for that."""

import os
import shlex
import shutil
import subprocess
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from zbench.config import SlurmExecutorConfig
from zbench.errors import ConfigError, MachineError, one_line
from zbench.executors.client import HOME
from zbench.executors.slurm.wishes import wishes

PACKAGE = "pip install 'zbench[slurm]'"
COMMANDS = ("sbatch", "squeue", "scancel", "srun")

READ_BY_SLURM = "%\\\n"
"""In a path of a log Slurm takes these for more than characters."""


def check_cluster(config: SlurmExecutorConfig, folder: Path) -> None:
    """Raise ConfigError where no job can be submitted from here, or none could write into `folder`."""
    if find_spec("submitit") is None:
        raise ConfigError("executor", config.name, f"submits jobs with submitit: {PACKAGE}")
    lacking = [name for name in COMMANDS if shutil.which(name) is None]
    if lacking:
        raise ConfigError(
            "executor", config.name, f"{', '.join(lacking)}: not found; run it where jobs of the cluster are submitted"
        )
    if any(char in str(folder) for char in READ_BY_SLURM):
        raise ConfigError("sweep.runs_dir", folder, "Slurm reads % and \\ in a path as patterns; choose another folder")


class Submission:
    """Makes jobs that run one function."""

    def __init__(self, config: SlurmExecutorConfig, folder: Path, name: str) -> None:
        """Logs and what submitit keeps go to `folder`; `name` is what squeue shows of the jobs."""
        import submitit

        self._executor = submitit.SlurmExecutor(folder=folder, max_num_timeout=0)
        options = wishes(config)
        self._executor.update_parameters(
            job_name=name,
            time=config.time_min,
            signal_delay_s=config.ahead_s,
            stderr_to_stdout=True,
            setup=[f"export PYTHONPATH={shlex.quote(_python_path())}"],
            srun_args=[f"--cpus-per-task={config.cpus}"] if config.cpus is not None else [],
            additional_parameters=options,
        )

    def submit(self, function: Callable[..., None], *args: Any) -> str:
        """The id of a new job that calls `function`. Raises MachineError with Slurm's words where it takes none."""
        import submitit

        try:
            return str(self._executor.submit(function, *args).job_id)
        except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError, OSError) as error:
            raise MachineError(f"Slurm takes no job: {one_line(error)}; see executor.partition and the like") from error
        except subprocess.CalledProcessError as error:
            raise MachineError(f"Slurm takes no job: {one_line(error.stderr or error)}") from error


def _python_path() -> str:
    """So that a job runs this very zbench."""
    return os.pathsep.join([str(HOME), *filter(None, [os.environ.get("PYTHONPATH")])])
