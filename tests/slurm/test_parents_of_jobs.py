"""Whoever types the command ends it, or it is killed: no job is left, and the same command goes on."""

import signal
from pathlib import Path

import psutil
import pytest
from commands import kill, start, wait_for, zbench
from slurm_cluster import Cluster
from slurm_sweeps import ENDS_WITHIN_S, TRIALS, hold_whole, jobs_of, records, slow, sweep

pytestmark = pytest.mark.timeout(150)


def processes_of(cluster: Cluster) -> list[psutil.Process]:
    """What jobs of the cluster run."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = " ".join(process.info["cmdline"] or [])
        is_ours = "zbench.worker" in words or "submitit.core._submit" in words
        if is_ours and process.environ().get("SLURM_CONF") == str(cluster.conf):
            found.append(process)
    return found


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_leaves_no_job_and_a_run_that_goes_on(cluster: Cluster, tmp_path: Path, times: int) -> None:
    process = start(tmp_path, *sweep(slow(0.6)))
    wait_for(lambda: len(records(tmp_path)) >= 2)
    for _ in range(times):
        process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    wait_for(lambda: not cluster.jobs(), ENDS_WITHIN_S)
    assert 2 <= len(records(tmp_path)) < TRIALS
    assert zbench(tmp_path, *sweep(slow(0.6))).returncode == 0
    hold_whole(tmp_path)


def test_jobs_of_a_parent_that_is_killed_end_by_themselves(cluster: Cluster, tmp_path: Path) -> None:
    process = start(tmp_path, *sweep(slow(0.6)))
    wait_for(lambda: len(records(tmp_path)) >= 2)
    kill(process)
    wait_for(lambda: not cluster.jobs(), ENDS_WITHIN_S)
    wait_for(lambda: not processes_of(cluster), ENDS_WITHIN_S)
    done = zbench(tmp_path, *sweep(slow(0.6)))
    assert done.returncode == 0, done.stderr
    hold_whole(tmp_path)


def test_the_jobs_of_a_killed_parent_are_cancelled_by_the_next(cluster: Cluster, tmp_path: Path) -> None:
    process = start(tmp_path, *sweep(slow(0.6), "executor.silent_s=3600"))
    wait_for(lambda: len(records(tmp_path)) >= 2)
    kill(process)
    left = set(cluster.jobs())
    assert left
    done = zbench(tmp_path, *sweep(slow(0.6)))
    assert done.returncode == 0, done.stderr
    assert not jobs_of(hold_whole(tmp_path)[3:]) & left
    wait_for(lambda: not cluster.jobs(), ENDS_WITHIN_S)
