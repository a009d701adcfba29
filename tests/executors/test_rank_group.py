"""A worker group of several ranks: what it measures, and that one that is lost, hangs or dissents is named and gone.

Ranks wait for one another in native code that a lost one does not end, so what is claimed holds for NCCL too.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from commands import wait_for
from factories import TINY, trial

from zbench.ab.side import Side, SideFailed, SideWorker
from zbench.config import CacheConfig, DBCacheConfig, EngineConfig, ExecutorConfig, MeasureConfig, ParallelConfig
from zbench.executors import Completed, Failed, Setting, Task
from zbench.executors.local import LocalExecutor
from zbench.measurement import SUSPENDED, Measurement
from zbench.record import Reason
from zbench.trial import Trial

pytestmark = pytest.mark.timeout(1200)  # many processes: on a busy machine they take their time

HERE = Path(__file__).parent
MEASURE = MeasureConfig(max_warmup_rounds=1, min_rounds=2, max_rounds=2, timeout_s=120.0)
ENDS_WITHIN_S = 10.0


@pytest.fixture(autouse=True)
def of_this_test(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The engine importable, and a folder for temporary files that shows what is left behind."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    path = [str(HERE.parent / "engines"), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))


@pytest.fixture
def executor(tmp_path: Path) -> Iterator[LocalExecutor]:
    with LocalExecutor(ExecutorConfig(), tmp_path / "logs", allow_code=True) as executor:
        yield executor


def ranked(ranks: int = 3, cache: CacheConfig | None = None, dp: int = 1, steps: int = 4, **options: Any) -> Trial:
    engine = EngineConfig(name="ranked", target="ranked:RankedEngine", options=options)
    parallel = ParallelConfig(tp_size=ranks // dp, dp_size=dp)
    return trial(cache, engine=engine, parallel=parallel, pipeline=replace(TINY, steps=steps))


def run(executor: LocalExecutor, of: Trial, tmp_path: Path) -> Completed | Failed:
    executor.submit(Task((Setting(of, tmp_path / of.trial_id),), MEASURE, json.dumps(of.engine.options)))
    (result,) = executor.next_done(lambda _, event: None, lambda: False).results
    assert isinstance(result, Completed | Failed)
    return result


def measured(executor: LocalExecutor, of: Trial, tmp_path: Path) -> Measurement:
    result = run(executor, of, tmp_path)
    assert isinstance(result, Completed), result
    return result.measurement


def why(executor: LocalExecutor, of: Trial, tmp_path: Path) -> Reason:
    """Why it failed; that nothing of it is left running, and that the next trial is measured by a fresh group."""
    result = run(executor, of, tmp_path)
    assert isinstance(result, Failed), result
    gone = ranks_said(tmp_path)
    wait_for(lambda: not any(is_running(pid) for pid in gone.values()), ENDS_WITHIN_S)
    made = measured(executor, ranked(), tmp_path)
    assert len(made.requests) == 2 and len(list((tmp_path / "logs").iterdir())) == 2
    fresh = ranks_said(tmp_path)
    assert fresh.keys() == {0, 1, 2} and not set(fresh.values()) & set(gone.values())
    return result.reason


def ranks_said(folder: Path) -> dict[int, int]:
    """Process ids of the ranks of the latest group, as they said in the worker's log."""
    logs = sorted(folder.glob("logs/*.log"), key=lambda path: int(path.stem.rpartition("-")[2]))
    said = re.findall(r"rank (\d+) of \d+ is (\d+)", logs[-1].read_text()) if logs else []
    return {int(rank): int(pid) for rank, pid in said}


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def test_a_request_is_as_slow_as_its_slowest_rank_and_ranks_are_kept(executor: LocalExecutor, tmp_path: Path) -> None:
    made = measured(executor, ranked(), tmp_path)
    for request in made.requests:
        assert [view.rank for view in request.ranks] == [0, 1, 2] and request.images == 1 and request.valid
        assert request.latency_s >= max(view.latency_s for view in request.ranks)
        assert request.steps_s in [view.steps_s for view in request.ranks] and len(request.steps_s) == 4
        assert all(view.device == "cpu" and (view.host_peak_rss_bytes or 0) > 2**20 for view in request.ranks)
    peaks = [view.host_peak_rss_bytes or 0 for view in made.requests[-1].ranks]
    assert (made.window.memory.host_peak_rss_bytes or 0) > 2 * max(peaks), "all ranks are the trial's own"
    assert not list((tmp_path / "temporary").iterdir()) or is_running(ranks_said(tmp_path)[1])
    executor.close()
    assert not list((tmp_path / "temporary").iterdir()), "the meeting's folder goes with the group"


def test_images_made_side_by_side_are_those_of_all_replicas(executor: LocalExecutor, tmp_path: Path) -> None:
    made = measured(executor, ranked(4, dp=2), tmp_path)
    assert [request.images for request in made.requests] == [2, 2] and len(made.requests[0].ranks) == 4


