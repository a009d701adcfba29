"""Published figures are there whole, beside the profile they belong to, and derive as they say."""

import pytest
from hardware_profiles import NAMES

from zbench.hardware.published import published_figures, published_for
from zbench.report.tables.published import figures_table


def test_every_figure_says_where_it_was_published() -> None:
    figures = published_figures()
    assert len({figure.id for figure in figures}) == len(figures)
    assert all(figure.where and figure.setting and figure.software for figure in figures)
    assert all(figure.image_s is not None or figure.step_s is not None for figure in figures)
    assert {figure.profile for figure in figures} <= {*NAMES, None}


def test_b300s_steady_state_follows_from_its_serving_rows() -> None:
    """Twenty requests at once, one after another: duration = t1 + 19 d, mean = t1 + 9.5 d."""
    (figure,) = published_for("b300")
    row = next(row for row in figure.serving if row["prompts"] == 20)
    derived = (row["duration_s"] - row["latency_mean_s"]) / 9.5
    assert figure.image_s == pytest.approx(derived, abs=0.005)
    assert figure.steps is None, "the page gives no step count"


def test_mi300x_steady_state_follows_in_the_same_way() -> None:
    (figure,) = published_for("mi300x")
    row = next(row for row in figure.serving if row["prompts"] == 20)
    assert figure.image_s == pytest.approx((row["duration_s"] - row["latency_mean_s"]) / 9.5, abs=0.005)


def test_h100_has_limits_of_a_ci_and_measurements_and_they_are_told_apart() -> None:
    kinds = {figure.id: figure.kind for figure in published_for("h100")}
    assert kinds["sglang-ci-h100-x1"] == "ci_threshold"
    assert kinds["zbench-h100-image"] == "measured"


def test_hardware_nobody_published_has_no_figures() -> None:
    assert published_for("rtx4090") == []


def test_figures_of_several_devices_and_of_skipped_steps_say_so() -> None:
    by_id = {figure.id: figure for figure in published_figures()}
    assert by_id["zbench-h200-x2-tp"].count == 2
    assert by_id["zbench-h100-image-skip3"].skipped_steps == 3
    assert by_id["zbench-h100-image-skip3"].step_s is None


def test_a_note_stands_once_below_the_table_and_its_rows_point_to_it() -> None:
    table = figures_table(published_for("h200"))
    (note,) = (line for line in table.legend if line.startswith("["))
    assert note == "[1] Random weights of Z-Image-Turbo's geometry, 64 prompt tokens."
    assert all(row[1].endswith(" [1]") for row in table.rows)
