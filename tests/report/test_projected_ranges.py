"""A projected figure is a range wherever it is shown, and says for which software it stands."""

import json
from dataclasses import replace

import pytest
from factories import TURBO, complete, demo_projection, trial
from hardware_profiles import profile

from zbench.analysis.view import view_of
from zbench.composition import expand
from zbench.config import ComputeConfig, HardwareConfig, SpreadConfig
from zbench.config.hardware import LATER_SHARES
from zbench.hardware.roofline import project
from zbench.recommend import Limits, recommend
from zbench.record import Record
from zbench.report.page.content import make_page
from zbench.report.page.markdown import render_markdown
from zbench.report.plots.figures import label, stage_breakdown
from zbench.report.tables.main import render
from zbench.report.text import cells
from zbench.report.text.stacks import stacks_told
from zbench.trial import Trial, geometry_of

EAGER, COMPILED = ComputeConfig(device="cuda"), ComputeConfig(device="cuda", compile=True)


def onto(hardware: str, *computes: ComputeConfig, skipped: int = 0) -> list[Record]:
    """One record each, as the roofline answers; all held against the first."""
    records = []
    for compute in computes:
        of = trial(pipeline=TURBO, hardware=profile(hardware), compute=compute)
        made = complete(of, cached=tuple(range(8 - skipped, 8)), n_rounds=6)
        projection = project(of, geometry_of(TURBO), made.measurement.requests)
        sources = {"latency": "projected", "memory": "projected", "cached_steps": "proxy", "quality": "proxy"}
        measured = replace(made.measurement, projection=projection, sources=sources)
        records.append(replace(made, source="projected", measurement=measured))
    first = records[0].trial_id
    return [replace(record, reference_id=first, baseline_id=first) for record in records]


def figures(records: list[Record]):
    return view_of(records).trials


def test_latency_memory_and_speed_up_have_a_range_around_the_point():
    eager, compiled = figures(onto("b300", EAGER, COMPILED))
    for row in (eager, compiled):
        assert row.latency_low_s < row.latency_median_s < row.latency_high_s
        assert row.projected_memory_low < row.peak_memory_bytes < row.projected_memory_high
    assert compiled.projected_speedup_low < compiled.speedup < compiled.projected_speedup_high
    assert eager.projected_speedup_low == eager.projected_speedup_high == 1.0, "it is its own baseline"


def test_a_speed_up_is_surer_than_the_two_latencies():
    """What both have in common cancels out."""
    eager, compiled = figures(onto("rtx5090", EAGER, COMPILED))
    apart = (compiled.projected_speedup_high - compiled.projected_speedup_low) / compiled.speedup
    assert apart < (eager.latency_high_s - eager.latency_low_s) / eager.latency_median_s


def test_projections_onto_different_hardware_have_no_range_of_their_speed_up():
    baseline, other = onto("h100", EAGER)[0], onto("b300", EAGER)[0]
    beside = replace(other, baseline_id=baseline.trial_id)
    row = next(row for row in figures([baseline, beside]) if row.trial_id == beside.trial_id)
    assert row.speedup is not None and row.projected_speedup_low is None


def test_the_table_shows_ranges_and_says_what_they_hold_and_whose_software():
    table = render(view_of(onto("b300", EAGER, COMPILED)), "table")
    assert "its brackets hold 9 in 10" in table
    assert table.count("~0.699 [0.5") >= 1 and "GiB [21.3, 26.8]" in table and "× [" in table
    assert "~ on b300 assumes this software: eager: " in table and "compiled: " in table
    assert "published 0.940 s an image of 9 steps" in table and "nearest to eager" in table
    assert "Rounds stop once" not in table


def test_older_records_show_no_range_and_make_none_up():
    rows = figures(demo_projection())
    assert all(row.latency_low_s is None and row.projected_memory_low is None for row in rows)
    assert "its brackets" not in render(view_of(demo_projection()), "table")


def test_ranges_travel_in_the_record_and_records_without_them_are_read():
    (record,) = onto("h200", EAGER)
    back = Record.from_json(record.to_json())
    assert back.measurement == record.measurement
    older = json.loads(record.to_json())
    del older["measurement"]["projection"]["image_parts_s"]
    for each in older["measurement"]["projection"]["rounds"]:
        del each["low_s"], each["high_s"]
    read = Record.from_json(json.dumps(older)).valid_measurement
    assert read.projection.rounds[0].low_s is None and read.projection.image_parts_s == {}


