"""Trials in jobs of Slurm: a job holds a worker and takes tasks until its time is up. What is queued, placed, preempted
and requeued is Slurm's business.

Parent and job need a folder that both see, which is the run's; nothing listens on a port. A job that ends, is requeued
or falls silent is a lost node of the pool, and what it ran is tried once more elsewhere (`remote.pool`).
"""

from collections.abc import Sequence
from pathlib import Path

from zbench.config import ExecutorConfig, SlurmExecutorConfig
from zbench.environment import DeviceLike
from zbench.errors import ConfigError
from zbench.executors.remote.pool import RemotePool
from zbench.executors.slurm.jobs import SlurmJobs, check_cluster
from zbench.executors.slurm.queue import offers_gpus
from zbench.executors.slurm.transport import SlurmTransport

FOLDER = "slurm"
"""Of a run folder: what jobs and their parent say to each other."""


class SlurmExecutor(RemotePool):
    """See `Executor` and `OnACluster`."""

    def __init__(self, config: ExecutorConfig, log_folder: Path, *, allow_code: bool = False) -> None:
        """Nothing is submitted before there is a task. Raises ConfigError where no job can be submitted from here."""
        if not isinstance(config, SlurmExecutorConfig):
            raise ConfigError("executor.target", config.target, "is chosen by executor=slurm")
        folder = (log_folder.parent / FOLDER).absolute()
        check_cluster(config, folder)
        jobs = SlurmJobs(config, f"zbench-{log_folder.parent.name}")
        super().__init__(SlurmTransport(config, folder, jobs), config, log_folder, allow_code=allow_code)

    @classmethod
    def known_devices(cls, config: ExecutorConfig) -> Sequence[DeviceLike] | None:
        """See `OnACluster`: Slurm may name GPUs as it likes, so nobody knows; but it does say where there are none."""
        assert isinstance(config, SlurmExecutorConfig)
        is_asked = "clusters" not in config.options  # of another cluster it would say nothing
        return () if is_asked and offers_gpus(config.partition) is False else None

    @classmethod
    def known_capacity(cls, config: ExecutorConfig) -> int:
        """See `OnACluster`: nobody asks, for `check_executor` sees that somebody says it."""
        return 1
