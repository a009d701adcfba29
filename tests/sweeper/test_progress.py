"""What a sweep says while it runs, read off a console that is no terminal."""

from dataclasses import replace
from io import StringIO

import pytest
from factories import complete, failed, trial, with_window
from rich.console import Console

from zbench.analysis.view import view_of
from zbench.config import DBCacheConfig
from zbench.record import Record
from zbench.space import Placed
from zbench.sweeper.progress import Eta, SweepProgress, describe, duration
from zbench.trial import Trial

BASELINE = trial()
CACHED = trial(DBCacheConfig())


def said(*finished: tuple[Trial, Record]) -> list[str]:
    """One line for each record, as a sweep prints it."""
    out = StringIO()
    progress = SweepProgress(len(finished), Console(file=out, width=200))
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
    assert second.startswith("[2/2] F1B0_W4_MC3_R0.24 0.500 s 2.00x 2.0 steps skipped")
    assert second.endswith("(done)")


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