def test_what_is_not_spread_out_keeps_a_trials_id():
    """A profile of an older zbench, or one's own without a spread, is written as it was."""
    plain = HardwareConfig().efficiency
    bare = replace(profile("h100").efficiency, **{name: getattr(plain, name) for name in LATER_SHARES})
    of = trial(pipeline=TURBO, hardware=replace(profile("h100"), efficiency=bare), compute=EAGER)
    written = of.to_dict()["hardware"]["efficiency"]
    assert not {"spread", "token_s", "swap_s", "text_gap_s", "fp8_gemm"} & written.keys() and "gemm" in written
    assert Trial.from_dict(of.to_dict()).trial_id == of.trial_id


def test_a_spread_that_says_nothing_of_fp8_is_written_as_it_was():
    spread = replace(profile("h100").efficiency.spread, fp8=SpreadConfig().fp8)
    wide = replace(profile("h100"), efficiency=replace(profile("h100").efficiency, spread=spread))
    of = trial(pipeline=TURBO, hardware=wide, compute=EAGER)
    written = of.to_dict()["hardware"]["efficiency"]["spread"]
    assert "fp8" not in written and "gemm" in written
    assert Trial.from_dict(of.to_dict()).trial_id == of.trial_id


def test_a_recommendation_says_when_the_ranges_of_the_first_two_overlap():
    records = onto("rtx4090", EAGER, replace(COMPILED, graphs="all"), COMPILED)
    (chosen,) = recommend(view_of(records), Limits(), allow_proxy=True).answers
    text = chosen.to_text()
    assert "90 % ranges of the first two overlap" in text
    assert "s [90 %]: ~" in text and "] s an image" in text


def test_a_recommendation_whose_ranges_are_apart_says_nothing_of_it():
    records = onto("h100", EAGER, COMPILED)
    (chosen,) = recommend(view_of(records), Limits(), allow_proxy=True).answers
    assert "overlap" not in chosen.to_text()


def test_the_bar_of_a_projection_has_its_range():
    records = onto("b300", EAGER)
    (row,) = figures(records)
    figure = stage_breakdown({label(row): {"denoise": row.latency_median_s}}, [row])
    assert figure is not None
    ends = [list(line.get_xdata()) for line in figure.axes[0].lines]
    assert [row.latency_low_s, row.latency_high_s] in ends


@pytest.mark.parametrize("hardware", ["b300", "mi300x"])
def test_what_other_software_reached_is_said_beside_the_stacks(hardware: str):
    lines = stacks_told([trial(pipeline=TURBO, hardware=profile(hardware), compute=EAGER)])
    assert lines[0].startswith(f"~ on {hardware} assumes this software: eager")
    assert any("sglang" in line and "nearest to" in line for line in lines[1:])


def test_a_measured_trial_stands_for_itself():
    assert stacks_told([trial(pipeline=TURBO, compute=EAGER)]) == []


def test_a_profile_of_ones_own_may_widen_a_spread():
    words = ["pipeline=zimage_turbo", "hardware=b300", "execution=project", "hardware.efficiency.spread.gemm=1"]
    (job,) = expand(words, lambda group, _: group, grids=False).jobs
    assert job.config.hardware.efficiency.spread.gemm == 1.0


def test_ends_of_memory_are_in_the_unit_of_the_point():
    assert cells.gib_range(949 * 2**20, 847 * 2**20, 1063 * 2**20) == "949 MiB [847, 1063]"
    assert cells.gib_range(24 * 2**30, 21.5 * 2**30, 27 * 2**30) == "24.0 GiB [21.5, 27.0]"
    assert cells.gib_range(2**30, None, None) == "1.0 GiB"


def test_a_table_of_projections_alone_calls_no_range_a_95_percent_interval():
    table = render(view_of(onto("b300", EAGER, COMPILED)), "table")
    assert "latency, s [90 %]" in table and "projected rounds with its 90 % range" in table and "95 %" not in table


def test_a_pipeline_that_was_resident_for_the_proxy_is_none_of_the_projections():
    records = [
        replace(r, measurement=replace(r.measurement, reasons={**r.measurement.reasons, "cold.load_s": "resident"}))
        for r in onto("b300", EAGER, COMPILED)
    ]
    text = render(view_of(records), "table")
    assert "cold" not in text and "resident" not in text.lower()


def test_a_limit_of_a_ci_is_not_called_what_the_software_reaches():
    lines = stacks_told([trial(pipeline=TURBO, hardware=profile("h100"), compute=EAGER)])
    assert any("CI allows 0.906 s" in line and "that limit is nearest to fast" in line for line in lines)
    assert not any("reaches" in line for line in lines)


def test_a_page_says_once_for_which_software_a_projection_stands():
    text = render_markdown(make_page(view_of(onto("b300", EAGER)), {}), {})
    assert text.count("assumes this software") == 1 and text.count("nearest to eager") == 1
