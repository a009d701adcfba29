"""What trials did under load, one row each; the tables of SGLang's pages, measured and published; rates tried.

A published row never stands in one table with what the sweep measured.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from zbench.analysis.figures import TrialFigures
from zbench.analysis.rates import RateCurve, RatePoint
from zbench.analysis.serving import ServingFigures, serving_figures
from zbench.analysis.view import View
from zbench.hardware.published import PublishedFigure, published_figures
from zbench.measurement import Measurement
from zbench.record import Record
from zbench.report.tables.text_table import LEFT, RIGHT, TextTable
from zbench.report.text import cells
from zbench.report.text.outside import outside_notes
from zbench.report.text.serving import peaks
from zbench.stats import median, median_interval, quantile

PAGE = "b300_page"
"""The workload whose report is the pages' tables."""

LOAD_HEADERS = (
    "trial",
    "requests",
    "requests/s",
    "mean, s",
    "p50, s",
    "p95, s",
    "p99, s",
    "queueing p50 (p95), s",
    "call, s [95 %]",
    "from image to image, s",
    "goodput, requests/s",
)
PAGE_HEADERS = (
    "setting",
    "state",
    "requests",
    "at once",
    "duration, s",
    "throughput, req/s",
    "latency mean, s",
    "median, s",
    "P99, s",
    "peak memory max / mean / median, MB",
    "first image, s",
    "steady, s an image",
)
RATE_HEADERS = ("rate, requests/s", "requests", "p50, s", "p95, s", "goodput, requests/s", "in time", "p95 met")


def load_table(view: View) -> TextTable | None:
    """Every COMPLETE trial that was under load; None where there is none."""
    rows = [(row, load) for row, record in view.pairs if (load := _load(record.valid_measurement)) is not None]
    if not rows:
        return None
    cells_of = tuple(
        (
            cells.label(row),
            f"{load.completed_requests}/{load.requests}",
            cells.digits(load.requests_per_s),
            cells.digits(load.latency_mean_s),
            *(cells.digits(load.latency_s(q)) for q in (0.5, 0.95, 0.99)),
            _queueing(load),
            _call(load),
            _optional(load.steady_s),
            _goodput(load),
        )
        for row, load in rows
    )
    loads = [load for _, load in rows]
    legend = [*_legend(loads), *_of_servers([row for row, _ in rows])]
    return TextTable((), LOAD_HEADERS, (LEFT, *[RIGHT] * (len(LOAD_HEADERS) - 1)), cells_of, tuple(legend))


def page_table(view: View) -> TextTable | None:
    """The trials of `workload=b300_page` with the columns of SGLang's pages; None where there is none."""
    rows = [
        (row, measured, load)
        for row, record in view.pairs
        if record.trial.workload.name == PAGE
        and (measured := record.valid_measurement) is not None
        and (load := serving_figures(measured)) is not None
    ]
    if not rows:
        return None
    ordered = sorted(rows, key=lambda entry: entry[2].requests)
    legend = (
        "Cold: the pipeline had just been launched, and this was its first call. Ready: a server that had answered one "
        "request. Resident: it was there from the trial before. First image: seconds after the start until it was "
        "there. Steady: the median from one image to the next, in the order in which they came.",
    )
    return TextTable(
        (),
        PAGE_HEADERS,
        (LEFT, LEFT, *[RIGHT] * (len(PAGE_HEADERS) - 2)),
        tuple(_page_row(cells.label(row), measured, load) for row, measured, load in ordered),
        legend,
    )


def published_page_table(among: Sequence[PublishedFigure] | None = None) -> TextTable:
    """What SGLang's pages say of the same protocol; of all figures, unless some are given."""
    figures = [figure for figure in published_figures() if figure.serving and (among is None or figure in among)]
    rows = tuple(_published_row(figure, run) for figure in figures for run in figure.serving)
    legend = (
        "Published figures are not this sweep's: other hardware, other software. First image and steady are derived: n "
        "requests sent at once and served one after another are done at t, t+d, …, so the duration is t+(n-1)d and the "
        "mean latency t+(n-1)d/2.",
        *(f"{figure.device}: {figure.where}." for figure in figures),
    )
    return TextTable((), PAGE_HEADERS, (LEFT, LEFT, *[RIGHT] * (len(PAGE_HEADERS) - 2)), rows, legend)


def rate_table(curve: RateCurve) -> TextTable:
    """The rates of one setting, ascending, and what follows from them."""
    rows = tuple(_rate_row(point) for point in curve.points)
    return TextTable((), RATE_HEADERS, (RIGHT,) * len(RATE_HEADERS), rows, tuple(rate_findings(curve)))


def rate_findings(curve: RateCurve) -> list[str]:
    """Which rate is the highest, between which two it lies, and how that compares with one after another."""
    met, unmet = curve.highest_met, curve.lowest_unmet
    aim = f"p95 within {curve.objective_s:g} s, from due to done"
    if met is None:
        lowest = "" if unmet is None else f"; the lowest is {unmet.rate_per_s:g} requests/s"
        said = [f"{curve.setting}: none of the rates that were tried meets {aim}{lowest}."]
    else:
        beyond = "none that misses it was tried" if unmet is None else f"{unmet.rate_per_s:g} misses it"
        said = [f"{curve.setting}: {met.rate_per_s:g} requests/s is the highest rate that meets {aim}; {beyond}."]
    if met is not None and met.load.is_burst:
        load = met.load
        over_s, after_s = (cells.digits(s) for s in (load.last_due_s, load.duration_s - load.last_due_s))
        said.append(
            f"At {met.rate_per_s:g} requests/s its {load.requests} requests were a burst: all were due within "
            f"{over_s} s and {after_s} s more were needed; a rate that lasts may be lower, more workload.requests tell."
        )
    if curve.alone_per_s is not None:
        alone_s = 1 / curve.alone_per_s
        missed = ", which misses it without any load" if alone_s > curve.objective_s else ""
        served = f"One after another {cells.digits(curve.alone_per_s)} requests/s are served"
        said.append(f"{served}, each in {cells.digits(alone_s)} s{missed}.")
    return said