def test_a_group_stays_while_its_topology_does(executor: LocalExecutor, tmp_path: Path) -> None:
    measured(executor, ranked(), tmp_path)
    first = ranks_said(tmp_path)
    again = measured(executor, ranked(cache=DBCacheConfig(), steps=5), tmp_path)
    assert again.reasons["cold.load_s"] == "resident" and len(again.requests[0].steps_s) == 5
    assert ranks_said(tmp_path) == first
    measured(executor, ranked(2), tmp_path)
    second = ranks_said(tmp_path)
    assert second.keys() == {0, 1} and not set(second.values()) & set(first.values())
    measured(executor, ranked(1), tmp_path)
    alone = ranks_said(tmp_path)
    assert alone.keys() == {0} and alone[0] not in second.values(), "one device after several: another process"
    assert not any(is_running(pid) for pid in (*first.values(), *second.values()))


@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize(("misdeed", "how"), [("die", "died of SIGKILL (signal 9)"), ("crash", "died of SIGABRT")])
def test_a_rank_that_dies_fails_the_trial_by_name(
    executor: LocalExecutor, tmp_path: Path, rank: int, misdeed: str, how: str
) -> None:
    reason = why(executor, ranked(misdeed=misdeed, bad_rank=rank), tmp_path)
    assert reason.code == "rank_lost" and reason.message.startswith(f"rank {rank} {how}")
    assert f"about to {misdeed}" in reason.log_tail and f"rank {rank} of 3" in reason.log_tail[0]
    assert reason.stage is not None


def test_a_death_is_the_cause_of_what_others_then_fail_with(executor: LocalExecutor, tmp_path: Path) -> None:
    reason = why(executor, ranked(misdeed="die and be noticed", bad_rank=2), tmp_path)
    assert (reason.code, reason.message) == ("rank_lost", "rank 2 died of SIGKILL (signal 9)")


def test_rank_0_that_dies_takes_all_others_along(executor: LocalExecutor, tmp_path: Path) -> None:
    reason = why(executor, ranked(misdeed="die", bad_rank=0), tmp_path)
    assert reason.code == "worker_died" and "about to die" in reason.log_tail
    assert reason.message.startswith("rank 0, the worker itself, was killed (signal 9)")


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_hangs_is_named(executor: LocalExecutor, tmp_path: Path, rank: int) -> None:
    reason = why(executor, ranked(misdeed="hang", bad_rank=rank, hang_s=3), tmp_path)
    assert reason.code == "rank_hung" and reason.message.startswith(f"rank {rank} gave no sign of life for 3 s")
    assert "its last was step, 1 behind" in reason.message and "engine.options.hang_s=3" in reason.message
    assert any("about to hang" in line for line in reason.log_tail) == (rank == 1)
    assert any('ranked.py", line' in line and "_misbehave" in line for line in reason.log_tail), "where it stands"


def test_ranks_that_hang_at_the_same_place_are_all_named(executor: LocalExecutor, tmp_path: Path) -> None:
    reason = why(executor, ranked(misdeed="hang with all others", bad_rank=1, hang_s=3), tmp_path)
    assert reason.code == "rank_hung" and reason.message.startswith("ranks 0, 1, 2 gave no sign of life for 3 s")
    assert any("[rank 2]" in line and "_step" in line for line in reason.log_tail)


def test_a_rank_that_somebody_stopped_is_named(executor: LocalExecutor, tmp_path: Path) -> None:
    reason = why(executor, ranked(misdeed="stop", bad_rank=2, hang_s=3), tmp_path)
    assert reason.code == "rank_hung" and reason.message.startswith("rank 2 ") and "SIGSTOP" in reason.message


@pytest.mark.parametrize(
    ("misdeed", "code", "says"),
    [
        ("raise", "error", "failed: RuntimeError during a call: it broke"),
        ("run out of memory", "out_of_memory", "failed: MemoryError during a call: no more"),
        ("break loose", "error", "failed: RuntimeError during loading: cannot load"),
        ("cannot be imported", "rank_lost", "ended by itself with exit code 3"),
    ],
)
def test_a_rank_that_fails_says_why_while_others_wait_for_it(
    executor: LocalExecutor, tmp_path: Path, misdeed: str, code: str, says: str
) -> None:
    reason = why(executor, ranked(misdeed=misdeed, bad_rank=1), tmp_path)
    assert (reason.code, reason.message) == (code, f"rank 1 {says}")


def test_rank_0_that_fails_says_so_itself(executor: LocalExecutor, tmp_path: Path) -> None:
    reason = why(executor, ranked(misdeed="raise", bad_rank=0), tmp_path)
    assert reason.code == "error" and reason.message.startswith("RuntimeError during ")


