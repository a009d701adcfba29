"""Which worker has which task, and what is done where one is lost. The cluster is scripted, and its clock too."""

from dataclasses import replace
from pathlib import Path

import pytest
from fake_cluster import FakeCluster, is_measured, next_done, on_a_gpu, pool_over, task_of

from zbench.errors import MachineError
from zbench.executors import Completed, Disrupted, Failed, Stopped
from zbench.executors.remote import wire
from zbench.executors.remote.pool import NONE_CAME
from zbench.record import MACHINE, NODE_LOST


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster()


def test_a_worker_that_has_the_pipeline_and_is_idle_takes_the_next_task(cluster: FakeCluster, tmp_path: Path) -> None:
    pool = pool_over(cluster, tmp_path)
    cluster.then(lambda: cluster.comes(0), lambda: cluster.measures(0), lambda: cluster.measures(0))
    for threshold in (0.1, 0.2):
        pool.submit(task_of(tmp_path, on_a_gpu(threshold)))
        assert is_measured(next_done(pool))
    assert len(cluster.started) == 1 and cluster.started[0][1] == 1, "one worker, with one GPU"


def test_tasks_run_side_by_side_and_those_on_one_machine_know_of_each_other(
    cluster: FakeCluster, tmp_path: Path
) -> None:
    pool, trials = pool_over(cluster, tmp_path), [on_a_gpu(0.1), on_a_gpu(0.2)]
    for each in trials:
        pool.submit(task_of(tmp_path, each))
    cluster.then(lambda: [cluster.comes(0), cluster.comes(1)], lambda: [cluster.measures(0), cluster.measures(1)])
    done = [next_done(pool), next_done(pool)]
    assert {d.beside for d in done} == {(trials[0].trial_id,), (trials[1].trial_id,)}


def test_tasks_on_two_machines_do_not_run_beside_each_other(cluster: FakeCluster, tmp_path: Path) -> None:
    pool = pool_over(cluster, tmp_path)
    for threshold in (0.1, 0.2):
        pool.submit(task_of(tmp_path, on_a_gpu(threshold)))
    cluster.then(
        lambda: [cluster.comes(0, "a"), cluster.comes(1, "b")], lambda: [cluster.measures(0), cluster.measures(1)]
    )
    assert [next_done(pool).beside, next_done(pool).beside] == [(), ()]


def test_images_come_as_bytes_and_what_was_there_is_gone(cluster: FakeCluster, tmp_path: Path) -> None:
    pool, task = pool_over(cluster, tmp_path), task_of(tmp_path, on_a_gpu(0.1))
    folder = task.settings[0].artifacts
    folder.mkdir(parents=True)
    (folder / "old-0.png").write_bytes(b"old")
    pool.submit(task)
    cluster.then(lambda: cluster.comes(0), lambda: cluster.measures(0, {"0/new-0.png": b"new"}))
    next_done(pool)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"new-0.png": b"new"}
    (log,) = (tmp_path / "logs").iterdir()
    assert log.read_text() == "it printed this\n"


@pytest.mark.parametrize("name", ["0/../../evil.png", "0/evil.py", "0/sub/evil.png", "0/.png/x"])
def test_a_file_that_no_trial_leaves_is_not_written(name: str, cluster: FakeCluster, tmp_path: Path) -> None:
    """The second node says the same: then the sweep stops, with the reason."""
    pool = pool_over(cluster, tmp_path)
    pool.submit(task_of(tmp_path, on_a_gpu(0.1)))
    for number in (0, 1):
        cluster.then(
            lambda n=number: cluster.comes(n),
            lambda n=number: cluster.measures(n, {name: b"x"}),
        )
    (result,) = next_done(pool).results
    assert (
        isinstance(result, Failed)
        and result.reason.code == MACHINE
        and "which no trial leaves" in result.reason.message
    )
    assert not list(tmp_path.rglob("*evil*"))


def test_the_images_of_a_reference_are_sent_once(cluster: FakeCluster, tmp_path: Path) -> None:
    pool, reference = pool_over(cluster, tmp_path), tmp_path / "reference"
    reference.mkdir()
    (reference / "en-0.png").write_bytes(b"image")
    (reference / "notes.txt").write_text("not an image of it")
    cluster.then(lambda: cluster.comes(0), lambda: cluster.measures(0), lambda: cluster.measures(0))
    for threshold in (0.1, 0.2):
        task = task_of(tmp_path, on_a_gpu(threshold))
        pool.submit(replace(task, settings=(replace(task.settings[0], reference=reference),)))
        next_done(pool)
    first, second = (files for _, files in cluster.sent[cluster.worker(0)])
    assert first == {"reference/en-0.png": b"image"} and second == {}


