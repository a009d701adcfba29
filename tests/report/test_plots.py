"""The plots exist, show every trial, and no name covers another."""

from dataclasses import replace

import matplotlib
import pytest
from factories import TURBO, complete, demo_projection, demo_records, projected, trial, with_window
from hardware_profiles import profile
from matplotlib.text import Text

from zbench.analysis.stages import stage_seconds
from zbench.analysis.steps import skip_shares
from zbench.analysis.view import view_of
from zbench.config import CustomCacheConfig, DBCacheConfig, OffloadConfig
from zbench.hardware.roofline import project
from zbench.report.page.content import make_page
from zbench.report.plots.canvas import new_figure, plain, png_bytes
from zbench.report.plots.figures import MOST_ROWS, cached_step_map, speedup_vs_fidelity, stage_breakdown
from zbench.report.plots.point_names import write_names
from zbench.report.plots.residuals import ResidualLine, residual_differences
from zbench.trial import geometry_of

PNG = b"\x89PNG\r\n\x1a\n"


def scatter(points, front=()):
    """A plot of points (name, x, y) in [0, 1], and their names as text to its box in pixels."""
    figure, axes = new_figure(8.4, 5.4)
    axes.scatter([x for _, x, _ in points], [y for _, _, y in points], s=62)
    axes.set_xlim(-0.1, 1.1)
    axes.set_ylim(-0.1, 1.1)
    write_names(figure, axes, points, front)
    return figure, {text.get_text(): text.get_window_extent() for text in axes.texts}


