"""Figures of a load by numbers worked out by hand, and by numpy where SGLang's bench_serving asks that."""

import numpy as np
import pytest
from factories import complete, trial
from loads import at_once, loaded, under

from zbench.analysis.metrics import REGISTRY
from zbench.analysis.serving import ServingFigures, serving_figures
from zbench.analysis.view import view_of
from zbench.config import DBCacheConfig
from zbench.record import Record

POISSON = under(arrivals="poisson", rate_per_s=1.0, latency_objective_s=2.5)

TIMES = [(0.0, 0.0, 0.0, 1.0), (0.5, 0.5, 1.0, 2.0), (1.0, 1.5, 2.0, 3.0), (1.0, 1.5, 3.0, 4.0)]
"""Latencies 1, 1.5, 1.5, 2.5 from sent; responses 1, 1.5, 2, 3 from due; queued 0, 0.5, 1, 2."""


def figures(record: Record) -> ServingFigures:
    assert record.measurement is not None
    found = serving_figures(record.measurement)
    assert found is not None
    return found


def test_latencies_are_from_sent_and_responses_from_due() -> None:
    load = figures(loaded(POISSON, TIMES))
    assert load.latencies_s == (1.0, 1.5, 1.5, 2.5) and load.responses_s == (1.0, 1.5, 2.0, 3.0)
    assert load.queued_s == (0.0, 0.5, 1.0, 2.0) and load.services_s == (1.0, 1.0, 1.0, 1.0)
    assert (load.duration_s, load.requests_per_s, load.first_done_s, load.steady_s) == (4.0, 1.0, 1.0, 1.0)
    assert load.latency_mean_s == 6.5 / 4


def test_goodput_counts_what_was_done_in_time_of_being_due() -> None:
    load = figures(loaded(POISSON, TIMES))
    assert (load.within_objective, load.goodput_per_s) == (3, 3 / 4)
    assert load.response_s(0.95) == pytest.approx(2.85) and load.meets_objective is False
    assert figures(loaded(under(arrivals="poisson", rate_per_s=1.0, latency_objective_s=2.9), TIMES)).meets_objective


def test_percentiles_are_numpys() -> None:
    rng = np.random.default_rng(3)
    dones = rng.exponential(1.0, 57) + 0.01
    load = figures(loaded(POISSON, [(0.0, 0.0, 0.0, float(done)) for done in dones]))
    for q in (50, 90, 95, 99):
        assert load.latency_s(q / 100) == pytest.approx(np.percentile(dones, q), rel=1e-12)
    assert load.latency_mean_s == pytest.approx(np.mean(dones), rel=1e-12)


def test_a_failed_request_counts_as_one_that_is_never_done() -> None:
    load = figures(loaded(POISSON, TIMES, lost=["timeout", "http_status", "timeout"]))
    assert (load.requests, load.completed_requests, load.failed_requests) == (7, 4, 3)
    assert load.failures == (("timeout", 2), ("http_status", 1))
    assert load.latency_s(0.5) == 1.5, "as SGLang has it, of those that brought an image"
    assert load.response_s(0.5) == 3.0 and load.response_s(0.95) is None and load.meets_objective is False
    (row,) = view_of([loaded(POISSON, TIMES, lost=["timeout"])]).trials
    assert row.failed_requests == 1 and row.caveats == ("1 of 5 requests failed (timeout 1)",)


def test_a_load_that_ends_with_a_failure_lasts_until_then() -> None:
    assert figures(loaded(POISSON, TIMES, lost=["timeout"], wall_s=8.0)).requests_per_s == 0.5


def test_one_after_another_has_no_figures_of_load() -> None:
    record = complete(trial())
    assert record.measurement is not None and serving_figures(record.measurement) is None
    for name in ("response.p95", "queue.p95", "requests.rate", "requests.failed", "goodput"):
        assert REGISTRY[name].read(record.measurement) is None


def test_metrics_are_those_figures() -> None:
    record = loaded(POISSON, TIMES)
    assert record.measurement is not None
    read = {name: REGISTRY[name].read(record.measurement) for name in ("latency.median", "queue.p95", "goodput")}
    assert read == {"latency.median": 1.5, "queue.p95": pytest.approx(1.85), "goodput": 0.75}
    assert REGISTRY["throughput"].read(record.measurement) == 1.0, "images over the whole window"


def test_twenty_at_once_are_told_apart_into_first_and_steady() -> None:
    load = figures(at_once(under(arrivals="concurrent", concurrency=20), 12.28, 0.94, 20))
    assert load.first_done_s == 12.28 and load.steady_s == pytest.approx(0.94)
    assert load.duration_s == pytest.approx(12.28 + 19 * 0.94)
    assert load.latency_mean_s == pytest.approx(12.28 + 9.5 * 0.94)


def test_latencies_under_load_have_no_interval_and_are_over_no_baseline_of_other_arrivals() -> None:
    alone, cached = complete(trial()), trial(DBCacheConfig())
    load = loaded(under(arrivals="concurrent", concurrency=8), [(0.0, 0.0, 0.0, float(k)) for k in range(1, 9)])
    held = Record(**{**vars(load), "reference_id": alone.trial_id, "baseline_id": alone.trial_id})
    row = next(r for r in view_of([alone, held]).trials if r.arrivals == "concurrent")
    assert (row.latency_low_s, row.speedup, row.why_missing("speedup")) == (None, None, "other_arrivals")
    same = under(cached, arrivals="concurrent", concurrency=8)
    quicker = loaded(same, [(0.0, 0.0, 0.0, k / 2) for k in range(1, 9)])
    alike = next(r for r in view_of([load, quicker]).trials if not r.is_reference)
    assert alike.speedup == pytest.approx(2.0) and alike.caveats == (), "who waits less gains more than it skips"
