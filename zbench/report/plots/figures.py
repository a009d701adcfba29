"""Three of the report's figures: speed-up against fidelity, stages of a generation, skipped steps.

Refuses to draw what has no figures: then there is no plot, and the page says so.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from zbench.analysis import pareto
from zbench.analysis.figures import TrialFigures
from zbench.analysis.pareto import likeness_and_speedup
from zbench.analysis.telling import MOST_WHOLE
from zbench.report.plots.canvas import add_legend, add_title, new_figure, plain, style
from zbench.report.plots.point_names import write_names
from zbench.report.text.cells import digits, label

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STAGE_COLOURS = {
    "text_encode": "#56B4E9",
    "denoise": "#0072B2",
    "decode": "#E69F00",
    "offload_transfer": "#CC79A7",
    "other": "#BBBBBB",
}
FAMILIES = {  # name, colour, marker
    "none": ("no step skipping", "#000000", "*"),
    "dbcache": ("DBCache", "#0072B2", "o"),
    "taylorseer": ("DBCache + TaylorSeer", "#D55E00", "s"),
    "scm": ("step masks", "#009E73", "^"),
}
OUTSIDE = (("#CC79A7", "D"), ("#E69F00", "v"), ("#56B4E9", "P"))  # colour and marker of methods from outside zbench
MOST_ROWS = 40
MOST_NAMED = 20  # points of the front, where not all points are named


@style()
def speedup_vs_fidelity(trials: Sequence[TrialFigures]) -> "Figure | None":
    """Speed-up over the worst image's SSIM, the Pareto front joined; None where no trial has both.

    The reference stands at 1: it is what the others are likened to. What is not to be trusted is drawn and named,
    but is never on the front.
    """
    points = [(row, *point) for row in trials if (point := likeness_and_speedup(row)) is not None]
    if all(row.is_reference for row, _, _ in points):
        return None
    figure, axes = new_figure(8.4, 5.4)
    rows = [row for row, _, _ in points]
    places = {row.key: i for i, row in enumerate(rows)}
    front = [places[row.key] for row in pareto.front(rows)]
    on_it, many = set(front), len(points) > MOST_WHOLE
    axes.grid(True, zorder=0)
    axes.step(
        [points[i][1] for i in front],
        [points[i][2] for i in front],
        where="pre",
        color="#888888",
        linewidth=1.2,
        linestyle=(0, (4, 2)),
        zorder=2,
        label="Pareto front",
    )
    leading = {points[i][0].family for i in front}
    for family, (name, colour, marker) in _families(rows).items():
        for on_front in (True, False):
            chosen = [p for i, p in enumerate(points) if p[0].family == family and (i in on_it) == on_front]
            small = many and not on_front
            axes.scatter(
                [x for _, x, _ in chosen],
                [y for _, _, y in chosen],
                s=6 if small else 160 if marker == "*" else 62,
                marker=marker,
                facecolor=colour if on_front else "white",
                edgecolor=colour,
                linewidth=0.4 if small else 1.6,
                zorder=2.2 if small else 3,
                label=plain(name) if chosen and (on_front or family not in leading) else None,
            )
    for row, x, _ in points:  # of a projection its range
        if row.projected_speedup_low is not None and row.projected_speedup_high is not None:
            ends = [row.projected_speedup_low, row.projected_speedup_high]
            axes.plot([x, x], ends, color="#999999", linewidth=1, zorder=1.5)
    axes.margins(x=0.12, y=0.14)
    axes.set_xlabel("SSIM of the worst image against the reference's (right: more alike)")
    axes.set_ylabel("speed-up over the baseline, × (up: faster)")
    add_legend(figure)
    add_title(axes, "Speed-up against fidelity", trials, "filled: on the Pareto front")
    named = [points[i] for i in front[-MOST_NAMED:]] if many else points
    write_names(figure, axes, [(row.label, x, y) for row, x, y in named], range(len(named)) if many else front)
    return figure


def _families(rows: Sequence[TrialFigures]) -> dict[str, tuple[str, str, str]]:
    """FAMILIES, and every other that these rows have under its own name."""
    outside = dict.fromkeys(row.family for row in rows if row.family not in FAMILIES)
    styles = zip(outside, itertools.cycle(OUTSIDE), strict=False)
    return FAMILIES | {family: (family, *style) for family, style in styles}


@style()
def stage_breakdown(stages: Mapping[str, Mapping[str, float]], trials: Sequence[TrialFigures]) -> "Figure | None":
    """Stacked seconds of each stage; None if none took any. `stages`: label to stage to seconds, first at the top."""
    shown = dict(list(stages.items())[:MOST_ROWS])
    if not any(any(parts.values()) for parts in shown.values()):
        return None
    figure, axes = new_figure(max(8.4, 6 + _widest(shown)), 1.6 + 0.34 * len(shown))
    left = [0.0] * len(shown)
    for stage, colour in STAGE_COLOURS.items():
        widths = [parts.get(stage, 0.0) for parts in shown.values()]
        if any(widths):
            axes.barh(
                range(len(shown)), widths, left=left, color=colour, height=0.68, label=stage.replace("_", " "), zorder=2
            )
            left = [start + width for start, width in zip(left, widths, strict=True)]
    medians = {label(row): row.latency_median_s for row in trials}
    ranges = {label(row): row for row in trials if row.latency_source == "projected"}
    for place, (name, total) in enumerate(zip(shown, left, strict=True)):
        row = ranges.get(name)
        if row is not None and row.latency_low_s is not None and row.latency_high_s is not None:
            axes.plot([row.latency_low_s, row.latency_high_s], [place, place], color="#333333", linewidth=1.2, zorder=3)
            total = max(total, row.latency_high_s)
            left[place] = total
        axes.text(total, place, f" {digits(medians.get(name) or total)}", va="center", fontsize=9, color="#333333")
    axes.set_yticks(range(len(shown)), [plain(name) for name in shown])
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.grid(True, axis="x", zorder=0)
    axes.tick_params(axis="y", length=0)
    axes.set_xlim(0, max(left) * 1.1 or 1)
    axes.set_xlabel("seconds an image, median of each stage; the number is the median of the whole")
    add_legend(figure)
    add_title(axes, "Where the time goes", trials, _left_out(stages, trials))
    return figure


@style()
def cached_step_map(shares: Mapping[str, Sequence[float]], trials: Sequence[TrialFigures]) -> "Figure | None":
    """Share of images in which each step was skipped. `shares`: label to one share (0 to 1) a step."""
    shown = {label: row for label, row in list(shares.items())[:MOST_ROWS] if len(row)}
    if not shown:
        return None
    steps = max(len(row) for row in shown.values())
    grid = [[*row, *[float("nan")] * (steps - len(row))] for row in shown.values()]
    figure, axes = new_figure(max(3.6, 0.5 + _widest(shown)) + 0.6 * steps, 1.5 + 0.34 * len(shown))
    axes.pcolormesh(grid, cmap="Blues", vmin=0, vmax=1.15, edgecolor="white", linewidth=1.5)
    for y, row in enumerate(grid):
        for x, share in enumerate(row):
            if 0 < share < 0.995:
                colour = "white" if share > 0.6 else "#222222"
                axes.text(x + 0.5, y + 0.5, f"{share:.0%}", ha="center", va="center", fontsize=8.5, color=colour)
    axes.set_xticks([x + 0.5 for x in range(steps)], [str(x) for x in range(steps)])
    axes.set_yticks([y + 0.5 for y in range(len(grid))], [plain(name) for name in shown])
    axes.tick_params(length=0)
    axes.invert_yaxis()
    axes.spines[:].set_visible(False)
    axes.set_xlabel("denoising step (dark: skipped in every image; number: share of the images)")
    add_title(axes, "Skipped steps", trials, _left_out(shares, trials))
    return figure


def _widest(labels: Iterable[str]) -> float:
    """Inches that the longest label takes beside the axes, at most."""
    return 0.085 * max(len(plain(label)) for label in labels)


def _left_out(rows: Mapping[str, object], trials: Sequence[TrialFigures]) -> str:
    if len(rows) > MOST_ROWS:
        return f"the first {MOST_ROWS} of {len(rows)} trials"
    return f"{len(rows)} of {len(trials):,} trials" if len(trials) > MOST_WHOLE else ""
