"""Real worker processes. The synthetic engine stands in for the pipeline wherever only the plumbing is claimed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from commands import logging_under
from factories import TINY, trial

from zbench.config import CacheConfig, DBCacheConfig, EngineConfig, ExecutorConfig, MeasureConfig
from zbench.executors import Completed, Failed, Setting, Stopped, Task, TaskResult
from zbench.executors.client import death
from zbench.executors.local import LocalExecutor
from zbench.probes.others import OthersOnCores
from zbench.trial import Trial

ENGINES = Path(__file__).parent.parent / "engines"
LOCAL = ExecutorConfig(name="local", target="zbench.executors.local:LocalExecutor")
MEASURE = MeasureConfig(max_warmup_rounds=1, min_rounds=2, max_rounds=2, timeout_s=60.0)
ENDS_WITHIN_S = 5.0
"""How soon a worker must be gone after its parent."""


@pytest.fixture(autouse=True)
def synthetic_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(ENGINES), os.environ.get("PYTHONPATH")])))


@pytest.fixture
def executor(tmp_path: Path) -> Iterator[LocalExecutor]:
    with LocalExecutor(LOCAL, tmp_path / "logs") as executor:
        yield executor


def synthetic(threshold: float | None = None, **options: Any) -> Trial:
    cache = CacheConfig() if threshold is None else DBCacheConfig(residual_diff_threshold=threshold)
    engine = EngineConfig(name="synthetic", target="synthetic:SyntheticEngine", options=options)
    return trial(cache, engine=engine)


def run(
    executor: LocalExecutor,
    of: Trial,
    tmp_path: Path,
    *,
    measure: MeasureConfig = MEASURE,
    reference: Path | None = None,
    is_reference: bool = False,
    on_event: Callable[[dict[str, Any]], None] = lambda event: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> TaskResult:
    setting = Setting(of, tmp_path / of.trial_id, reference, is_reference)
    executor.submit(Task((setting,), measure, of.engine.name))
    (result,) = executor.next_done(lambda _, event: on_event(event), should_stop).results
    return result


def completed(outcome: TaskResult) -> Any:
    assert isinstance(outcome, Completed), outcome
    return outcome.measurement


def reason(outcome: TaskResult) -> Any:
    assert isinstance(outcome, Failed), outcome
    return outcome.reason


def test_trial_comes_back_whole(executor: LocalExecutor, tmp_path: Path) -> None:
    events: list[dict[str, Any]] = []
    of = synthetic()
    measured = completed(run(executor, of, tmp_path, on_event=events.append))
    assert [event["event"] for event in events] == ["loading", "loaded", *["round"] * 3]
    assert [(r.prompt_id, r.seed) for r in measured.requests] == [("en-circle", 0), ("zh-square", 0)]
    assert measured.window.stop_reason == "max_rounds" and len(measured.warmup_latencies_s) == 1
    assert measured.cold.load_s is not None and measured.cold.first_latency_s == measured.warmup_latencies_s[0]
    assert measured.memory.host_peak_rss_bytes > 2**20
    names = sorted(path.name for path in (tmp_path / of.trial_id).iterdir())
    assert names == ["en-circle-0.png", "latents.safetensors", "made_by.json", "zh-square-0.png"]


def test_progress_of_a_load_arrives_a_few_times_a_second(executor: LocalExecutor, tmp_path: Path) -> None:
    events: list[dict[str, Any]] = []
    measured = completed(run(executor, synthetic(load_s=1.0, load_bytes=1000), tmp_path, on_event=events.append))
    loading = [event for event in events if event["event"] == "loading"]
    assert "stage" not in loading[0] and 3 <= len(loading) - 1 <= 5
    done = [(event["stage"], event["done_bytes"], event["total_bytes"]) for event in loading[1:]]
    assert done == sorted(done) and done[0] == ("checking", 100, 1000) and done[-1][0] == "loading"
    assert 0.3 < measured.cold.load_s < 0.9, "half of the second was spent on checksums"


def test_second_trial_of_a_pipeline_neither_loads_nor_starts_a_worker(executor: LocalExecutor, tmp_path: Path) -> None:
    completed(run(executor, synthetic(), tmp_path))
    events: list[dict[str, Any]] = []
    measured = completed(run(executor, synthetic(0.4), tmp_path, on_event=events.append))
    assert {event["event"] for event in events} == {"round"}
    assert measured.cold.load_s is None and measured.reasons["cold.load_s"] == "resident"
    assert len(list((tmp_path / "logs").iterdir())) == 1


def test_other_pipeline_is_loaded_in_the_same_worker(executor: LocalExecutor, tmp_path: Path) -> None:
    completed(run(executor, synthetic(), tmp_path))
    measured = completed(run(executor, synthetic(round_s=0.02), tmp_path))
    assert measured.cold.load_s is not None
    assert len(list((tmp_path / "logs").iterdir())) == 1


def test_quality_is_against_the_reference_and_none_without(executor: LocalExecutor, tmp_path: Path) -> None:
    baseline, skipping = synthetic(), synthetic(0.4)
    first = completed(run(executor, baseline, tmp_path))
    assert first.quality is None and first.reasons["quality"] == "no_reference"
    second = completed(run(executor, skipping, tmp_path, reference=tmp_path / baseline.trial_id))
    # The synthetic engine brightens an image by one level a skipped step; 4 of 8 are skipped here.
    assert [r.cached_steps for r in second.requests] == [[4, 5, 6, 7]] * 2
    assert [q.prompt_id for q in second.quality] == ["en-circle", "zh-square"]
    assert all(q.psnr_db is not None and 30 < q.psnr_db < 40 and q.ssim < 1 for q in second.quality)


@pytest.mark.parametrize(
    ("misdeed", "code", "words"),
    [
        ("crash_on", "worker_died", "SIGABRT"),
        ("kill_on", "worker_died", "often the kernel's out-of-memory killer"),
        ("raise_on", "error", "RuntimeError during warm-up rounds: the pipeline broke over two lines"),
        ("raise_memory_error_on", "out_of_memory", "during warm-up rounds"),
    ],
)
def test_trial_that_goes_wrong_fails_alone(
    executor: LocalExecutor, tmp_path: Path, misdeed: str, code: str, words: str
) -> None:
    options = {misdeed: 0.1}
    completed(run(executor, synthetic(**options), tmp_path))
    sick = synthetic(0.1, **options)
    why = reason(run(executor, sick, tmp_path))
    assert why.code == code and words in why.message and "\n" not in why.message
    assert why.log_tail[0] == f"trial {sick.trial_id} {sick.label}", "the tail is this trial's, not the one before"
    completed(run(executor, synthetic(0.2, **options), tmp_path))


def test_trial_that_hangs_is_ended_at_its_timeout(executor: LocalExecutor, tmp_path: Path) -> None:
    measure = replace(MEASURE, timeout_s=2.0)
    began = time.monotonic()
    why = reason(run(executor, synthetic(0.1, hang_on=0.1), tmp_path, measure=measure))
    assert why.code == "timeout" and "measure.timeout_s=2" in why.message and "about to hang" in why.log_tail
    (asked,) = (at for at, line in enumerate(why.log_tail) if line.endswith("(most recent call first):"))
    assert "in _hang" in why.log_tail[asked + 1], "the innermost call is told, however deep it is"
    assert time.monotonic() - began < 2.0 + ENDS_WITHIN_S
    completed(run(executor, synthetic(0.2, hang_on=0.1), tmp_path))


def test_pipeline_that_does_not_load_is_a_failure_with_its_traceback(executor: LocalExecutor, tmp_path: Path) -> None:
    why = reason(run(executor, synthetic(fail_load=True), tmp_path))
    assert why.code == "error" and why.message == "RuntimeError during loading: no such pipeline"
    assert any("synthetic.py" in line for line in why.log_tail)


def test_user_s_mistake_is_told_in_its_own_words(executor: LocalExecutor, tmp_path: Path) -> None:
    why = reason(run(executor, synthetic(nope=1), tmp_path))
    assert why.code == "config" and why.message.startswith("engine.options=")


def test_a_trial_that_its_engine_cannot_run_is_refused_in_the_engine_s_words(
    executor: LocalExecutor, tmp_path: Path
) -> None:
    why = reason(run(executor, synthetic(refuse="engine=no: never"), tmp_path))
    assert (why.code, why.message) == ("config", "engine=no: never")


def test_stop_ends_the_trial_after_the_round_in_progress(executor: LocalExecutor, tmp_path: Path) -> None:
    ended_at: list[float] = []

    def on_event(event: dict[str, Any]) -> None:
        if event["event"] == "round":
            ended_at.append(time.monotonic())

    def within_second_round() -> bool:
        return bool(ended_at) and time.monotonic() - ended_at[0] > 0.3

    measure = replace(MEASURE, min_rounds=100, max_rounds=100)
    of = synthetic(round_s=0.8)
    outcome = run(executor, of, tmp_path, measure=measure, on_event=on_event, should_stop=within_second_round)
    assert isinstance(outcome, Stopped)
    assert len(ended_at) == 2, "the round in which the stop came was finished, and no other begun"
    completed(run(executor, of, tmp_path))  # the worker and its pipeline are still there
    assert len(list((tmp_path / "logs").iterdir())) == 1


def test_nothing_starts_once_a_stop_was_asked_for(executor: LocalExecutor, tmp_path: Path) -> None:
    assert isinstance(run(executor, synthetic(), tmp_path, should_stop=lambda: True), Stopped)
    assert not (tmp_path / "logs").exists()


def test_abort_does_not_wait_for_the_round(executor: LocalExecutor, tmp_path: Path) -> None:
    began = time.monotonic()
    outcome = run(
        executor,
        synthetic(0.1, hang_on=0.1),
        tmp_path,
        on_event=lambda event: executor.abort() if event["event"] == "loaded" else None,
    )
    assert isinstance(outcome, Stopped) and time.monotonic() - began < 30


def test_rounds_end_once_the_interval_is_narrow(executor: LocalExecutor, tmp_path: Path) -> None:
    measure = replace(MEASURE, min_rounds=5, max_rounds=100, target_rel_ci=1.0)
    measured = completed(run(executor, synthetic(), tmp_path, measure=measure))
    # 5 becomes 6, three whole cycles over two prompts, and 6 samples are the least that have an interval at 95 %.
    assert measured.window.stop_reason == "interval" and len(measured.requests) == 6


def test_rounds_end_once_the_budget_is_spent(executor: LocalExecutor, tmp_path: Path) -> None:
    measure = replace(MEASURE, min_rounds=2, max_rounds=100, target_rel_ci=1e-9, budget_s=0.01)
    # a reference makes each of its two images twice, budget or not
    for is_reference, rounds in ((True, 4), (False, 2)):
        measured = completed(run(executor, synthetic(), tmp_path, measure=measure, is_reference=is_reference))
        assert measured.window.stop_reason == "budget" and len(measured.requests) == rounds
        assert (measured.noise_floor is not None) == is_reference


def test_kernel_s_out_of_memory_kill_is_told_from_other_kills() -> None:
    assert death(-signal.SIGKILL, oom_killed=True).code == "out_of_memory"
    assert death(-signal.SIGKILL, oom_killed=False).code == "worker_died"
    assert "exit code 3" in death(3, oom_killed=False).message


def test_executor_and_synthetic_worker_need_no_torch(executor: LocalExecutor, tmp_path: Path) -> None:
    completed(run(executor, synthetic(), tmp_path))
    (worker,) = logging_under(tmp_path / "logs")
    assert not any("libtorch" in mapped.path for mapped in worker.memory_maps())
    code = "import sys, zbench.executors.local; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_worker_leaves_when_the_executor_closes(tmp_path: Path) -> None:
    executor = LocalExecutor(LOCAL, tmp_path / "logs")
    completed(run(executor, synthetic(), tmp_path))
    (worker,) = logging_under(tmp_path / "logs")
    executor.close()
    assert not worker.is_running()


@pytest.mark.parametrize("kind", ["synthetic", "reference"])
def test_worker_dies_with_a_parent_that_was_killed(tmp_path: Path, kind: str) -> None:
    """In the middle of a round: one that would hang for an hour, or a real generation of very many steps."""
    if kind == "synthetic":
        of, until = synthetic(0.1, hang_on=0.1), "loaded"
    else:
        of, until = trial(pipeline=replace(TINY, steps=1000)), "loaded"
    task = tmp_path / "task.json"
    measure = {"max_warmup_rounds": 1, "min_rounds": 2, "max_rounds": 2, "timeout_s": 600.0}
    task.write_text(json.dumps({"trial": of.to_dict(), "measure": measure, "folder": str(tmp_path)}))
    command = [sys.executable, str(Path(__file__).parent / "parent.py"), str(task)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        for line in parent.stdout:
            assert line.startswith("{"), line
            if json.loads(line)["event"] == until:
                break
        (worker,) = psutil.Process(parent.pid).children()
        time.sleep(0.5)  # well into the round
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
        _, alive = psutil.wait_procs([worker], timeout=ENDS_WITHIN_S)
    assert not alive


@pytest.mark.parametrize("own", [None, "131072"])
def test_workers_keep_freed_memory_unless_the_user_says_otherwise(
    own: str | None, executor: LocalExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if own is None:
        monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_", raising=False)
    else:
        monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", own)
    completed(run(executor, synthetic(), tmp_path))
    (worker,) = logging_under(tmp_path / "logs")
    assert worker.environ()["MALLOC_TRIM_THRESHOLD_"] == (own or str(2**30))


@pytest.mark.parametrize(
    ("theirs", "spins"), [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)]
)
def test_threads_of_workers_wait_briefly_unless_the_user_says_otherwise(
    theirs: dict[str, str],
    spins: str | None,
    executor: LocalExecutor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Threads that spin take the cores from those that they wait for, where other programs compute."""
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in theirs.items():
        monkeypatch.setenv(name, value)
    completed(run(executor, synthetic(), tmp_path))
    (worker,) = psutil.Process().children()
    assert worker.environ().get("GOMP_SPINCOUNT") == spins


def test_what_slows_a_trial_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And that it is over."""
    said = iter(["2 other processes use 1.9 of 2 cores", None])
    monkeypatch.setattr("zbench.executors.local.OTHERS_S", 0.0)
    monkeypatch.setattr(OthersOnCores, "look", lambda self, now_s: next(said, None))
    events: list[dict[str, Any]] = []
    with LocalExecutor(LOCAL, tmp_path / "logs") as executor:
        completed(run(executor, synthetic(), tmp_path, on_event=events.append))
    told = [event["text"] for event in events if event["event"] == "slowed"]
    assert told == ["2 other processes use 1.9 of 2 cores", None]
