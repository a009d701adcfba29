"""Time in which nothing ran, here or in the worker, is nobody's: no time-out, and no round's latency."""

import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from commands import logging_under
from factories import trial

from zbench.ab.side import Side, SideWorker
from zbench.config import EngineConfig, ExecutorConfig, MeasureConfig
from zbench.executors import Completed, Setting, Task
from zbench.executors.client import LONGEST_LOOK_S, Patience, WorkerClient
from zbench.executors.local import LocalExecutor
from zbench.measurement import SUSPENDED, Measurement
from zbench.trial import Trial

ENGINES = Path(__file__).parent.parent / "engines"
MEASURE = MeasureConfig(max_warmup_rounds=0, min_rounds=2, max_rounds=2, timeout_s=4.0)


@pytest.fixture(autouse=True)
def synthetic_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(ENGINES), os.environ.get("PYTHONPATH")])))


def synthetic(**options: Any) -> Trial:
    return trial(engine=EngineConfig(name="synthetic", target="synthetic:SyntheticEngine", options=options))


def measured(of: Trial, folder: Path, on_event: Any = lambda event: None) -> Measurement:
    with LocalExecutor(ExecutorConfig(), folder / "logs") as executor:
        executor.submit(Task((Setting(of, folder / "artifacts"),), MEASURE))
        (result,) = executor.next_done(lambda _, event: on_event(event), lambda: False).results
    assert isinstance(result, Completed), result
    return result.measurement


class Stoppable:
    """Stands in for a client whose worker somebody may stop."""

    is_stopped = False


def test_only_time_in_which_somebody_waited_for_a_running_worker_counts() -> None:
    now, client = [100.0], Stoppable()
    patience = Patience(10.0, client, lambda: now[0])  # type: ignore[arg-type]
    now[0] += 0.5
    assert patience.left_s() == pytest.approx(9.5)
    now[0] += 3600  # an hour with a closed lid, or after Ctrl-Z
    assert patience.left_s() == pytest.approx(9.5 - LONGEST_LOOK_S)
    client.is_stopped = True
    now[0] += 0.5
    assert patience.left_s() == pytest.approx(9.5 - LONGEST_LOOK_S)
    client.is_stopped = False
    for _ in range(20):
        now[0] += 0.5
        left_s = patience.left_s()
    assert left_s < 0


def test_what_a_worker_said_counts_before_what_time_it_is(tmp_path: Path) -> None:
    """While this process does not look, as after Ctrl-Z, the worker goes on; what it has to say waits in its pipe."""
    slow = {"first": True}

    def on_event(event: dict[str, Any]) -> None:
        if slow.pop("first", False):
            time.sleep(MEASURE.timeout_s + 1)

    assert len(measured(synthetic(), tmp_path, on_event).requests) == 2


def test_a_worker_that_was_stopped_is_no_timeout_and_makes_the_request_again(tmp_path: Path) -> None:
    stopped: list[threading.Thread] = []

    def stop_for_a_while() -> None:
        (worker,) = logging_under(tmp_path / "logs")
        time.sleep(0.2)  # into the round
        worker.suspend()
        time.sleep(MEASURE.timeout_s + 1)
        worker.resume()

    def on_event(event: dict[str, Any]) -> None:
        if event["event"] == "loaded":
            stopped.append(threading.Thread(target=stop_for_a_while))
            stopped[0].start()

    made = measured(synthetic(round_s=0.6), tmp_path, on_event)
    stopped[0].join()
    first, *others = made.requests
    assert first.disturbances[0] == SUSPENDED and first.invalid_reasons == [SUSPENDED] and not first.valid
    assert first.latency_s > MEASURE.timeout_s
    assert [(r.prompt_id, r.valid) for r in others] == [("en-circle", True), ("zh-square", True)]
    assert [r.index for r in made.requests] == [0, 1, 2] and first.prompt_id == "en-circle"
    assert made.reasons["energy"] == SUSPENDED
    assert made.window.wall_s_of([r for r in made.requests if r.valid]) < MEASURE.timeout_s


class Scripted:
    """Stands in for the client of a side: what its worker answers, one after another."""

    environment: dict[str, Any] | None = None
    is_stopped = False

    def __init__(self, *answers: list[str]) -> None:
        self._answers = list(answers)
        self.asked = 0

    def tell(self, command: dict[str, Any]) -> None:
        self.asked += 1

    def next_event(self, wait_s: float) -> dict[str, Any]:
        request = {"index": 0, "trial_id": "a", "role": "trial", "prompt_id": "p", "seed": 0, "latency_s": 1.0}
        request |= {"due_s": 0.0, "sent_s": 0.0, "begun_s": 0.0, "done_s": 1.0, "stages_s": {}, "steps_s": []}
        request |= {"cached_steps": [], "residual_diffs": {}, "image_sha256": ""}
        return {"event": "generated", "request": {**request, "disturbances": self._answers.pop(0)}}


def test_a_comparison_makes_a_suspended_round_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = Scripted([SUSPENDED], [SUSPENDED, "clock_step"], ["other_load"])
    monkeypatch.setattr("zbench.ab.side.WorkerClient", lambda *args, **options: client)
    worker = SideWorker([Side("a", synthetic())], tmp_path / "worker.log", timeout_s=60)
    assert worker.generate("a", 0).disturbances == ["other_load"] and client.asked == 3


def test_a_worker_says_whether_it_is_stopped(tmp_path: Path) -> None:
    client = WorkerClient(tmp_path / "worker.log")
    try:
        assert not client.is_stopped
        os.kill(client.process.pid, signal.SIGSTOP)
        deadline = time.monotonic() + 10
        while not client.is_stopped:
            assert time.monotonic() < deadline
    finally:
        client.discard()
    assert not client.is_stopped, "nor is one that is gone"


def test_a_machine_that_slept_and_a_process_that_was_continued_suspend_a_round() -> None:
    from zbench.probes.disturbance import RoundWatch, disturbances, host_state

    before = host_state()
    assert SUSPENDED not in disturbances(before, host_state())
    assert SUSPENDED in disturbances(before, replace(host_state(), asleep_s=before.asleep_s + 60))
    watch = RoundWatch()
    earlier = signal.getsignal(signal.SIGCONT)
    try:
        watch.begin()
        signal.raise_signal(signal.SIGCONT)
        assert SUSPENDED in watch.end()
        watch.begin()
        assert SUSPENDED not in watch.end()
    finally:
        signal.signal(signal.SIGCONT, earlier)
