"""What Slurm takes away: a job's time, and its nodes for others. What was finished stays, what ran is tried again."""

from pathlib import Path

import pytest
from commands import start, wait_for, zbench
from slurm_cluster import Cluster
from slurm_sweeps import hold_whole, jobs_of, records, requeued, said_of_workers, slow, sweep

pytestmark = pytest.mark.timeout(240)


def test_a_job_that_is_preempted_is_requeued_and_goes_on_as_another_worker(cluster: Cluster, tmp_path: Path) -> None:
    process = start(tmp_path, *sweep(slow(0.8), "executor.concurrent_trials=1"))
    wait_for(lambda: len(records(tmp_path)) >= 2)
    (job,) = cluster.jobs()
    node = records(tmp_path)[-1].environment["node"]
    cluster.run(
        "sbatch", "--partition=high", "--exclusive", f"--nodelist={node}", "--output=/dev/null", "--wrap=sleep 3"
    )
    _, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    assert jobs_of(hold_whole(tmp_path)) == {job} and requeued(tmp_path) == [job], "it kept its place in the queue"


def test_a_sweep_outlasts_its_jobs(cluster: Cluster, tmp_path: Path) -> None:
    """A minute is Slurm's shortest limit; it sends its signal some time before that, and the sweep takes longer."""
    limit = ("executor.time_min=1", "executor.ahead_s=10", "executor.concurrent_trials=1")
    done = zbench(tmp_path, *sweep(*limit, slow(3)), timeout_s=200)
    assert done.returncode == 0, done.stderr
    assert len(jobs_of(hold_whole(tmp_path))) > 1
    assert "its job's time is nearly up" in said_of_workers(tmp_path)
    assert not cluster.jobs()
