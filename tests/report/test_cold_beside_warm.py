"""Load, first request and compiling stand beside the warm latency wherever that is shown."""

import csv
import json
from dataclasses import replace

import pytest
from factories import TINY, complete, projected, trial

from zbench.analysis.view import View, view_of
from zbench.config import ComputeConfig, DBCacheConfig, ServedEngineConfig
from zbench.export import FORMATS
from zbench.measurement import Cold
from zbench.recommend import Limits, recommend
from zbench.record import Record
from zbench.report.page.content import make_page
from zbench.report.page.html import render_html
from zbench.report.page.markdown import render_markdown
from zbench.report.tables.main import render
from zbench.report.text import cells

COMPILED = ComputeConfig(compile=True)
RESIDENT = {"cold.load_s": "resident", "cold.first_latency_s": "resident"}


def paid(record: Record, cold: Cold, **reasons: str) -> Record:
    assert record.measurement is not None
    told = {**record.measurement.reasons, **reasons}
    requests = [replace(r, compile_s=0.0) for r in record.measurement.requests]
    window = replace(record.measurement.window, requests=requests)
    measured = replace(record.measurement, cold=cold, reasons=told, window=window)
    return replace(record, measurement=measured, label=record.trial.label)


def three() -> View:
    """An eager trial that loaded, a cached one on its pipeline, and a compiled one that loaded anew."""
    eager, cached, compiled = trial(), trial(DBCacheConfig()), trial(compute=COMPILED)
    return view_of(
        [
            paid(complete(eager), Cold(load_s=2.14, first_latency_s=0.618, compile_s=0.0)),
            paid(
                complete(cached, latency_s=0.65, cached=(5, 6, 7), ssim=0.97),
                Cold(compile_s=0.0, launched_for=eager.trial_id),
                **RESIDENT,
            ),
            paid(complete(compiled, latency_s=0.7), Cold(load_s=3.3, first_latency_s=38.4, compile_s=36.2)),
        ]
    )


def test_the_table_and_the_page_have_a_column_of_it_and_say_what_it_means() -> None:
    view = three()
    page = make_page(view, {})
    for text in (render(view, "table"), render(view, "markdown"), render_markdown(page, {}), render_html(page)):
        for cell in ("2.1 + 0.62", "resident (2.1 + 0.62)", "3.3 + 38 (36 compiling)", "Cold: seconds to load"):
            assert cell in text
        assert "what the trial paid that it was loaded for" in text


def test_the_csv_and_the_json_have_its_figures() -> None:
    view = three()
    rows = {row["label"]: row for row in csv.DictReader(render(view, "csv").splitlines())}
    assert [rows["none"][key] for key in ("load_s", "first_request_s", "compile_s")] == ["2.14", "0.618", "0.0"]
    cached = rows["F1B0_W4_MC3_R0.24"]
    assert (cached["load_s"], cached["resident_after"]) == ("", "none")
    assert (cached["resident_load_s"], cached["resident_first_request_s"]) == ("2.14", "0.618")
    assert rows["none compiled"]["compile_s"] == "36.2"
    told = {row["label"]: row for row in json.loads(render(view, "json"))["trials"]}
    assert told["none compiled"]["first_request_s"] == 38.4


def test_a_recommendation_and_the_exports_say_it() -> None:
    view = three()
    of_two = view.only({row.key for row in view.trials if row.label != "none compiled"})
    (answer,) = recommend(of_two, Limits()).answers
    assert "cold, s to load + of the first request: resident (2.1 + 0.62), as none paid" in answer.to_text()
    benchmarks = {
        b["name"]: b["extra_info"] for b in json.loads("".join(FORMATS["pytest-benchmark"](view)))["benchmarks"]
    }
    assert benchmarks["none compiled"]["compile_s"] == 36.2 and benchmarks["none"]["load_s"] == 2.14
    measures = json.loads("".join(FORMATS["bencher"](view)))
    assert measures["none compiled"]["compile-s"] == {"value": 36.2}
    assert "compile-s" not in measures["none"] and "cold-load-s" not in measures["F1B0_W4_MC3_R0.24"]
    entries = json.loads("".join(FORMATS["github-action-benchmark"](view)))
    assert any("cold, load + first request: 3.3 + 38 (36 compiling) s" in entry["extra"] for entry in entries)


def test_a_resident_trial_whose_first_trial_is_not_there_says_no_more_than_that() -> None:
    view = view_of([paid(complete(trial()), Cold(launched_for="0123456789ab"), **RESIDENT)])
    (row,) = view.trials
    assert cells.cold(row) == "resident"
    table = render(view, "table")
    assert "Resident: it was loaded before." in table and "in brackets what the trial paid" not in table
    (answer,) = recommend(view, Limits()).answers
    assert "cold, s to load" not in answer.to_text(), "it would say nothing"


def test_nothing_cold_is_said_of_a_projection_nor_of_a_server_that_was_there() -> None:
    server = ServedEngineConfig(name="openai_images", target="zbench.engines.openai_images:X", base_url="http://h:1")
    away = projected(complete(trial()), latency_s=1.0, vram_gib=20)
    for record in (away, complete(trial(engine=server))):
        (row,) = view_of([record]).trials
        assert cells.cold(row) == cells.ABSENT
        assert "cold" not in render(view_of([record]), "table")


def test_a_request_that_compiled_is_a_caveat_with_its_seconds() -> None:
    record = complete(trial(pipeline=TINY))
    assert record.measurement is not None
    requests = [
        replace(r, valid=i > 0, invalid_reasons=[] if i else ["compiled"], compile_s=0.0 if i else 12.5)
        for i, r in enumerate(record.measurement.requests)
    ]
    window = replace(record.measurement.window, requests=requests)
    (row,) = view_of([replace(record, measurement=replace(record.measurement, window=window))]).trials
    assert row.caveats == ("1 of 8 requests compiled code (12.5 s in all): warm-up had no such shapes",)


@pytest.mark.parametrize(
    ("seconds", "told"), [(0.0412, "0.04"), (0.618, "0.62"), (1.0, "1.0"), (2.14, "2.1"), (9.97, "10"), (119.7, "120")]
)
def test_seconds_that_were_seen_once_have_two_digits(seconds: float, told: str) -> None:
    assert cells.two_digits(seconds) == told
