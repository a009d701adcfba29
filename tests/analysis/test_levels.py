"""Two modes of a latency, and a level that shifted, are named wherever that latency is read."""

from collections.abc import Sequence
from dataclasses import replace
from io import StringIO
from xml.etree import ElementTree

import pytest
from factories import SCENES, complete, trial
from rich.console import Console

from zbench.analysis.caveats import two_levels
from zbench.analysis.view import view_of
from zbench.config import DBCacheConfig
from zbench.errors import RecordError
from zbench.export import FORMATS
from zbench.gate.judge import assess
from zbench.gate.limits import parse_limit
from zbench.gate.show import annotations, render
from zbench.measurement import Arrivals
from zbench.recommend import Limits, recommend
from zbench.record import Record
from zbench.report.page.content import make_page
from zbench.report.page.html import render_html
from zbench.report.page.markdown import render_markdown
from zbench.report.tables import main
from zbench.search import Foresight
from zbench.space import Placed
from zbench.sweeper.progress import SweepProgress
from zbench.trial import Trial

ONE = replace(SCENES, prompts=SCENES.prompts[:1], seeds=[0])
TURNS = (0.82, 1.02, 0.825, 1.021, 0.818, 0.823, 1.018, 0.82, 1.02, 0.819)
NAMED = "its latency has two modes, 0.82 s (6 of 10 requests) and 1.02 s (4 of 10)"


def taking(latencies_s: Sequence[float], of: Trial | None = None, **changes: dict[int, object]) -> Record:
    """A record of one prompt whose requests take these seconds; `changes` are fields of requests by index."""
    record = complete(of or trial(workload=ONE), n_rounds=len(latencies_s))
    assert record.measurement is not None
    requests = [
        replace(r, latency_s=s, stages_s={}, prompt_id=record.measurement.requests[0].prompt_id)
        for r, s in zip(record.measurement.requests, latencies_s, strict=True)
    ]
    for name, values in changes.items():
        requests = [replace(r, **{name: values.get(i, getattr(r, name))}) for i, r in enumerate(requests)]
    return replace(
        record, measurement=replace(record.measurement, window=replace(record.measurement.window, requests=requests))
    )


def said_of(record: Record) -> str:
    assert record.measurement is not None
    return str(two_levels(record.measurement))


def test_both_modes_are_named_with_their_shares_wherever_the_latency_is_read() -> None:
    record = taking(TURNS)
    view = view_of([record])
    page = make_page(view, {})
    texts = {form: main.render(view, form) for form in main.FORMS}
    texts |= {name: "".join(FORMATS[name](view)) for name in ("csv", "github-action-benchmark", "pytest-benchmark")}
    texts |= {"page.md": render_markdown(page, {}), "page.html": render_html(page)}
    told = StringIO()
    with SweepProgress(Foresight(1, 1), Console(file=told, width=300)) as progress:
        progress.reused(Placed(record.trial, record.reference_id, record.baseline_id), record, view.trials[0])
    texts["live"] = told.getvalue()
    assert [name for name, text in texts.items() if NAMED not in text.replace("\\", "")] == []


def test_a_trial_of_two_modes_is_not_recommended_and_the_answer_says_why() -> None:
    with pytest.raises(RecordError, match="none of 1 trial is to be trusted") as refused:
        recommend(view_of([taking(TURNS)]), Limits())
    assert NAMED in str(refused.value)


@pytest.mark.parametrize(("new", "base", "side"), [(TURNS, (0.82,) * 10, "new"), ((0.82,) * 10, TURNS, "base")])
def test_a_gate_that_judges_a_latency_says_which_side_has_two_modes(
    new: Sequence[float], base: Sequence[float], side: str
) -> None:
    latency, memory = [parse_limit("latency.median:3%")], [parse_limit("memory.host_peak_rss:3%")]
    assessment = assess([taking(new)], [taking(base)], latency)
    assert [remark for remark in assessment.remarks if f"{side}: {NAMED}" in remark] == list(assessment.remarks) != []
    for form in ("table", "markdown", "json", "junit"):
        assert NAMED in render(assessment, form).replace("\\", ""), form
    assert any(line.startswith("::warning") and NAMED in line for line in annotations(assessment))
    assert ElementTree.fromstring(render(assessment, "junit")).findtext("system-out") == "\n".join(assessment.remarks)
    assert assess([taking(new)], [taking(base)], memory).remarks == ()


def test_a_shift_is_no_pair_of_modes() -> None:
    assert said_of(taking((0.82,) * 5 + (1.02,) * 4)) == (
        "its latency shifted from 0.82 s (the first 5 requests) to 1.02 s (the last 4), and stayed"
    )
    assert "from 56 s (the first 2 requests) to 1.46 s (the last 6)" in said_of(taking((56.0,) * 2 + (1.46,) * 6))


def test_what_parts_the_modes_is_said_where_it_was_recorded() -> None:
    slow = [i for i, s in enumerate(TURNS) if s > 1]
    skipping = taking(TURNS, cached_steps={i: [2, 3] for i in range(10) if i not in slow})
    assert "and 1.02 s (4 of 10), where fewer steps were skipped: a median" in said_of(skipping)
    busy = taking(TURNS, disturbances={i: ["other_load"] for i in slow})
    assert "all of which were disturbed (other load 4)" in said_of(busy)
    assert "disturbed" not in said_of(taking(TURNS, disturbances={i: ["other_load"] for i in range(10)}))


def test_an_invalid_request_is_no_part_of_a_mode() -> None:
    spoilt = taking(TURNS, valid={i: False for i, s in enumerate(TURNS) if s > 1})
    assert said_of(spoilt) == "None"


def test_requests_that_wait_for_one_another_have_no_modes() -> None:
    measured = taking(TURNS).measurement
    assert measured is not None
    loaded = replace(measured, window=replace(measured.window, arrivals=Arrivals("concurrent", 2)))
    assert two_levels(loaded) is None


def test_prompts_of_different_cost_are_no_modes_and_neither_are_wild_requests() -> None:
    cached = complete(trial(DBCacheConfig()), n_rounds=8)
    assert cached.measurement is not None
    pair = {(r.prompt_id, r.seed): i for i, r in enumerate(cached.measurement.requests)}
    requests = [
        replace(r, latency_s=1.0 + pair[r.prompt_id, r.seed] + 0.001 * i)
        for i, r in enumerate(cached.measurement.requests)
    ]
    assert two_levels(replace(cached.measurement, window=replace(cached.measurement.window, requests=requests))) is None
    assert said_of(taking((0.4, 0.41, 20.0, 0.4, 0.402, 0.41, 0.4, 0.405))) == "None"
