"""What a pool says of workers that wait in a cluster's queue, and does with one that leaves unasked."""

from collections.abc import Iterator
from functools import partial
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import pytest
from fake_cluster import FakeCluster, is_measured, next_done, on_a_gpu, pool_over, task_of

from zbench.executors import Failed
from zbench.executors.remote.pool import MOST_REQUEUES, NONE_CAME
from zbench.record import NODE_LOST


class QueueingCluster(FakeCluster):
    """See `Queueing`."""

    def __init__(self, reasons: Iterator[str]) -> None:
        super().__init__()
        self._reasons = reasons

    def in_queue(self, devices: int) -> str:
        return next(self._reasons)


def test_the_queue_s_reason_is_told_and_again_when_it_is_another(tmp_path: Path) -> None:
    reasons = chain(repeat("", 3), repeat("job 7: PENDING, Priority", 5), repeat("job 7: PENDING, Resources"))
    cluster = QueueingCluster(reasons)
    pool, told = pool_over(cluster, tmp_path), list[dict[str, Any]]()
    pool.submit(task_of(tmp_path, on_a_gpu(0.1)))
    cluster.then(*[lambda: None] * 50, lambda: cluster.comes(0), lambda: cluster.measures(0))
    assert is_measured(next_done(pool, told))
    assert [event["text"] for event in told if event["event"] == "waiting"] == [
        "waits for a worker with 1 GPU",
        "waits for a worker with 1 GPU (job 7: PENDING, Priority)",
        "waits for a worker with 1 GPU (job 7: PENDING, Resources)",
    ]


def test_a_worker_that_leaves_with_a_task_loses_none(tmp_path: Path) -> None:
    cluster = FakeCluster()
    pool = pool_over(cluster, tmp_path)
    pool.submit(task_of(tmp_path, on_a_gpu(0.1)))
    cluster.then(lambda: cluster.comes(0), lambda: cluster.says(0, {"say": "bye"}))
    cluster.then(lambda: cluster.comes(1, "b"), lambda: cluster.measures(1))
    assert is_measured(next_done(pool)) and len(cluster.started) == 2


def test_who_waits_in_the_queue_takes_no_worker_from_other_tasks(tmp_path: Path) -> None:
    """A job of 8 GPUs may be PENDING for days: tasks of one GPU go on, by the worker that is there."""
    cluster = QueueingCluster(repeat("job 2: PENDING, Resources"))
    pool = pool_over(cluster, tmp_path)
    pool.submit(task_of(tmp_path, on_a_gpu(0.1)))
    cluster.then(lambda: cluster.comes(0), lambda: cluster.measures(0))
    next_done(pool)
    pool.submit(task_of(tmp_path, on_a_gpu(0.1, devices=8)))
    for threshold in (0.2, 0.3):
        pool.submit(task_of(tmp_path, on_a_gpu(threshold)))
        cluster.then(*[lambda: None] * 50, lambda: cluster.measures(0))
        assert is_measured(next_done(pool))
    assert [devices for _, devices, _ in cluster.started] == [1, 8] and "leave" not in cluster.said_to(0)


def test_a_worker_that_no_task_is_for_is_let_go_where_another_waits(tmp_path: Path) -> None:
    """It may hold the very GPUs: a job that nobody needs would keep them until its time is up."""
    cluster = QueueingCluster(repeat("job 2: PENDING, Resources"))
    pool = pool_over(cluster, tmp_path)
    pool.submit(task_of(tmp_path, on_a_gpu(0.1)))
    cluster.then(lambda: cluster.comes(0), lambda: cluster.measures(0))
    next_done(pool)
    pool.submit(task_of(tmp_path, on_a_gpu(0.1, devices=8)))
    cluster.then(*[lambda: None] * 50, lambda: cluster.comes(1, "b"), lambda: cluster.measures(1))
    assert is_measured(next_done(pool))
    assert cluster.said_to(0) == ["run", "leave"]


@pytest.mark.parametrize(("times", "measured"), [(MOST_REQUEUES - 1, True), (MOST_REQUEUES, False)])
def test_a_trial_whose_workers_are_preempted_is_tried_for_long(tmp_path: Path, times: int, measured: bool) -> None:
    """It is no fault of the trial; but one that takes its nodes down is requeued too, and must end."""
    cluster = FakeCluster()
    pool = pool_over(cluster, tmp_path)
    pool.submit(task_of(tmp_path, on_a_gpu(0.1)))
    for number in range(times):
        cluster.then(
            partial(cluster.comes, number), partial(cluster.is_lost, number, "Slurm requeued it", requeued=True)
        )
    if measured:
        cluster.then(lambda: cluster.comes(times), lambda: cluster.measures(times))
    done = next_done(pool)
    assert is_measured(done) == measured and {avoid for _, _, avoid in cluster.started} == {()}
    if not measured:
        (result,) = done.results
        assert isinstance(result, Failed) and result.reason.code == NODE_LOST
        assert result.reason.message.endswith(f"Slurm requeued it; it was tried {times} times")


def test_workers_that_are_preempted_before_they_come_stop_no_sweep(tmp_path: Path) -> None:
    cluster = FakeCluster()
    pool = pool_over(cluster, tmp_path)
    pool.submit(task_of(tmp_path, on_a_gpu(0.1)))
    for number in range(NONE_CAME):
        cluster.then(partial(cluster.is_lost, number, "Slurm requeued it", requeued=True))
    cluster.then(lambda: cluster.comes(NONE_CAME), lambda: cluster.measures(NONE_CAME))
    assert is_measured(next_done(pool))
