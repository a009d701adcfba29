"""What searches came to: likeness over the steps computed where images alone were judged, and how far each search came
with each trial.

Refuses to draw a search of one trial, and what has no likeness.
"""

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from zbench.analysis.pareto import likeness
from zbench.analysis.searches import JudgedWork, SearchCurve
from zbench.report.plots.canvas import add_legend, add_title, new_figure, plain, style
from zbench.report.plots.point_names import write_names
from zbench.stats import pareto_front

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
MOST = len(COLOURS)
"""Works or searches that are drawn."""

REFERENCE_POINT = "the baseline's cost at an SSIM of 0"
"""In words, `analysis.searches.REFERENCE`."""


@style()
def likeness_over_cost(works: Sequence[JudgedWork]) -> "Figure | None":
    """SSIM of each trial's worst image over the steps that it computes, the front joined, and the front of the mean
    beside it; None where there is no such work. Costs are measured in steps, for the trials were not timed."""
    shown = works[:MOST]
    if not shown:
        return None
    figure, axes = new_figure(8.4, 5.4)
    axes.grid(True, zorder=0)
    named: list[tuple[str, float, float]] = []
    for work, colour, marker in zip(shown, COLOURS, MARKERS, strict=False):
        alike = [found for row in work.trials if (found := likeness(row)) is not None]
        beside = f"{plain(work.name)}: " if len(shown) > 1 else ""
        fronts = [
            pareto_front([(-steps, each[i]) for steps, each in zip(work.computed, alike, strict=True)]) for i in (0, 1)
        ]
        for (what, line, width), front, i in zip(
            (("worst", "-", 1.4), ("mean", ":", 1.2)), fronts, (0, 1), strict=True
        ):
            axes.step(
                [work.computed[p] for p in front],
                [alike[p][i] for p in front],
                where="pre",
                color=colour,
                linestyle=line,
                linewidth=width,
                zorder=2,
                label=f"{beside}front of the {what} image" if what == "worst" else f"{beside}front of the mean",
            )
        for on_front in (True, False):
            places = [p for p in range(len(alike)) if (p in set(fronts[0])) == on_front]
            axes.scatter(
                [work.computed[p] for p in places],
                [alike[p][0] for p in places],
                s=62 if on_front else 12,
                marker=marker,
                facecolor=colour if on_front else "white",
                edgecolor=colour,
                linewidth=1.2 if on_front else 0.6,
                zorder=3 if on_front else 2.2,
            )
        timed = [p for p in fronts[0] if not work.trials[p].is_untimed]
        named += [(work.trials[p].label, work.computed[p], alike[p][0]) for p in timed]
    axes.margins(x=0.12, y=0.14)
    axes.set_xlabel("steps computed an image (left: cheaper)")
    axes.set_ylabel("SSIM of the worst image against the reference's (up: more alike)")
    add_legend(figure, 2)
    rows = [row for work in shown for row in work.trials]
    add_title(
        axes, "Likeness against cost", rows, f"filled: on the front of the worst image; named: timed{_more(works)}"
    )
    write_names(figure, axes, named, range(len(named)))
    return figure


@style()
def volume_over_trials(curves: Sequence[SearchCurve]) -> "Figure | None":
    """Hypervolume of cost and likeness after each trial of each search; None where none has two trials.

    The reference point is `analysis.searches.REFERENCE`: what costs nothing and changes no image covers 1.
    """
    told = [curve for curve in curves if len(curve.volumes) > 1]
    shown = told[:MOST]
    if not shown:
        return None
    figure, axes = new_figure(8.4, 4.6)
    axes.grid(True, zorder=0)
    lines = itertools.cycle(("-", (0, (4, 2)), (0, (1, 1.2))))
    for curve, colour, line in zip(shown, COLOURS, lines, strict=False):
        axes.step(
            range(1, len(curve.volumes) + 1),
            curve.volumes,
            where="post",
            color=colour,
            linestyle=line,
            linewidth=1.8,
            label=plain(f"{curve.name}: {curve.volumes[-1]:.3f} after {len(curve.volumes)} trials"),
        )
    axes.set_xlabel("trials that were run")
    axes.set_ylabel("hypervolume (up: more covered)")
    axes.set_ylim(bottom=0)
    add_legend(figure, 1)
    add_title(
        axes, "Hypervolume against trials", [], f"{_costs(shown)}; reference point: {REFERENCE_POINT}{_more(told)}"
    )
    return figure


def _costs(curves: Sequence[SearchCurve]) -> str:
    """What cost is, of those that are drawn."""
    words = {"time": "time over the baseline's", "steps": "share of the steps computed"}
    said = " or ".join(words[cost] for cost in dict.fromkeys(curve.cost for curve in curves))
    return f"of likeness and cost ({said})"


def _more(drawn: Sequence[object]) -> str:
    return f"; the first {MOST} of {len(drawn)}" if len(drawn) > MOST else ""