def test_a_task_whose_node_dies_is_tried_again_elsewhere(cluster: FakeCluster, tmp_path: Path) -> None:
    pool = pool_over(cluster, tmp_path)
    pool.submit(task_of(tmp_path, on_a_gpu(0.1)))
    cluster.then(
        lambda: cluster.comes(0, "a"),
        lambda: cluster.is_lost(0),
        lambda: cluster.comes(1, "b"),
        lambda: cluster.measures(1),
    )
    assert is_measured(next_done(pool))
    assert [avoid for _, _, avoid in cluster.started] == [(), ("a",)]


def test_a_task_that_loses_two_nodes_fails_with_the_reason_and_is_tried_again_by_the_next_run(
    cluster: FakeCluster, tmp_path: Path
) -> None:
    """Of a task of several the one that was heard of last has the blame: it may be what kills its node."""
    pool, (first, second) = pool_over(cluster, tmp_path), (on_a_gpu(0.1), on_a_gpu(0.2))
    pool.submit(task_of(tmp_path, first, second))
    event = {"event": "round", "trial_id": second.trial_id}
    cluster.then(
        lambda: cluster.comes(0, "a"),
        lambda: cluster.is_lost(0),
        lambda: cluster.comes(1, "b"),
        lambda: [cluster.says(1, {"say": "event", "event": event}), cluster.is_lost(1)],
    )
    results = next_done(pool).results
    assert results[0] == Disrupted() and isinstance(results[1], Failed)
    reason = results[1].reason
    assert (reason.code, reason.is_of_the_machine) == (NODE_LOST, True)
    assert reason.message == "b was lost while it measured: the node died; it was tried 2 times"


def test_a_machine_that_fails_is_left_and_the_second_one_stops_the_sweep(cluster: FakeCluster, tmp_path: Path) -> None:
    pool = pool_over(cluster, tmp_path)
    pool.submit(task_of(tmp_path, on_a_gpu(0.1)))
    full = {"reason": {"code": MACHINE, "message": "No space left on device"}}
    cluster.then(
        lambda: cluster.comes(0, "a"),
        lambda: cluster.answers(0, [full]),
        lambda: cluster.comes(1, "b"),
        lambda: cluster.says(1, {"say": "broken", "why": "cannot start a worker"}),
    )
    (result,) = next_done(pool).results
    assert isinstance(result, Failed) and result.reason.code == MACHINE
    assert result.reason.message.startswith("b: cannot start a worker")
    assert cluster.killed == [cluster.worker(0), cluster.worker(1)]


def test_workers_that_never_come_are_one_clear_error(cluster: FakeCluster, tmp_path: Path) -> None:
    pool = pool_over(cluster, tmp_path)
    pool.submit(task_of(tmp_path, on_a_gpu(0.1)))
    for number in range(NONE_CAME):
        cluster.then(lambda n=number: cluster.is_lost(n, "No module named 'zbench'"))
    with pytest.raises(MachineError, match=r"executor=somewhere: no worker comes up: No module named 'zbench'"):
        next_done(pool)


def test_a_node_of_another_version_is_told_apart(cluster: FakeCluster, tmp_path: Path) -> None:
    pool = pool_over(cluster, tmp_path)
    pool.submit(task_of(tmp_path, on_a_gpu(0.1)))
    for number in range(NONE_CAME):
        other = {"say": "hello", "wire": wire.VERSION + 1, "node": "a", "environment": {}}
        cluster.then(lambda n=number, said=other: cluster.says(n, said))
    with pytest.raises(MachineError, match="speaks version 2, this zbench 1; see that zbench is of one version"):
        next_done(pool)


def test_a_stop_ends_what_waits_at_once_and_what_runs_after_its_round(cluster: FakeCluster, tmp_path: Path) -> None:
    pool, running, waiting = pool_over(cluster, tmp_path), on_a_gpu(0.1), on_a_gpu(0.2)
    pool.submit(task_of(tmp_path, running))
    pool.submit(task_of(tmp_path, waiting, process="q"))
    asked: list[bool] = [False, False, True]
    cluster.then(lambda: cluster.comes(0), lambda: None, lambda: cluster.answers(0, [{"unmeasured": "stopped"}]))

    def should_stop() -> bool:
        return asked.pop(0) if asked else True

    first = pool.next_done(lambda *_: None, should_stop)
    second = pool.next_done(lambda *_: None, should_stop)
    assert (first.task.settings[0].trial, first.results) == (waiting, (Stopped(),))
    assert (second.task.settings[0].trial, second.results) == (running, (Stopped(),))
    assert cluster.said_to(0) == ["run", "stop"]


def test_a_node_that_is_lost_after_a_stop_is_not_tried_again(cluster: FakeCluster, tmp_path: Path) -> None:
    pool = pool_over(cluster, tmp_path)
    pool.submit(task_of(tmp_path, on_a_gpu(0.1)))
    asked = iter([False, False])
    cluster.then(lambda: cluster.comes(0), lambda: cluster.is_lost(0))
    done = pool.next_done(lambda *_: None, lambda: next(asked, True))
    assert done.results == (Stopped(),) and len(cluster.started) == 1


