"""Responses and goodput over the rate of arrivals, with the objective; refuses to draw a single rate."""

from typing import TYPE_CHECKING

from zbench.analysis.rates import RateCurve
from zbench.analysis.view import View
from zbench.report.plots.canvas import add_legend, add_title, new_figure, plain, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

P50, P95, GOODPUT = "#0072B2", "#D55E00", "#009E73"
MOST = 4
"""Settings that are drawn."""

MARKERS = ("o", "s", "^", "D")


@style()
def responses_over_rates(curves: list[RateCurve], view: View) -> "Figure | None":
    """p50 and p95 from due to done, and the goodput, of each setting; None where no setting has two rates."""
    shown = [curve for curve in curves if len(curve.points) > 1][:MOST]
    if not shown:
        return None
    figure, axes = new_figure(8.4, 5.0)
    goodput = axes.twinx()
    goodput.spines["right"].set_visible(True)
    axes.grid(True, zorder=0)
    for curve, marker in zip(shown, MARKERS, strict=False):
        name = f"{plain(curve.setting)}: " if len(shown) > 1 else ""
        for q, colour in ((0.5, P50), (0.95, P95)):
            told = [(p.rate_per_s, s) for p in curve.points if (s := p.load.response_s(q)) is not None]
            axes.plot(*zip(*told, strict=True), color=colour, marker=marker, label=f"{name}p{100 * q:.0f}", zorder=3)
        rates = [p.rate_per_s for p in curve.points]
        served = [p.load.goodput_per_s or 0.0 for p in curve.points]
        goodput.plot(rates, served, color=GOODPUT, marker=marker, linestyle=(0, (4, 2)), label=f"{name}goodput")
    for objective_s in sorted({curve.objective_s for curve in shown}):
        axes.axhline(objective_s, color="#666666", linewidth=1.2, linestyle=(0, (1, 2)), label=f"{objective_s:g} s")
    axes.set_xlabel("rate of arrivals, requests/s")
    axes.set_ylabel("from due to done, s")
    goodput.set_ylabel("done in time, requests/s")
    axes.set_ylim(bottom=0)
    goodput.set_ylim(bottom=0)
    add_legend(figure)
    add_title(axes, "Responses over the rate of arrivals", view.complete)
    return figure
