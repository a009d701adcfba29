"""A reader is told how much of a request a server's own time leaves out."""

import json
from dataclasses import replace

import pytest
from factories import complete, trial, with_window
from loads import at_once, under

from zbench.analysis.serving import serving_figures
from zbench.analysis.view import view_of
from zbench.export.bench_serving import to_bench_serving
from zbench.measurement.lone import LoneRequest
from zbench.record import Record
from zbench.report.tables.main import render
from zbench.report.tables.serving import load_table
from zbench.report.tables.text_table import to_text

LOAD = under(arrivals="concurrent", concurrency=4, requests=4)


def served(lone: list[LoneRequest], *, begun: bool = False) -> Record:
    """Four at once: the k-th is done after 1.31 + k 1.03 s, of which the server says 0.89 s."""
    record = at_once(LOAD, 1.31, 1.03, 4)
    assert record.measurement is not None
    window = record.measurement.window
    requests = [replace(r, begun_s=r.done_s - 0.89 if begun else None, server_s=0.89) for r in window.requests]
    arrivals = replace(window.arrivals, at_once=None)
    return replace(record, measurement=with_window(record.measurement, requests=requests, arrivals=arrivals, lone=lone))


def alone(latency_s: float = 1.31, server_s: float = 0.89) -> list[LoneRequest]:
    return [LoneRequest("en-circle", 0, latency_s, server_s)] * 3


def flat(text: str) -> str:
    return " ".join(text.split())


def test_queueing_is_what_a_lone_request_does_not_need() -> None:
    record = served(alone())
    load = serving_figures(record.measurement)  # type: ignore[arg-type]
    assert load is not None
    assert load.queued_s == pytest.approx((0.0, 1.03, 2.06, 3.09)) and load.services_s == pytest.approx((1.31,) * 4)
    table = load_table(view_of([record]))
    assert table is not None and "Queueing on a server: latency less the server's own time" in flat(to_text(table))


def test_a_lone_request_without_an_image_counts_in_no_figure() -> None:
    spoilt = [replace(one, latency_s=9.0, invalid_reasons=["image_constant"]) for one in alone()]
    record = served([*alone(), *spoilt, *spoilt])
    load = serving_figures(record.measurement)  # type: ignore[arg-type]
    assert load is not None and load.queued_s == pytest.approx((0.0, 1.03, 2.06, 3.09))
    assert view_of([record]).trials[0].outside_s == pytest.approx(0.42)


def test_a_server_whose_clock_does_not_wait_is_named_in_every_table() -> None:
    view = view_of([served(alone())])
    said = (
        "The server's own time (inference_time_s) leaves out 0.420 s of a lone request, 32 % of what its client waits"
    )
    table = load_table(view)
    assert table is not None and said in flat(to_text(table)) and said in flat(render(view, "table"))
    (row,) = json.loads(render(view, "json"))["trials"]
    assert (row["server_s"], row["outside_s"]) == (0.89, pytest.approx(0.42))
    assert "server_s,outside_s" in render(view, "csv").splitlines()[0]
    (exported,) = json.loads(to_bench_serving(view))
    assert exported["zbench"]["outside_s"] == pytest.approx(0.42) and exported["zbench"][
        "queue_p50_s"
    ] == pytest.approx(1.545)


def test_a_clock_that_leaves_little_out_needs_no_words() -> None:
    view = view_of([served(alone(0.95))])
    assert "inference_time_s" not in render(view, "table") and view.trials[0].outside_s == pytest.approx(0.06)


def test_of_a_trial_without_load_each_request_is_a_lone_one() -> None:
    record = complete(trial())
    assert record.measurement is not None
    requests = [replace(r, latency_s=2.0, server_s=1.5) for r in record.measurement.requests]
    view = view_of([replace(record, measurement=with_window(record.measurement, requests=requests))])
    assert "leaves out 0.500 s of a lone request, 25 % of what" in flat(render(view, "table"))
    assert "inference_time_s" not in render(view_of([record]), "table"), "a pipeline of this process has none"


def test_an_older_record_has_no_queueing_rather_than_a_wrong_one() -> None:
    """It says that a request began so long before its end as the server took, which nobody knew."""
    older = Record.from_json(served([], begun=True).to_json())
    assert older.measurement is not None and older.measurement.window.lone == []
    load = serving_figures(older.measurement)
    assert load is not None and (load.queued_s, load.services_s) == ((), ()) and load.latency_mean_s > 1
    (row,) = view_of([older]).trials
    assert (row.queue_p95_s, row.outside_s) == (None, None)
