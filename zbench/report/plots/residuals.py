"""The fourth figure: how much the residual changed from step to step, and which thresholds would have let it pass."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from zbench.analysis.figures import TrialFigures
from zbench.analysis.steps import residual_diffs
from zbench.analysis.view import View
from zbench.methods.cache import method_of
from zbench.report.plots.canvas import add_legend, add_title, new_figure, plain, style
from zbench.report.text import cells
from zbench.stats import median

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_LINES = 6
LINES = (  # colour, marker
    ("#0072B2", "o"),
    ("#D55E00", "s"),
    ("#009E73", "^"),
    ("#CC79A7", "D"),
    ("#E69F00", "v"),
    ("#56B4E9", "P"),
)
DASH = 5.0  # points; thresholds that several trials share take turns


@dataclass(frozen=True)
class ResidualLine:
    """One DBCache trial: its threshold, and step to the difference in each image."""

    label: str
    threshold: float
    diffs: Mapping[int, Sequence[float]]


def telling_residuals(view: View) -> list[ResidualLine]:
    """At most MOST_LINES COMPLETE trials with DBCache, in table order, no two with the same differences.

    cache-dit's defaults come before others, then one trial of every other window in which steps are compared.
    """
    found = []
    for row, record in view.pairs:
        method = method_of(record.trial.cache)
        diffs = residual_diffs(record.valid_measurement) if record.valid_measurement is not None else {}
        if method.compared_by is not None and method.threshold is not None and diffs:
            window = repr([row.sweep, row.reference_id, *method.compared_by])
            line = ResidualLine(cells.label(row), method.threshold, diffs)
            found.append((row.has_default_cache, window, line))
    windows: set[str] = set()
    profiles: set[str] = set()
    first: list[ResidualLine] = []
    then: list[ResidualLine] = []
    for _, window, line in sorted(found, key=lambda entry: not entry[0]):
        profile = repr([(step, round(median(values), 4)) for step, values in line.diffs.items()])
        if profile not in profiles:
            (then if window in windows else first).append(line)
        windows.add(window)
        profiles.add(profile)
    chosen = [*first, *then][:MOST_LINES]
    return [line for _, _, line in found if any(line is other for other in chosen)]


@style()
def residual_differences(lines: Sequence[ResidualLine], trials: Sequence[TrialFigures]) -> "Figure | None":
    """Median over the images with whiskers from the least to the most; thresholds dashed in their line's colour."""
    if not lines:
        return None
    figure, axes = new_figure(8.4, 4.8)
    axes.grid(True, zorder=0)
    steps = sorted({step for line in lines for step in line.diffs})
    for place, (line, (colour, marker)) in enumerate(zip(lines, LINES, strict=False)):
        medians = [median(list(values)) for values in line.diffs.values()]
        whiskers = [
            [middle - min(values) for middle, values in zip(medians, line.diffs.values(), strict=True)],
            [max(values) - middle for middle, values in zip(medians, line.diffs.values(), strict=True)],
        ]
        aside = 0.05 * (place - (len(lines) - 1) / 2)  # so that equal lines do not hide one another
        axes.errorbar(
            [step + aside for step in line.diffs],
            medians,
            yerr=whiskers,
            color=colour,
            marker=marker,
            markersize=5.5,
            linewidth=1.4,
            elinewidth=1.0,
            capsize=2.5,
            zorder=3,
            label=plain(line.label),
        )
        sharing = [i for i, other in enumerate(lines) if other.threshold == line.threshold]
        turn, turns = sharing.index(place), len(sharing)
        pattern = (2 * DASH * turn, (DASH, 2 * DASH * turns - DASH))
        axes.axhline(line.threshold, color=colour, linewidth=1.3, linestyle=pattern, zorder=2)
    axes.set_xticks(steps)
    axes.set_xlim(steps[0] - 0.4, steps[-1] + 0.6)
    for threshold in sorted({line.threshold for line in lines}):
        right = (1.0, threshold)
        axes.annotate(f" {threshold:g}", right, xycoords=axes.get_yaxis_transform(), va="center", fontsize=9)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("denoising step")
    axes.set_ylabel("residual difference, median over images")
    add_legend(figure, columns=3)
    add_title(
        axes,
        "Residual differences by step",
        trials,
        "whiskers: least to most; dashed: threshold, a step below it is skipped where the setting allows",
    )
    return figure
