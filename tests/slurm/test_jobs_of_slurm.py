"""Sweeps in jobs of a real Slurm: they end whole, whatever happens to their jobs and nodes."""

from pathlib import Path

import pytest
from commands import start, wait_for, zbench
from slurm_cluster import Cluster
from slurm_sweeps import TRIALS, hold_whole, jobs_of, records, slow, sweep

pytestmark = pytest.mark.timeout(150)


def test_a_sweep_runs_in_jobs_and_each_record_says_in_which(cluster: Cluster, tmp_path: Path) -> None:
    done = zbench(tmp_path, *sweep("executor.cpus=1", "executor.options.comment=of a test"))
    assert done.returncode == 0, done.stderr
    found = hold_whole(tmp_path)
    assert 1 <= len(jobs_of(found)) <= 2, "a job takes one trial after another"
    assert {record.environment["node"] for record in found} <= set(cluster.nodes)
    assert {record.environment["placed_by"]["partition"] for record in found} == {"low"}
    assert not cluster.jobs() and not (tmp_path / "runs" / "s" / "slurm").exists()
    assert all(record.measurement and record.measurement.quality for record in found if not record.is_reference)


def test_a_job_asks_for_the_gpus_of_its_trials(cluster: Cluster, tmp_path: Path) -> None:
    """Of any kind, as nobody named one. The synthetic engine measures without: a trial of a GPU in name alone."""
    process = start(tmp_path, *sweep("hardware=auto", "pipeline=zimage_tiny", slow(0.5)))
    wait_for(lambda: "gpu:1" in cluster.run("squeue", "--noheader", "--format=%b"))
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert {record.environment["placed_by"]["gpus"] for record in hold_whole(tmp_path)} == {"1"}


def test_a_job_a_task_where_that_is_asked_for(cluster: Cluster, tmp_path: Path) -> None:
    done = zbench(tmp_path, *sweep("executor.mode=job_per_task"))
    assert done.returncode == 0, done.stderr
    assert len(jobs_of(hold_whole(tmp_path))) == TRIALS
    assert not cluster.jobs()


def test_a_job_that_is_cancelled_has_its_trial_measured_elsewhere(cluster: Cluster, tmp_path: Path) -> None:
    process = start(tmp_path, *sweep(slow(0.6)))
    wait_for(lambda: len(records(tmp_path)) >= 2)
    (victim, *_) = sorted(cluster.jobs())
    cluster.run("scancel", victim)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert not jobs_of(hold_whole(tmp_path)[2:]) <= {victim}


def test_a_node_that_goes_down_loses_no_trial(cluster: Cluster, tmp_path: Path) -> None:
    process = start(tmp_path, *sweep(slow(0.6)))
    wait_for(lambda: len(records(tmp_path)) >= 2)
    node = records(tmp_path)[-1].environment["node"]
    cluster.run("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=test")
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    found = hold_whole(tmp_path)
    assert len({record.environment["node"] for record in found}) > 1
    assert not cluster.jobs()


def test_a_worker_that_is_killed_in_its_job_fails_its_trial_alone(cluster: Cluster, tmp_path: Path) -> None:
    done = zbench(tmp_path, *sweep("+engine.options.kill_on=0.24"))
    assert done.returncode == 4, done.stderr
    states = {record.label: record.state for record in records(tmp_path)}
    assert len(states) == TRIALS and sum(state == "FAILED" for state in states.values()) == 2
    assert all(("R0.24" in label) == (state == "FAILED") for label, state in states.items())


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["executor.partition=nowhere"], "Slurm takes no job: "),
        (["executor.options.constraint=nothing"], "Slurm takes no job: "),
        (["executor.options.wrap=id"], "zbench decides that itself"),
    ],
)
def test_what_slurm_takes_no_job_for_is_one_line(cluster: Cluster, tmp_path: Path, words: list[str], says: str) -> None:
    done = zbench(tmp_path, *sweep(*words))
    assert done.returncode == 2 and done.stderr.count("zbench: error: ") == 1 and says in done.stderr
    assert not records(tmp_path) and not cluster.jobs()