def test_an_abort_ends_every_worker_at_once(cluster: FakeCluster, tmp_path: Path) -> None:
    pool = pool_over(cluster, tmp_path)
    pool.submit(task_of(tmp_path, on_a_gpu(0.1)))
    cluster.then(lambda: cluster.comes(0), pool.abort)
    assert next_done(pool).results == (Stopped(),)
    assert cluster.killed == [cluster.worker(0)]


def test_closing_asks_idle_workers_to_leave_ends_the_others_and_waits_for_nobody_for_long(tmp_path: Path) -> None:
    cluster = FakeCluster(capacity=3)
    pool = pool_over(cluster, tmp_path)
    for threshold in (0.1, 0.2, 0.3):
        pool.submit(task_of(tmp_path, on_a_gpu(threshold)))
    cluster.then(lambda: [cluster.comes(0), cluster.comes(1), cluster.comes(2)])
    cluster.then(lambda: [cluster.measures(0), cluster.measures(1)])
    next_done(pool), next_done(pool)
    cluster.then(lambda: cluster.says(0, {"say": "bye"}), *[lambda: None] * 60)
    pool.close()
    assert [cluster.said_to(n)[-1] for n in range(3)] == ["leave", "leave", "run"]
    assert sorted(cluster.killed) == sorted(worker for worker, *_ in cluster.started)
    assert cluster.killed[0] == cluster.worker(2), "which measured"
    assert cluster.is_closed


def test_idle_workers_make_room_for_one_that_needs_their_devices(tmp_path: Path) -> None:
    """Two workers have a GPU each. A trial of two GPUs comes: they are let go, else it would wait for ever."""
    cluster = FakeCluster(capacity=8)
    pool, told = pool_over(cluster, tmp_path), []
    for threshold in (0.1, 0.2):
        pool.submit(task_of(tmp_path, on_a_gpu(threshold)))
    cluster.then(lambda: [cluster.comes(0), cluster.comes(1)], lambda: [cluster.measures(0), cluster.measures(1)])
    next_done(pool), next_done(pool)
    pool.submit(task_of(tmp_path, on_a_gpu(0.1, devices=2)))
    cluster.then(*[lambda: None] * 30)
    cluster.then(lambda: [cluster.says(0, {"say": "bye"}), cluster.says(1, {"say": "bye"}), cluster.comes(2)])
    cluster.then(lambda: cluster.measures(2))
    assert is_measured(next_done(pool, told))
    assert [devices for _, devices, _ in cluster.started] == [1, 1, 2]
    assert [e["text"] for e in told if e["event"] == "waiting"] == ["waits for a worker with 2 GPUs"]


def test_no_more_workers_than_there_is_room_for(cluster: FakeCluster, tmp_path: Path) -> None:
    """Of two, both idle with one GPU: one of them goes for a worker with two."""
    pool = pool_over(cluster, tmp_path)
    for threshold in (0.1, 0.2):
        pool.submit(task_of(tmp_path, on_a_gpu(threshold)))
    cluster.then(lambda: [cluster.comes(0), cluster.comes(1)], lambda: [cluster.measures(0), cluster.measures(1)])
    next_done(pool), next_done(pool)
    pool.submit(task_of(tmp_path, on_a_gpu(0.1, devices=2)))
    cluster.then(lambda: cluster.says(0, {"say": "bye"}), lambda: cluster.comes(2), lambda: cluster.measures(2))
    next_done(pool)
    assert cluster.said_to(0)[-1] == "leave" and cluster.said_to(1) == ["run"]


def test_events_say_on_which_machine(cluster: FakeCluster, tmp_path: Path) -> None:
    pool, told = pool_over(cluster, tmp_path), []
    pool.submit(task_of(tmp_path, on_a_gpu(0.1)))
    cluster.then(
        lambda: cluster.comes(0, "n7"), lambda: cluster.says(0, {"say": "event", "event": {"event": "loaded"}})
    )
    cluster.then(lambda: cluster.measures(0))
    done = next_done(pool, told)
    assert told == [{"event": "loaded", "node": "n7"}]
    assert isinstance(done.results[0], Completed)


def test_what_a_worker_says_that_was_given_up_is_nothing(cluster: FakeCluster, tmp_path: Path) -> None:
    """Its network came back: its task is another's by then, which alone may end it."""
    pool = pool_over(cluster, tmp_path)
    pool.submit(task_of(tmp_path, on_a_gpu(0.1)))
    cluster.then(
        lambda: cluster.comes(0),
        lambda: cluster.is_lost(0),
        lambda: [cluster.comes(1), cluster.measures(0)],
        lambda: cluster.measures(1),
    )
    assert is_measured(next_done(pool)) and not cluster.script
