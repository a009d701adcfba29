"""The printed block is SGLang's, label for label, column for column; what pages publish stands beside, not among."""

import json

from factories import TURBO, complete, trial
from golden_files import assert_golden
from loads import at_once, loaded, under

from zbench.analysis.rates import rate_curves
from zbench.analysis.view import view_of
from zbench.errors import ZbenchError
from zbench.export import FORMATS
from zbench.record import Record
from zbench.report.page.content import make_page
from zbench.report.page.html import render_html
from zbench.report.page.markdown import render_markdown
from zbench.report.page.serving import in_terminal, serving_section
from zbench.report.tables.serving import load_of, load_table, page_table, published_page_table, rate_findings
from zbench.report.text.serving import bench_serving_block, page_block

TURBO_TRIAL = trial(pipeline=TURBO)
PAGE = under(TURBO_TRIAL, name="b300_page", arrivals="concurrent", concurrency=20, warm_up=False)
PEAKS = [16984.45] * 10 + [16984.51] * 10


def twenty() -> Record:
    return at_once(PAGE, 12.28, 0.94, 20, peaks_mb=PEAKS)


def test_the_block_is_that_of_bench_serving() -> None:
    """The golden block is what sglang 0.5.23's own code prints of these requests, its padding included."""
    record = twenty()
    load = load_of(record)
    assert load is not None
    assert_golden("bench_serving_block.txt", bench_serving_block(record, load) + "\n")
    assert_golden("bench_serving_page_block.txt", page_block(record, load) + "\n")


def test_a_rate_and_no_bound_are_said_as_bench_serving_says_them() -> None:
    record = loaded(under(arrivals="poisson", rate_per_s=2.0), [(0.0, 0.0, 0.0, 1.0)] * 1500, lost=["timeout"])
    load = load_of(record)
    assert load is not None
    lines = bench_serving_block(record, load).splitlines()
    told = {line[:45].strip(): line[46:].strip() for line in lines}
    assert told["Request rate:"] == "2.0" and told["Max request concurrency:"] == "not set"
    assert told["Successful requests:"] == "1500/1501" and "Peak Memory Max (MB):" not in told
    assert told["Completed outputs:"].split() == ["1.50", "K"], "its print_value_formatted shortens whole numbers"


def test_the_page_tells_cold_and_steady_apart_and_published_rows_stand_in_a_table_of_their_own() -> None:
    one = under(TURBO_TRIAL, name="b300_page", arrivals="concurrent", concurrency=1, warm_up=False)
    view = view_of([twenty(), at_once(one, 13.59, 0.94, 1, load_s=40.0)])
    table = page_table(view)
    assert table is not None
    assert [row[1] for row in table.rows] == ["cold", "resident"]
    assert table.rows[0][2:6] == ("1/1", "1", "13.59", "0.07") and table.rows[0][-2:] == ("13.59", "–")
    assert table.rows[1][-2:] == ("12.28", "0.940")
    published = published_page_table()
    assert published.headers == table.headers and all(row[1] == "published" for row in published.rows)
    # duration 30.15 = t + 19 d and mean 21.2048 = t + 9.5 d
    assert published.rows[1][0].startswith("NVIDIA B300") and published.rows[1][-2:] == ("12.26", "0.942")


def test_the_json_has_the_fields_of_bench_serving() -> None:
    (made,) = json.loads(FORMATS["bench-serving"](view_of([twenty()])))
    ours = made.pop("zbench")
    assert list(made) == [
        "duration",
        "completed_requests",
        "completed_outputs",
        "failed_requests",
        "throughput_qps",
        "output_throughput_ops",
        "latency_mean",
        "latency_median",
        "latency_p50",
        "latency_p90",
        "latency_p95",
        "latency_p99",
        "num_outputs_per_prompt",
        "peak_memory_mb_max",
        "peak_memory_mb_mean",
        "peak_memory_mb_median",
    ]
    assert made["completed_requests"] == 20 and abs(made["latency_p99"] - 29.9614) < 1e-9
    assert ours["first_done_s"] == 12.28 and ours["goodput_per_s"] is None and ours["failures"] == {}


def test_a_run_without_load_has_none_of_it() -> None:
    view = view_of([complete(trial())])
    assert load_table(view) is None and serving_section(view) is None and in_terminal(view, "table") == ""
    try:
        FORMATS["bench-serving"](view)
    except ZbenchError as error:
        assert "no trial was measured under load" in str(error)
    else:
        raise AssertionError("an empty file would look like success")


def rates(*dones_s: float) -> list[Record]:
    """One request at each of the rates 1, 2, 4, done so many seconds after it was due; and one after another."""
    tried = [under(arrivals="poisson", rate_per_s=float(2**k), latency_objective_s=2.0) for k in range(len(dones_s))]
    return [complete(trial()), *(loaded(t, [(0.0, 0.0, 0.0, s)] * 3) for t, s in zip(tried, dones_s, strict=True))]


def test_the_highest_rate_that_meets_the_objective_is_named_with_the_curve() -> None:
    view = view_of(rates(1.0, 1.9, 2.5))
    (curve,) = rate_curves(view)
    assert [point.rate_per_s for point in curve.points] == [1.0, 2.0, 4.0]
    assert curve.highest_met is not None and curve.highest_met.rate_per_s == 2.0
    section = serving_section(view)
    assert section is not None
    title, table = section.tables[-1]
    assert title == "Rates: none" and [row[-1] for row in table.rows] == ["yes", "yes", "no"]
    said = "none: 2 requests/s is the highest rate that meets p95 within 2 s, from due to done; 4 misses it."
    assert table.legend[0] == said and table.legend[2].startswith("One after another 1")


def rate_that_is_met(*times: tuple[float, float, float, float]) -> list[str]:
    of = under(arrivals="poisson", rate_per_s=1.0, latency_objective_s=2.0)
    (curve,) = rate_curves(view_of([loaded(of, times)]))
    return rate_findings(curve)


def test_a_burst_is_not_told_as_a_rate_that_lasts() -> None:
    """Three due at once are over 1.5 s later. Four a second apart are over 0.9 s after the last was due, of 3.9 s."""
    burst = rate_that_is_met(*[(0.0, 0.0, k * 0.5, (k + 1) * 0.5) for k in range(3)])
    assert "its 3 requests were a burst: all were due within 0" in burst[1] and "1.500 s more were needed" in burst[1]
    steady = rate_that_is_met(*[(k, k, k, k + 0.9) for k in (0.0, 1.0, 2.0, 3.0)])
    assert len(steady) == 1


def test_a_rate_above_one_that_missed_is_not_called_the_highest() -> None:
    (curve,) = rate_curves(view_of(rates(1.0, 2.5, 1.9)))
    assert curve.highest_met is not None and curve.highest_met.rate_per_s == 1.0


def test_no_rate_is_claimed_where_none_meets_the_objective() -> None:
    (curve,) = rate_curves(view_of(rates(2.1)))
    assert curve.highest_met is None and curve.lowest_unmet is not None


def test_the_report_has_tables_curve_and_block_and_escapes_what_users_say() -> None:
    hostile = under(arrivals="concurrent", concurrency=1, name="<script>`x`")
    page = make_page(view_of([*rates(1.0, 2.5), at_once(hostile, 1.0, 1.0, 1)]), {})
    assert any(plot.file_name == "rates.png" for plot in page.plots)
    html, markdown = render_html(page), render_markdown(page, {})
    assert "<h2>Load</h2>" in html and "&lt;script&gt;" in html and "<script>" not in html
    assert "## Load" in markdown and "Serving Benchmark Result" in markdown and "<script>`" not in markdown
