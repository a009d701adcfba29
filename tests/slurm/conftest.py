"""A real Slurm for the tests in this folder; where there is none they are skipped, and say why."""

from collections.abc import Iterator

import pytest
from slurm_cluster import Cluster, NoSlurm

from zbench.errors import ConfigError
from zbench.executors.slurm.jobs import check_submitit


@pytest.fixture(scope="session")
def started_cluster() -> Iterator[Cluster]:
    try:
        check_submitit("slurm")
        found = Cluster()
        found.start()
    except (NoSlurm, ConfigError) as why:
        pytest.skip(f"no Slurm here: {why}")
    with found, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(found.conf))
        yield found


@pytest.fixture
def cluster(started_cluster: Cluster) -> Iterator[Cluster]:
    """With all its nodes, and no job but a test's own."""
    yield started_cluster
    for job in started_cluster.jobs():
        started_cluster.run("scancel", job)
    started_cluster.heal()
