"""What a sweep says while it runs, read off a console that is no terminal."""

import re
from dataclasses import replace
from io import StringIO

import pytest
from factories import complete, failed, trial, with_window
from rich.console import Console

from zbench.analysis.view import view_of
from zbench.config import DBCacheConfig
from zbench.record import Record
from zbench.search import Foresight
from zbench.space import Placed, arrange
from zbench.sweeper.conduct import labels_of
from zbench.sweeper.progress import Eta, SweepProgress, describe, duration
from zbench.trial import Trial

BASELINE = trial()
CACHED = trial(DBCacheConfig())


def said(*finished: tuple[Trial, Record]) -> list[str]:
    """One line for each record, as a sweep prints it."""
    out = StringIO()
    progress = SweepProgress(Foresight(len(finished), len(finished)), Console(file=out, width=200))
    known: list[Record] = []
    for of, record in finished:
        placed = Placed(of, record.reference_id, record.baseline_id)
        progress.started(placed)
        known.append(record)
        rows = view_of(known).trials
        progress.finished(placed, record, next(row for row in rows if row.trial_id == record.trial_id))
    return out.getvalue().splitlines()


def test_a_cached_trial_shows_its_speed_up_over_its_own_baseline() -> None:
    first, second = said((BASELINE, complete(BASELINE)), (CACHED, complete(CACHED, latency_s=0.5, cached=(5, 6))))
    assert first.startswith("[1/2] none 1.000 s 1.00x 0.0 steps skipped")
    assert re.match(r"\[2/2\] F1B0_W4_MC3_R0\.24 0\.500 s 2\.00x \[1\.\d\d, 2\.\d\d\] 2\.0 steps skipped", second), (
        "not by turns, so that its interval counts what processes differ by"
    )
    assert second.endswith("(done)")


def test_trials_of_one_label_are_told_apart_as_the_table_does() -> None:
    """Of two attention kernels neither need be the default of its device."""
    kernels = [replace(BASELINE, compute=replace(BASELINE.compute, attention_backend=k)) for k in ("flash", "_sage")]
    space = arrange([BASELINE, *kernels])
    out, now = StringIO(), [0.0]
    progress = SweepProgress(
        Foresight(2, 2), Console(file=out, width=200), clock=lambda: now[0], labels=labels_of(space)
    )
    for placed in space.placed[1:]:
        progress.started(placed)
        now[0] += 20
        progress.event(placed, {"event": "loaded", "load_s": 1.0})
        record = complete(placed.trial)
        progress.finished(placed, record, view_of([record]).trials[0])
    told = out.getvalue().splitlines()
    for kernel, (doing, done) in zip(("flash", "_sage"), zip(told[::2], told[1::2], strict=True), strict=True):
        named = f"none compute.attention_backend={kernel}"
        assert doing == f"{named}: loaded, warming up" and done.split("] ")[1].startswith(f"{named} 1.000 s")


def test_what_the_table_will_doubt_is_doubted_while_the_sweep_runs() -> None:
    """The figures and caveats of a line are those that the table has at the end."""
    base, throttled = complete(BASELINE), complete(CACHED, latency_s=0.5, cached=(2, 3, 4, 5), validity=["throttled"])
    _, line = said((BASELINE, base), (CACHED, throttled))
    assert "(!) throttled" in line
    unbelievable = complete(CACHED, latency_s=0.1, cached=(5,))
    _, line = said((BASELINE, base), (CACHED, unbelievable))
    row = next(row for row in view_of([base, unbelievable]).trials if not row.is_baseline)
    assert f"{row.speedup:.2f}x" in line and row.caveats[0] in line


def test_disturbed_rounds_are_left_out() -> None:
    record = complete(CACHED, latency_s=0.5, n_rounds=4)
    assert record.measurement is not None
    slow = [replace(r, latency_s=9.0, valid=i >= 2) if i < 2 else r for i, r in enumerate(record.measurement.requests)]
    _, line = said(
        (BASELINE, complete(BASELINE)),
        (CACHED, replace(record, measurement=with_window(record.measurement, requests=slow))),
    )
    # four rounds are spread evenly from -1 % to +1 %; the two that count lie 1/3 % below and 1 % above, or so
    kept = [r.latency_s for r in slow if r.valid]
    assert f" {sum(kept) / 2:.3f} s " in line
    none_valid = [replace(r, valid=False) for r in slow]
    (line,) = said((CACHED, replace(record, measurement=with_window(record.measurement, requests=none_valid))))
    assert "no valid round" in line


