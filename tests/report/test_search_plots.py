"""The plots of searches: what they draw, and where they say how it is measured."""

from dataclasses import replace

import pytest
from factories import demo_records
from matplotlib.figure import Figure
from of_searches import BASE, judged, timed

from zbench.analysis.searches import SearchCurve, judged_works
from zbench.analysis.view import view_of
from zbench.report.page.content import make_page
from zbench.report.plots.canvas import png_bytes
from zbench.report.plots.searches import MOST, likeness_over_cost, volume_over_trials

MASKS = [BASE, judged("11110000", 0.6), judged("11101000", 0.5), judged("11111100", 0.9)]


def texts(figure: Figure | None) -> str:
    """All that is written in it."""
    assert figure is not None and png_bytes(figure)
    legend = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    (axes,) = figure.axes
    return "\n".join([axes.get_title(loc="left"), *(t.get_text() for t in axes.texts), *legend])


def test_the_front_is_filled_and_joined_for_the_worst_image_and_for_the_mean() -> None:
    figure = likeness_over_cost(judged_works(view_of(MASKS)))
    assert figure is not None
    (axes,) = figure.axes
    worst, mean = axes.lines[:2]
    assert list(zip(worst.get_xdata(), worst.get_ydata(), strict=True)) == [(8, 1), (6, 0.9), (4, 0.6)]
    assert len(mean.get_xdata()) == 3 and mean.get_ydata()[1] > 0.9
    filled, hollow = axes.collections[:2]
    assert (len(filled.get_offsets()), len(hollow.get_offsets())) == (3, 1), "one of two masks of 4 steps is beaten"
    assert "named: timed" in texts(figure)


def test_only_what_was_timed_is_named() -> None:
    assert "none" in texts(likeness_over_cost(judged_works(view_of(MASKS)))).splitlines()
    assert likeness_over_cost([]) is None


def test_the_reference_point_is_said_below_the_title_and_in_the_pages_caption() -> None:
    curves = [SearchCurve("search=optuna", "time", (0.0, 0.4, 0.425)), SearchCurve("b $x$", "time", (0.1, 0.2))]
    said = texts(volume_over_trials(curves))
    assert "reference point: the baseline's cost at an SSIM of 0" in said and "time over the baseline's" in said
    assert "search=optuna: 0.425 after 3 trials" in said and "b $x$: 0.200 after 2 trials" in said
    (plot,) = [p for p in make_page(view_of([BASE, timed(0, 0.5, 0.8)]), {}).plots if p.file_name == "hypervolume.png"]
    assert "the reference point is the baseline's cost at an SSIM of 0" in plot.alt


def test_one_trial_is_no_curve_and_of_many_searches_some_are_drawn() -> None:
    assert volume_over_trials([SearchCurve("a", "steps", (0.3,))]) is None
    many = [SearchCurve(f"search {n}", "steps", (0.1, 0.2)) for n in range(MOST + 3)]
    assert f"the first {MOST} of {MOST + 3}" in texts(volume_over_trials(many))


@pytest.mark.parametrize(("records", "files"), [(MASKS, {"likeness_over_cost.png", "hypervolume.png"}), (None, set())])
def test_a_page_has_both_where_a_search_made_its_trials_and_neither_for_a_grid(
    records: list | None, files: set
) -> None:
    page = make_page(view_of(records or demo_records()), {})
    found = {plot.file_name for plot in page.plots} & {"likeness_over_cost.png", "hypervolume.png"}
    assert found == files and not any("Hypervolume" in text for text in page.missing_plots)


def test_several_pieces_of_work_are_told_apart() -> None:
    works = judged_works(view_of(MASKS))
    small = replace(works[0], name="a smaller one")
    assert "front of the mean" in texts(likeness_over_cost([works[0], small]))
    assert f"{works[0].name}: front of the worst image" in texts(likeness_over_cost([works[0], small]))
