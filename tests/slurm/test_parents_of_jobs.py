"""Whoever types the command ends it, or it is killed: no job is left, and the same command goes on."""

import signal
from pathlib import Path

import psutil
import pytest
from commands import kill, start, wait_for, zbench
from slurm_cluster import Cluster
from slurm_sweeps import ENDS_WITHIN_S, TRIALS, hold_whole, jobs_of, records, slow, sweep

from zbench.executors.remote import wire
from zbench.executors.remote.spool import left_in
from zbench.trial import Trial

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


def ended_unheard(folder: Path) -> set[str]:
    """Ids of the trials that jobs have measured, and of which there is no record."""
    said = (words for up in folder.glob("runs/s/slurm/*/job-*/*/up") for words in left_in(up))
    heads = [wire.unpacked(words)[0] for words in said]
    tasks = [head["task"] for head in heads if head["say"] == "done"]
    ended = {Trial.from_dict(setting["trial"]).trial_id for task in tasks for setting in task["settings"]}
    return ended - {record.trial_id for record in records(folder)}


def test_the_next_command_takes_what_jobs_of_a_killed_parent_ended_and_cancels_them(
    cluster: Cluster, tmp_path: Path
) -> None:
    process = start(tmp_path, *sweep(slow(0.6), "executor.silent_s=3600"))
    wait_for(lambda: len(records(tmp_path)) >= 2)
    kill(process)
    left, before = set(cluster.jobs()), len(records(tmp_path))
    assert left
    wait_for(lambda: bool(ended_unheard(tmp_path)), ENDS_WITHIN_S)
    ended = ended_unheard(tmp_path)
    done = zbench(tmp_path, *sweep(slow(0.6)))
    assert done.returncode == 0, done.stderr
    new = hold_whole(tmp_path)[before:]
    taken = [record for record in new if jobs_of([record]) <= left]
    assert ended <= {record.trial_id for record in taken} and len(taken) <= len(left), "each had one trial"
    wait_for(lambda: not cluster.jobs(), ENDS_WITHIN_S)
    assert not (tmp_path / "runs" / "s" / "slurm").exists()