CROWD = [(f"F{i}B0_W4_MC3_R0.24", 0.1 * (i % 6) + 0.02 * i, 0.12 * (i // 6) + 0.03 * i) for i in range(18)]


@pytest.mark.parametrize("records", [demo_records(), demo_projection()])
def test_no_name_of_the_scatter_covers_another_or_a_point(records):
    figure = speedup_vs_fidelity(view_of(records).trials)
    (axes,) = figure.axes
    names = [text for text in axes.texts if "_" in text.get_text() or "none" in text.get_text()]
    check(axes, [name.get_window_extent() for name in names])
    assert len(names) == 13


def test_no_name_in_a_crowd_covers_another_or_a_point():
    figure, boxes = scatter(CROWD, front=[0, 1, 2])
    check(figure.axes[0], list(boxes.values()))
    assert len(boxes) >= 12 and {CROWD[i][0] for i in (0, 1, 2)} <= set(boxes)


def check(axes, boxes):
    points = [axes.transData.transform(point) for marks in axes.collections for point in marks.get_offsets()]
    area = axes.get_window_extent()
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[i + 1 :])
        assert not any(box.contains(*point) for point in points)
        assert box.x0 >= area.x0 and box.y0 >= area.y0 and box.y1 <= area.y1, "a name covers an axis"
        assert box.x1 <= area.x1 + 0.25 * area.width


def test_a_name_without_room_is_left_out_and_those_of_the_front_are_kept():
    _, boxes = scatter([*CROWD, ("a name that is longer than its plot is wide " * 4, 0.5, 0.5)])
    assert not any(name.startswith("a name that") for name in boxes)
    heap = [(f"F{i}B0_W4_MC3_R0.24", 0.5 + 0.01 * (i % 6), 0.5 + 0.01 * (i // 6)) for i in range(36)]
    _, boxes = scatter(heap, front=[9])
    assert heap[9][0] in boxes and len(boxes) < len(heap)


def test_lines_to_names_leave_the_limits_of_the_axes():
    figure, _ = scatter(CROWD)
    assert figure.axes[0].lines and figure.axes[0].get_xlim() == (-0.1, 1.1)


def test_the_scatter_has_the_same_bytes_every_time():
    first, second = (png_bytes(speedup_vs_fidelity(view_of(demo_records()).trials)) for _ in range(2))
    assert first == second


def test_every_trial_of_the_scatter_is_named_or_shares_a_name():
    figure = speedup_vs_fidelity(view_of(demo_records()).trials)
    names = [text.get_text() for text in figure.axes[0].texts]
    for label in ("SCM_ultra_F1B0_W0_MC-1_R0.24", "F1B0_W2_MC3_R0.4", "none (+1 alike)"):
        assert label in names
    assert png_bytes(figure).startswith(PNG)


def test_methods_from_outside_are_drawn_under_their_names():
    mine = [CustomCacheConfig(method=name, target="a:B") for name in ("mine", "yours")]
    records = [*demo_records(), *(complete(trial(cache), latency_s=0.7, cached=(3, 5), ssim=0.9) for cache in mine)]
    axes = speedup_vs_fidelity(view_of(records).trials).axes[0]
    drawn = {points.get_label(): points for points in axes.collections}
    assert {"mine", "yours"} <= set(drawn)
    assert all(len(drawn[name].get_offsets()) == 1 for name in ("mine", "yours"))


def test_the_front_drawn_is_the_front_of_the_figures():
    figure = speedup_vs_fidelity(view_of(demo_records()).trials)
    line = next(line for line in figure.axes[0].lines if line.get_label() == "Pareto front")
    # W4_R0.4 (1.40×, 0.944) and SCM medium (1.39×, 0.949) are beaten by W2_R0.24 (1.41×, 0.952), W4_R0.12 by
    # the baseline.
    assert len(line.get_xdata()) == 14 - 3


def test_without_a_second_in_any_stage_there_is_no_breakdown():
    assert stage_breakdown({"none": {"text_encode": 0.0, "denoise": 0.0, "decode": 0.0}}, []) is None
    assert stage_breakdown({}, []) is None


def test_a_distrusted_trial_is_never_on_the_front():
    # 10x without a skipped step has another cause; it would dominate all.
    unlikely = complete(trial(DBCacheConfig(Fn_compute_blocks=3)), latency_s=0.1, ssim=0.999)
    figure = speedup_vs_fidelity(view_of([*demo_records(), unlikely]).trials)
    line = next(line for line in figure.axes[0].lines if line.get_label() == "Pareto front")
    assert len(line.get_xdata()) == 14 - 3
    assert max(line.get_ydata()) < 3


def test_with_nothing_to_trust_there_is_no_front():
    records = [complete(t, ssim=0.9, validity=["throttled"]) for t in (trial(), trial(DBCacheConfig()))]
    figure = speedup_vs_fidelity(view_of(records).trials)
    line = next(line for line in figure.axes[0].lines if line.get_label() == "Pareto front")
    assert len(line.get_xdata()) == 0 and png_bytes(figure).startswith(PNG)


def test_plots_of_a_projection_say_so():
    rows = view_of(demo_projection()).trials
    for figure in (speedup_vs_fidelity(rows), cached_step_map({"a": [0.0, 1.0]}, rows)):
        assert any("not validated" in text.get_text() for text in figure.axes[0].texts)


def test_without_figures_there_is_no_plot():
    rows = view_of([complete(trial(), quality=None)]).trials
    assert speedup_vs_fidelity(rows) is None
    assert stage_breakdown({}, rows) is None
    assert cached_step_map({"none": []}, rows) is None


def test_a_long_sweep_is_cut_and_says_so():
    figure = stage_breakdown({f"trial {i}": {"denoise": 1.0} for i in range(100)}, [])
    assert len(figure.axes[0].get_yticklabels()) == MOST_ROWS
    assert any(f"the first {MOST_ROWS} of 100" in text.get_text() for text in figure.axes[0].texts)


def test_stages_add_up_to_the_latency():
    record = complete(trial(), latency_s=2.0, spread=0.0)
    assert sum(stage_seconds(record.measurement).values()) == pytest.approx(2.0)
    rounds = [replace(r, stages_s={"denoise": 1.5}) for r in record.measurement.requests]
    assert stage_seconds(with_window(record.measurement, requests=rounds)) == {
        "denoise": 1.5,
        "other": pytest.approx(0.5),
    }


@pytest.mark.parametrize("hardware", ["b300", "rtx4090"])
def test_the_bar_of_a_projection_ends_at_its_latency(hardware):
    """As the roofline makes it, with every stage it knows of."""
    of = trial(pipeline=TURBO, hardware=profile(hardware), offload=OffloadConfig(mode="all"))
    record = projected(complete(trial(), n_rounds=2), latency_s=1.0, vram_gib=1)
    projection = project(of, geometry_of(TURBO), record.measurement.requests)
    measurement = replace(record.measurement, projection=projection)
    figure = stage_breakdown({"a": stage_seconds(measurement)}, [])
    drawn_s = sum(bar.get_width() for bar in figure.axes[0].patches)
    assert projection.stages_s["overhead"] > 0 and projection.stages_s["offload_transfer"] > 0
    assert drawn_s == pytest.approx(projection.rounds[0].latency_s, rel=0.005)  # less than that is not drawn


def test_long_labels_leave_room_for_the_axes(recwarn):
    labels = [f"none pipeline.weights=/a/long/folder/{'of/somebody/' * 8}{i}" for i in range(3)]
    rows = view_of(demo_records()).trials
    stages = stage_breakdown({label: {"denoise": 1.0} for label in labels}, rows)
    steps = cached_step_map({label: [0.0] * 8 for label in labels}, rows)
    for figure in (stages, steps):
        assert png_bytes(figure).startswith(PNG)
        assert figure.axes[0].get_window_extent().width > 300
    assert not recwarn.list


def test_projected_denoising_is_what_the_other_stages_leave():
    record = projected(complete(trial(), n_rounds=2), latency_s=1.0, vram_gib=1)
    stages = stage_seconds(record.measurement)
    assert stages["denoise"] == pytest.approx(1.005 - 0.03 - 0.1 - 0.06)
    assert stages["other"] == pytest.approx(0.06)
    assert "offload_transfer" not in stages


def test_shares_count_images_not_rounds():
    record = complete(trial(DBCacheConfig()), n_rounds=3)  # en-circle twice, zh-square once
    rounds = [replace(r, cached_steps=[5] if r.prompt_id == "en-circle" else []) for r in record.measurement.requests]
    assert skip_shares(with_window(record.measurement, requests=rounds), 8) == [0, 0, 0, 0, 0, 0.5, 0, 0]


HOSTILE = {
    "math": "$x",
    "broken math": r"a $\frac{1$ b",
    "underscore": "_hidden",
    "lines": "two\nlines\r\tand a tab",
    "control": "NUL \0 and ESC \x1b[31m",
    "surrogate": "half \ud800 of one",
    "bidi": "a \u202e b",
    "Chinese": "红色的圆",
    "empty": "",
    "long": "x" * 20_000,
    "markup": "{a} ^2 \\ % # & ~",
}


@pytest.mark.parametrize("label", HOSTILE.values(), ids=HOSTILE)
def test_a_label_is_drawn_as_plain_text_whatever_it_holds(label, recwarn):
    row = replace(view_of(demo_records()).trials[2], label=label)
    rows = [*view_of(demo_records()).trials[:2], row]
    figures = [
        stage_breakdown({"none": {"denoise": 1.0}, label: {"denoise": 0.5}}, rows),
        cached_step_map({"none": [0.0] * 8, label: [1.0] * 8}, rows),
        speedup_vs_fidelity([*rows[:2], replace(row, family=label)]),
        residual_differences([ResidualLine(label, 0.24, {4: [0.1, 0.2]})], rows),
    ]
    for figure in figures:
        assert png_bytes(figure).startswith(PNG)
        for text in figure.findobj(Text):
            assert not text.get_parse_math() and len(text.get_text()) <= 300
    assert not recwarn.list
    legends = [text.get_text().strip() for figure in figures[2:] for text in figure.legends[0].get_texts()]
    assert legends.count(plain(label).strip()) == 2, "none is left out of a legend"


def test_a_label_without_anything_odd_is_drawn_as_it_is():
    for text in ("F1B0_W4_MC3_R0.24", "none cap:16GiB", "$5", "红色的圆 é"):
        assert plain(text) == text


def test_a_user_s_own_matplotlib_settings_do_not_spoil_a_plot():
    with matplotlib.rc_context({"text.usetex": True, "axes.unicode_minus": False}):
        assert png_bytes(stage_breakdown({"$": {"denoise": 1.0}}, [])).startswith(PNG)


def test_a_plot_that_cannot_be_drawn_is_said_on_the_page_and_ends_nothing(monkeypatch):
    def broken(*_):
        raise ValueError("no\nsuch font")

    monkeypatch.setattr("zbench.report.page.content.plots.stage_breakdown", broken)
    page = make_page(view_of(demo_records()), {})
    assert "Where the time goes: it could not be drawn (ValueError: no such font)." in page.missing_plots
    assert "stages.png" not in {plot.file_name for plot in page.plots} and len(page.plots) == 3