def cold_or_warm(measurement: Measurement) -> str:
    """How a window of load began. A server has answered a first request before it is called ready."""
    arrivals = measurement.window.arrivals
    if arrivals.warmed_up:
        return "warm"
    if measurement.cold.load_s is None:
        return "resident"
    return "cold" if arrivals.at_once == 1 else "ready"


def load_of(record: Record) -> ServingFigures | None:
    """Of a record; None where it was under no load."""
    return _load(record.valid_measurement)


def _load(measured: Measurement | None) -> ServingFigures | None:
    return None if measured is None else serving_figures(measured)


def _legend(loads: Sequence[ServingFigures]) -> list[str]:
    lines = [
        "Mean and percentiles are from sent to done, as SGLang's bench_serving has them. Queueing: from due to begun. "
        "Call: the median of what calls took without the waiting.",
        "Requests that wait for each other are not independent, so percentiles under load have no interval; of few "
        "requests they lie near the largest.",
    ]
    objectives = sorted({load.objective_s for load in loads if load.objective_s is not None})
    if objectives:
        told = " or ".join(f"{objective_s:g} s" for objective_s in objectives)
        lines.append(f"Goodput: requests done within {told} of being due, over the duration.")
    failed: Counter[str] = Counter()
    for load in loads:
        failed.update(dict(load.failures))
    if failed:
        counted = ", ".join(f"{code} {number}" for code, number in failed.items())
        lines.append(f"Failed requests: {counted}. Latencies are those of the others.")
    return lines


def _of_servers(rows: Sequence[TrialFigures]) -> list[str]:
    """How queueing was told from the rest where a server took the requests."""
    if all(row.outside_s is None for row in rows):
        return []
    how = "latency less the server's own time, and less what that leaves out of a request that has the server to itself"
    return [f"Queueing on a server: {how}.", *outside_notes(rows)]


def _call(load: ServingFigures) -> str:
    """Median of the calls themselves, and its interval."""
    if not load.services_s:
        return cells.ABSENT
    text, interval = cells.digits(median(load.services_s)), median_interval(load.services_s)
    decimals = len(text.partition(".")[2])
    return text if interval is None else f"{text} [{interval[0]:.{decimals}f}, {interval[1]:.{decimals}f}]"


def _queueing(load: ServingFigures) -> str:
    if not load.queued_s:
        return cells.ABSENT
    low, high = (max(0.0, quantile(load.queued_s, q)) for q in (0.5, 0.95))
    return f"{low:.3f} ({high:.3f})"


def _goodput(load: ServingFigures) -> str:
    if load.goodput_per_s is None or load.within_objective is None:
        return cells.ABSENT
    return f"{cells.digits(load.goodput_per_s)} ({cells.percent(load.within_objective / load.requests)})"


def _optional(value: float | None) -> str:
    return cells.ABSENT if value is None else cells.digits(value)


def _page_row(label: str, measured: Measurement, load: ServingFigures) -> tuple[str, ...]:
    at_once = measured.window.arrivals.concurrency
    return (
        label,
        cold_or_warm(measured),
        f"{load.completed_requests}/{load.requests}",
        cells.ABSENT if at_once is None else str(at_once),
        f"{load.duration_s:.2f}",
        f"{load.requests_per_s:.2f}",
        f"{load.latency_mean_s:.4f}",
        f"{load.latency_s(0.5):.4f}",
        f"{load.latency_s(0.99):.4f}",
        " / ".join(f"{size:.2f}" for _, size in peaks(load)) if load.peak_memory_mb else cells.ABSENT,
        cells.digits(load.first_done_s),
        _optional(load.steady_s),
    )


def _published_row(figure: PublishedFigure, run: dict[str, Any]) -> tuple[str, ...]:
    prompts, duration_s, mean_s = int(run["prompts"]), float(run["duration_s"]), float(run["latency_mean_s"])
    steady_s = (duration_s - mean_s) / ((prompts - 1) / 2) if prompts > 1 else None
    first_s = duration_s - (prompts - 1) * (steady_s or 0.0)
    memory = run["peak_memory_mb"]
    return (
        f"{figure.device}, {figure.software}",
        "published",
        str(prompts),
        str(run["max_concurrency"]),
        f"{duration_s:.2f}",
        f"{run['throughput_req_s']:.2f}",
        f"{mean_s:.4f}",
        f"{run['latency_median_s']:.4f}",
        f"{run['latency_p99_s']:.4f}",
        " / ".join(f"{memory[name]:.2f}" for name in ("max", "mean", "median")),
        cells.digits(first_s),
        _optional(steady_s),
    )


def _rate_row(point: RatePoint) -> tuple[str, ...]:
    load = point.load
    median_s, p95_s = (load.response_s(q) for q in (0.5, 0.95))
    return (
        f"{point.rate_per_s:g}",
        f"{load.completed_requests}/{load.requests}",
        _optional(median_s),
        _optional(p95_s),
        _optional(load.goodput_per_s),
        cells.percent((load.within_objective or 0) / load.requests),
        "yes" if load.meets_objective else "no",
    )