def test_a_failed_trial_says_why() -> None:
    (line,) = said((CACHED, failed(CACHED)))
    assert "FAILED out_of_memory: the worker was killed by the kernel" in line


def test_trials_from_the_journal_do_not_count_for_the_eta() -> None:
    eta = Eta(4)
    eta.add(None)
    assert str(eta) == "ETA after the first trial"
    eta.add(10.0)
    assert eta.seconds == pytest.approx(20.0)
    assert str(eta) == "ETA 20 s"


def test_durations_and_events_in_words() -> None:
    assert [duration(s) for s in (45.2, 185, 7800)] == ["45 s", "3 min 05 s", "2 h 10 min"]
    assert describe({"event": "round", "phase": "timed", "index": 1, "latency_s": 0.5}) == "timed round 2, 0.500 s"
    assert describe({"event": "loaded", "load_s": 1.0}) == "loaded, warming up"
    assert describe({"event": "waiting", "text": "waits for its turn on cpu: x"}) == "waits for its turn on cpu: x"


def lines_of(*events: tuple[float, dict[str, object]]) -> list[str]:
    """What is printed of one trial, whose events come at these seconds."""
    out, now = StringIO(), [0.0]
    progress = SweepProgress(Foresight(1, 1), Console(file=out, width=200), clock=lambda: now[0])
    placed = Placed(BASELINE, BASELINE.trial_id, BASELINE.trial_id)
    progress.started(placed)
    for at_s, event in events:
        now[0] = at_s
        progress.event(placed, event)
    return out.getvalue().splitlines()


def warm_up_round(index: int) -> dict[str, object]:
    return {"event": "round", "phase": "warmup", "index": index, "latency_s": 5.0}


def test_a_trial_that_takes_long_says_what_it_does_now_and_then() -> None:
    assert lines_of(*((float(i), warm_up_round(i)) for i in range(101))) == [
        f"none: warmup round {i + 1}, 5.000 s" for i in (15, 45)
    ], "after 15 s without a line, then after 30, then after 60"


def test_what_slows_a_trial_stands_beside_what_it_does_even_within_one_long_call() -> None:
    checking = {"event": "loading", "stage": "checking", "done_bytes": 0, "total_bytes": 10**9}
    slowed = {"event": "slowed", "text": "2 other processes use 1.9 of 2 cores: python (pid 7)"}
    first, *rest = lines_of(
        (0.0, {"event": "loading"}), (6.0, checking), (7.0, {"event": "loaded"}), (12.0, slowed), (17.0, slowed)
    )
    assert "checking weights" in first
    assert rest == ["none: loaded, warming up; 2 other processes use 1.9 of 2 cores: python (pid 7)"]
    over = (50.0, {"event": "slowed", "text": None})
    assert lines_of((12.0, slowed), (20.0, warm_up_round(0)), over)[-1] == "none: warmup round 1, 5.000 s"


def test_for_whom_a_trial_waits_is_said_at_once() -> None:
    waits, come = ({"event": "waiting", "text": text} for text in ("waits for its turn on cpu: x", "its turn has come"))
    assert lines_of((0.0, waits), (0.1, come)) == ["none: waits for its turn on cpu: x", "none: its turn has come"]


def test_on_which_machine_of_a_cluster_a_trial_runs_is_said_with_what_it_does() -> None:
    waits = {"event": "waiting", "text": "waits for a worker with 2 GPUs"}
    runs = {"event": "loaded", "node": "n7"}
    assert lines_of((0.0, waits), (40.0, runs)) == [
        "none: waits for a worker with 2 GPUs",
        "none on n7: loaded, warming up",
    ]
