"""The report's section on several devices: what it says in words, what its tables show, and when it is not there."""

from dataclasses import replace

import pytest
from factories import demo_records, projected, pruned
from several_devices import ONE, TWO, data_parallel, on, one_device, timed, two_devices

from zbench.analysis.sharded import same_devices, sharded_trials
from zbench.analysis.view import view_of
from zbench.config import ParallelConfig
from zbench.report.page.content import make_page
from zbench.report.page.html import render_html
from zbench.report.page.markdown import render_markdown
from zbench.report.text.scaling import scaling_sentences

U2, TP2, DP2 = ParallelConfig(ulysses_size=2), ParallelConfig(tp_size=2), ParallelConfig(dp_size=2)


def page(*records):
    return make_page(view_of(records), {})


def said(*records):
    return " ".join(scaling_sentences(same_devices(sharded_trials(view_of(records)))))


def cell(table, label, header):
    (row,) = (row for row in table.rows if row[0].startswith(label))
    return row[table.headers.index(header)]


def test_no_section_without_several_devices():
    assert page(*demo_records()).parallel is None


def test_the_best_topology_what_stops_it_and_images_side_by_side_in_words():
    text = said(one_device(), two_devices(), two_devices(TP2, 0.65), data_parallel())
    assert "Of 2 devices none u2 makes one image fastest: 0.600 s against 1.000 s on one device, 1.67×" in text
    assert "(efficiency 83 %)" in text
    assert "200.0 ms of one device's request do not scale (text encode 50.00 ms, decode 100.0 ms and the rest" in text
    assert "2 devices give at most 1.67×, and any number 5.00×" in text
    assert "50.00 ms instead of 100.0 ms, 2.00×; 6.0 % of it is exposed communication" in text
    assert "For images/s none dp2 is best: 1.961 images/s, where none u2 makes 1.667 images/s." in text


def test_what_was_not_measured_is_called_a_projection():
    text = said(one_device(), two_devices())
    known = "a projection (2 times one device's; data parallelism was not measured)"
    assert f"one image a device is best: 2.000 images/s, {known}" in text


def test_data_parallelism_that_was_measured_and_is_not_trusted_is_not_called_unmeasured():
    straggling = timed(on(DP2), 1.02, {"denoise": 0.8}, ranks=(1.02, 0.6), images=2)
    text = said(one_device(), straggling)
    known = "a projection (2 times one device's; data parallelism has no trusted measurement)"
    assert text == f"On 2 devices one image a device makes 2.000 images/s, {known}."


def test_nothing_is_projected_from_what_is_not_to_be_trusted_where_nothing_was_sharded_in_trust():
    one = one_device()
    unsettled = replace(one, measurement=replace(one.measurement, validity=["latencies had not settled"]))
    straggling = timed(on(DP2), 1.02, {"denoise": 0.8}, ranks=(1.02, 0.6), images=2)
    assert said(unsettled, straggling) == ""
    assert "images/s" in said(unsettled, two_devices())


def test_sharding_that_does_not_pay_is_called_that():
    slow = timed(on(U2), 1.2, {"text_encode": 0.05, "denoise": 1.0, "decode": 0.1})
    text = said(one_device(), slow)
    assert "No topology of 2 devices makes an image faster than one device does: the best is none u2, 1.200 s" in text


def test_what_is_not_to_be_trusted_is_never_the_best():
    straggling = two_devices(U2, 0.5, ranks=(0.5, 0.3), peaks_gib=(), exposed=())
    assert "Of 2 devices none tp2" in said(one_device(), straggling, two_devices(TP2, 0.65))


def test_tables_show_topologies_stages_and_ranks():
    section = page(one_device(), two_devices(), data_parallel()).parallel
    topologies, (_, stages), (_, ranks) = section.topologies, *section.tables
    assert [row[0] for row in topologies.rows] == ["none (reference, baseline)", "none u2", "none dp2"]
    shown = {header: cell(topologies, "none u2", header) for header in topologies.headers}
    assert shown == {
        "trial": "none u2",
        "devices": "2",
        "request, s": "0.600",
        "speed-up": "1.67×",
        "efficiency": "83 %",
        "forward, ms": "50.00",
        "its speed-up": "2.00×",
        "decode, ms": "100.0",
        "exposed communication": "6.0 %",
        "memory a rank": "14.0 GiB",
        "images/s": "1.667",
    }
    assert cell(topologies, "none dp2", "efficiency") == "98 %"
    assert cell(stages, "none u2", "denoise") == "2.00× (100 %)"
    assert cell(stages, "none u2", "bound (any number)") == "1.67× (5.00×)"
    assert [row[1:4] for row in ranks.rows[:2]] == [("0", "cuda:0", "0.600"), ("1", "cuda:1", "0.590")]
    assert ranks.rows[1][-2:] == ("4.0 %", "13.5 GiB (device)")


def test_why_there_is_no_speed_up_stands_below_the_table():
    section = page(two_devices()).parallel
    assert cell(section.topologies, "none u2", "speed-up") == "–"
    assert "No speed-up of none u2: its setting on one device was not measured." in section.topologies.legend
    assert section.stages is None


def test_a_projection_is_marked():
    records = [
        projected(one_device(), latency_s=1.0, vram_gib=20.0),
        projected(two_devices(), latency_s=0.6, vram_gib=9),
    ]
    section = page(*records).parallel
    assert cell(section.topologies, "none u2", "speed-up") == "~1.67×"


def test_markdown_and_html_show_the_same_section():
    records = [one_device(), two_devices(), *(pruned(on(ParallelConfig(tp_size=n)), "no 30 heads") for n in (7, 8))]
    made = page(*records)
    markdown, html = render_markdown(made, {}), render_html(made)
    for text in ("Parallel", "Ranks", "Topologies that do not run", "tp7 and tp8: no 30 heads", "13.5 GiB"):
        assert text in markdown and text in html
    assert markdown.index("## Parallel") < markdown.index("## Quality")


@pytest.mark.parametrize("number", [2, 8])
def test_a_page_of_many_topologies_says_so_of_each_number(number):
    records = [one_device(), timed(on(ParallelConfig(gather_size=number)), 0.6, TWO)]
    records += [timed(on(ParallelConfig(dp_size=number)), 1.0, ONE, images=number)]
    assert f"Of {number} devices none g{number} makes one image fastest" in said(*records)


def test_the_plot_is_there_where_something_is_compared():
    names = [plot.file_name for plot in page(one_device(), two_devices(), data_parallel()).plots]
    assert "speedup_over_devices.png" in names
    alone = page(two_devices())
    assert "speedup_over_devices.png" not in [plot.file_name for plot in alone.plots]
    assert any("Speed-up over devices" in text for text in alone.missing_plots)
    assert not any("Speed-up over devices" in text for text in page(*demo_records()).missing_plots)
