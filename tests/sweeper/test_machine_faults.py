"""What the machine fails at says nothing about a trial: it stops the sweep, is no record, and is tried again."""

import errno
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from factories import GRID, failed, measurement, trial
from one_at_a_time import OneAtATime
from plans import plan_of

from zbench.config import DBCacheConfig, EngineConfig, ExecutorConfig, MeasureConfig
from zbench.errors import MACHINE_FAULTS, MachineError, cannot_write, machine_fault
from zbench.executors import Completed, Failed, OnEvent, Setting, Task, TaskResult
from zbench.executors.local import LocalExecutor
from zbench.quality import artifacts
from zbench.record import MACHINE, Reason, Record
from zbench.search.grid import GridSearch
from zbench.space import arrange
from zbench.store import RECORDS, Store, read_records
from zbench.sweeper import sweep
from zbench.worker.__main__ import _failed

ENGINES = Path(__file__).parent.parent / "engines"
TRIALS = (trial(), trial(DBCacheConfig(max_warmup_steps=2)), trial(DBCacheConfig(max_warmup_steps=4)))


class Says(OneAtATime):
    """Measures, but for the trial of one label."""

    def __init__(self, label: str, reason: Reason | None) -> None:
        super().__init__()
        self.label, self.reason = label, reason
        self.ran: list[str] = []

    def run_one(self, setting: Setting, task: Task, on_event: OnEvent) -> TaskResult:
        self.ran.append(setting.trial.label)
        if self.reason is not None and setting.trial.label == self.label:
            return Failed(self.reason)
        return Completed(measurement(setting.trial))


