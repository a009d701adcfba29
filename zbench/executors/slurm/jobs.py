"""Submits jobs through submitit, asks what became of them and cancels them; and says what is lacking for that."""

import io
import os
import re
import shlex
import shutil
from collections.abc import Iterable, Sequence
from contextlib import redirect_stderr
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from zbench.config import SlurmExecutorConfig
from zbench.errors import ConfigError, MachineError, one_line
from zbench.executors.client import HOME
from zbench.executors.slurm import entry
from zbench.executors.slurm.queue import JobState, cancel, job_states
from zbench.executors.slurm.wishes import Options, wishes

PACKAGE = "pip install 'zbench[slurm]'"
COMMANDS = ("sbatch", "squeue", "scancel", "srun")

READ_BY_SLURM = "%\\\n"
"""In the path of a log Slurm takes these for more than characters."""

NODE_NAME = re.compile(r"[\w.-]+")


def check_cluster(config: SlurmExecutorConfig, folder: Path) -> None:
    """Raise ConfigError where no job can be submitted from here, or none could print into `folder`."""
    check_submitit(config.name)
    lacking = [name for name in COMMANDS if shutil.which(name) is None]
    if lacking:
        where = "run it on a machine of the cluster from which jobs are submitted"
        raise ConfigError("executor", config.name, f"{', '.join(lacking)}: not found; {where}")
    if any(char in str(folder) for char in READ_BY_SLURM):
        raise ConfigError("sweep.runs_dir", folder, "Slurm reads % and \\ in a path as patterns; choose another folder")


def check_submitit(executor: str) -> None:
    """Raise ConfigError where it is not installed."""
    if find_spec("submitit") is None:
        raise ConfigError("executor", executor, f"submits jobs with submitit: {PACKAGE}")


class SlurmJobs:
    """The jobs of one run."""

    def __init__(self, config: SlurmExecutorConfig, name: str) -> None:
        """`name` is what squeue shows of them."""
        self._config, self._name = config, name

    def submit(self, folder: Path, prints: Path, devices: int, avoid: Sequence[str]) -> str:
        """The id of a new job with so many GPUs, which runs `entry` for the job's folder and prints into another.

        It is kept off the nodes in `avoid` where there are others. Raises MachineError with Slurm's words where it
        takes no such job.
        """
        config, known = self._config, [node for node in avoid if NODE_NAME.fullmatch(node)]
        options = wishes(config, devices)
        arguments = str(folder), config.silent_s, devices, config.mode == "job_per_task"
        if known:
            before = [str(options["exclude"])] if "exclude" in options else []
            excluded = ",".join(dict.fromkeys([*before, *known]))
            try:
                return self._submitted(prints, options | {"exclude": excluded}, arguments)
            except MachineError:
                pass  # there is no other node
        return self._submitted(prints, options, arguments)

    def _submitted(self, prints: Path, options: Options, arguments: tuple[Any, ...]) -> str:
        import submitit

        said = io.StringIO()
        try:
            with redirect_stderr(said):  # submitit prints what sbatch says against it
                executor = submitit.SlurmExecutor(folder=prints, max_num_timeout=0)
                executor.update_parameters(
                    job_name=self._name,
                    time=self._config.time_min,
                    stderr_to_stdout=True,
                    setup=[f"export PYTHONPATH={shlex.quote(_python_path())}"],
                    srun_args=[] if self._config.cpus is None else [f"--cpus-per-task={self._config.cpus}"],
                    additional_parameters={**options, "requeue": True, "signal": f"USR2@{self._config.ahead_s}"},
                )
                return str(executor.submit(entry.run, *arguments).job_id)
        except (RuntimeError, OSError) as error:  # submitit's own are RuntimeErrors
            told = one_line(error) or " ".join(said.getvalue().split())
            way_out = "see executor.* for what is asked, and sinfo for whether Slurm answers"
            raise MachineError(f"Slurm takes no job: {told.removeprefix('sbatch: ')}; {way_out}") from error

    def states(self, ids: Iterable[str]) -> dict[str, JobState] | None:
        """As `queue.job_states`."""
        return job_states(ids)

    def cancel(self, ids: Iterable[str]) -> str | None:
        """As `queue.cancel`."""
        return cancel(ids, self._name)


def last_line(prints: Path, job: str) -> str:
    """What a job printed last, as far as there is something."""
    lines = [
        line
        for path in sorted(prints.glob(f"{job}_*.out"))
        for line in path.read_text(errors="replace").splitlines()
        if line.strip()
    ]
    return f"; it printed last: {lines[-1].strip()[:200]}" if lines else ""


def _python_path() -> str:
    """So that a job runs this very zbench."""
    return os.pathsep.join([str(HOME), *filter(None, [os.environ.get("PYTHONPATH")])])