@pytest.mark.parametrize(
    ("misdeed", "what"),
    [("paint another image", "latents are "), ("skip a step", "cached steps [3] and []")],
)
def test_a_rank_that_disagrees_fails_the_trial(
    executor: LocalExecutor, tmp_path: Path, misdeed: str, what: str
) -> None:
    reason = why(executor, ranked(misdeed=misdeed, bad_rank=2), tmp_path)
    assert reason.code == "ranks_disagree" and reason.message.startswith(f"rank 2 disagrees with rank 0: {what}")
    assert f"about to {misdeed}" in reason.log_tail


def test_rounding_is_no_disagreement_and_another_replica_paints_another_image(
    executor: LocalExecutor, tmp_path: Path
) -> None:
    measured(executor, ranked(misdeed="round otherwise", bad_rank=2), tmp_path)
    measured(executor, ranked(2, dp=2, misdeed="paint another image", bad_rank=1), tmp_path)


def test_a_black_image_of_any_replica_spoils_the_request(executor: LocalExecutor, tmp_path: Path) -> None:
    made = measured(executor, ranked(2, dp=2, misdeed="paint nothing", bad_rank=1), tmp_path)
    assert [request.invalid_reasons for request in made.requests] == [["black_image"], []]


def test_what_the_user_can_mend_is_said_once(executor: LocalExecutor, tmp_path: Path) -> None:
    reason = why(executor, ranked(steps=13), tmp_path)
    assert (reason.code, reason.message) == ("config", "pipeline.steps=13: brings bad luck")


def test_a_rank_that_was_stopped_for_a_while_spoils_the_request_alone(executor: LocalExecutor, tmp_path: Path) -> None:
    made = measured(executor, ranked(misdeed="stop for a while", bad_rank=1), tmp_path)
    assert [SUSPENDED in request.invalid_reasons for request in made.requests] == [True, False, False]


def test_a_group_that_was_lost_while_idle_is_no_trials_fault(executor: LocalExecutor, tmp_path: Path) -> None:
    measured(executor, ranked(), tmp_path)
    first = ranks_said(tmp_path)
    os.kill(first[1], signal.SIGKILL)
    (slot,) = executor._slots
    assert slot.client is not None
    wait_for(lambda: slot.client.has_ended, ENDS_WITHIN_S)  # type: ignore[union-attr]
    measured(executor, ranked(), tmp_path)


@pytest.mark.parametrize("misdeed", ["hang", "stop"])
def test_all_ranks_end_with_a_killed_parent(tmp_path: Path, misdeed: str) -> None:
    task = tmp_path / "task.json"
    measure = {"max_warmup_rounds": 1, "min_rounds": 2, "max_rounds": 2, "timeout_s": 600.0}
    of = ranked(misdeed=misdeed, bad_rank=1, hang_s=600).to_dict()
    task.write_text(json.dumps({"trial": of, "measure": measure, "folder": str(tmp_path)}))
    parent = subprocess.Popen([sys.executable, str(HERE / "parent.py"), str(task)], stdout=subprocess.DEVNULL)
    try:
        wait_for(lambda: any("about to" in log.read_text() for log in tmp_path.glob("logs/*.log")))
        ranks = ranks_said(tmp_path)
        assert ranks.keys() == {0, 1, 2} and all(map(is_running, ranks.values()))
    finally:
        parent.kill()
        parent.wait()
    wait_for(lambda: not any(map(is_running, ranks.values())), ENDS_WITHIN_S)


def test_the_folder_of_a_killed_group_is_removed_by_the_next(executor: LocalExecutor, tmp_path: Path) -> None:
    why(executor, ranked(misdeed="die", bad_rank=1), tmp_path)
    assert len(list((tmp_path / "temporary").iterdir())) == 1, "the present one's"


def test_a_comparison_has_a_group_for_each_side_or_one_for_both(tmp_path: Path) -> None:
    sides = [Side("a", ranked(2), allow_code=True), Side("b", ranked(2, steps=5), allow_code=True)]
    worker = SideWorker(sides, tmp_path / "logs" / "worker-1.log", timeout_s=60)
    try:
        worker.prepare(0.0)
        made = [worker.generate(name, 1) for name in ("a", "b")]
    finally:
        worker.close()
    assert [(len(each.ranks), len(each.steps_s)) for each in made] == [(2, 4), (2, 5)]
    assert not any(map(is_running, ranks_said(tmp_path).values()))


def test_a_comparison_says_which_rank_was_lost(tmp_path: Path) -> None:
    side = Side("a", ranked(2, misdeed="die", bad_rank=1), allow_code=True)
    worker = SideWorker([side], tmp_path / "logs" / "worker-1.log", timeout_s=60)
    try:
        worker.prepare(0.0)
        with pytest.raises(SideFailed, match=r"--a: rank_lost: rank 1 died of SIGKILL \(signal 9\)"):
            worker.generate("a", 1)
    finally:
        worker.close()
    wait_for(lambda: not any(map(is_running, ranks_said(tmp_path).values())), ENDS_WITHIN_S)