class Notes:
    """Keeps what is noted."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *told: self.notes.append(told[0]) if name == "note" else None


def swept(folder: Path, executor: Says) -> tuple[list[Record], list[str]]:
    space, listener = arrange(TRIALS), Notes()
    plan = plan_of(space, folder)
    with Store(plan.run_folder, listener.note) as store:
        done = sweep.Sweep(plan, store, executor, GridSearch(space, GRID), listener, lambda: False).run()  # type: ignore[arg-type]
    return done.records, listener.notes


def states(folder: Path) -> list[str]:
    return [r.state for r in read_records(folder / "s" / RECORDS)]


def test_a_machine_that_fails_stops_the_sweep_with_one_line_and_the_same_sweep_goes_on(tmp_path: Path) -> None:
    sick = TRIALS[1].label
    reason = Reason(MACHINE, "cannot write images to x: No space left on device")
    with pytest.raises(MachineError) as raised:
        swept(tmp_path, Says(sick, reason))
    line = str(raised.value)
    assert "No space left on device; free some space" in line and f"no failure of {sick}" in line and "\n" not in line
    assert "the same command goes on" in line and states(tmp_path) == ["COMPLETE"]
    records, notes = swept(tmp_path, again := Says("", None))
    assert [r.state for r in records] == ["COMPLETE"] * 3 and not notes
    assert again.ran == [t.label for t in TRIALS[1:]], "what was measured before is kept"


OF_THE_MACHINE = [
    Reason("worker_died", "the worker was killed (signal 9), often the kernel's out-of-memory killer"),
    Reason("worker_died", "the worker died of SIGTERM (signal 15)"),
    Reason("worker_died", "the worker died of SIGBUS (signal 7)"),
    # as records say it that were written before these were told apart
    Reason("error", "OSError during saving images: [Errno 28] No space left on device: 'a.png.partial'"),
    Reason("error", "PermissionError during saving images: [Errno 13] Permission denied: 'a.png.partial'"),
    Reason("error", "RuntimeError during loading, text_encode: CUDA error: unknown error"),
]
OF_THE_TRIAL = [
    Reason("worker_died", "the worker died of SIGSEGV (signal 11)"),
    Reason("worker_died", "the worker ended by itself with exit code 3"),
    Reason("out_of_memory", "the worker was killed (signal 9) by the kernel's out-of-memory killer"),
    Reason("out_of_memory", "OutOfMemoryError during warm-up rounds: CUDA out of memory"),
    Reason("timeout", "took longer than measure.timeout_s=2"),
    Reason("error", "RuntimeError during warm-up rounds: CUDA error: an illegal memory access was encountered"),
    Reason("config", "engine.options={'nope': 1}: no such option"),
    Reason("invalid_images", "2 of 2 images are black"),
]


@pytest.mark.parametrize("reason", OF_THE_MACHINE, ids=lambda r: r.message[:40])
def test_a_record_of_what_the_machine_did_is_tried_again_by_itself(tmp_path: Path, reason: Reason) -> None:
    swept(tmp_path, Says(TRIALS[1].label, reason))
    assert states(tmp_path) == ["COMPLETE", "FAILED", "COMPLETE"], "the sweep went on"
    records, notes = swept(tmp_path, again := Says("", None))
    assert again.ran == [TRIALS[1].label] and [r.state for r in records] == ["COMPLETE"] * 3
    assert notes == [f"{TRIALS[1].label} is tried again: the machine failed and not it: {reason.message}"]


@pytest.mark.parametrize("reason", OF_THE_TRIAL, ids=lambda r: r.message[:40])
def test_a_trial_s_own_failure_is_an_answer(reason: Reason) -> None:
    assert not reason.is_of_the_machine
    assert replace(failed(TRIALS[0]), reason=reason).reason == reason


@pytest.mark.parametrize(
    "number", ["ENOSPC", "EDQUOT", "EROFS", "EIO", "EFBIG", "ESTALE", "EMFILE", "ENFILE", "EAGAIN"]
)
def test_an_error_of_the_machine_is_told_by_its_number_wherever_it_is_raised(number: str) -> None:
    error = OSError(getattr(errno, number), os.strerror(getattr(errno, number)), "/some/file")
    assert machine_fault(str(error)) in MACHINE_FAULTS.values()
    wrapped = RuntimeError("the engine gave up")
    wrapped.__cause__ = error
    for raised in (error, wrapped):
        assert _failed(raised, "warm-up rounds", None)["code"] == MACHINE


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "prompt.txt"), "error"),
        (MemoryError("no more"), "out_of_memory"),
        (RuntimeError("CUDA error: device-side assert triggered"), "error"),
        (RuntimeError("CUDA error: unknown error\nCUDA kernel errors might be reported later"), MACHINE),
        (RuntimeError("NVML: GPU is lost"), MACHINE),
        (RuntimeError("can't start new thread"), MACHINE),
    ],
)
def test_other_errors_are_told_by_their_words(error: Exception, code: str) -> None:
    event = _failed(error, "warm-up rounds", None)
    assert event["code"] == code and "\n" not in event["message"]


def test_a_log_without_room_hides_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("traceback.print_exc", no_room)
    assert _failed(ValueError("it broke"), "loading", None)["message"] == "ValueError during loading: it broke"


def no_room(*_: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a file")


def test_images_without_room_name_the_space_and_leave_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import numpy as np

    images = [artifacts.Artifact("p", seed, np.zeros((1024, 1024, 3), np.uint8), None) for seed in range(4)]
    artifacts.save_artifacts(tmp_path, images[:1])
    with monkeypatch.context() as patched:
        patched.setattr("zbench.store.os.replace", no_room)
        with pytest.raises(
            Exception, match=r"cannot write images to .*: No space left .* about 13 MB are needed, .* MB are"
        ):
            artifacts.save_artifacts(tmp_path, images)
    assert not list(tmp_path.glob("*.partial"))
    artifacts.save_artifacts(tmp_path, images)
    assert not artifacts.missing(tmp_path, [("p", seed) for seed in range(4)])


def test_what_is_not_the_machine_s_has_its_own_way_out(tmp_path: Path) -> None:
    denied = PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    assert (
        cannot_write("x", denied, tmp_path, 10, "choose another") == "cannot write x: Permission denied; choose another"
    )


def test_a_worker_that_never_says_hello_is_no_answer_about_a_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "msgspec.py").write_text("raise ImportError('half an installation')")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setattr("zbench.executors.client.HOME", tmp_path)
    with LocalExecutor(ExecutorConfig(), tmp_path / "logs") as executor:
        executor.submit(Task((Setting(TRIALS[0], tmp_path / "a"),), MeasureConfig()))
        (result,) = executor.next_done(lambda _, event: None, lambda: False).results
    assert isinstance(result, Failed) and result.reason.code == MACHINE
    assert "before it could take a trial" in result.reason.message
    assert "ends: ImportError: half an installation" in result.reason.message


def test_a_disk_that_fills_up_in_a_worker_is_the_machine_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file stands where the folder for images is to be: they cannot be written, after a whole measurement."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ENGINES), os.environ.get("PYTHONPATH", "")]))
    of = trial(engine=EngineConfig(name="synthetic", target="synthetic:SyntheticEngine"))
    (tmp_path / "a").write_text("in the way")
    with LocalExecutor(ExecutorConfig(), tmp_path / "logs") as executor:
        executor.submit(
            Task((Setting(of, tmp_path / "a"),), MeasureConfig(max_warmup_rounds=0, min_rounds=2, max_rounds=2))
        )
        (result,) = executor.next_done(lambda _, event: None, lambda: False).results
    assert isinstance(result, Failed) and result.reason.code == MACHINE
    assert result.reason.message.startswith("cannot write images to ")
