"""Speed-up over the number of devices, with the ideal line and what does not scale; refuses to draw what has none."""

from typing import TYPE_CHECKING

from zbench.analysis.sharded import sharded_trials
from zbench.analysis.view import View
from zbench.report.plots.canvas import add_legend, add_title, new_figure, style
from zbench.report.plots.point_names import write_names

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS = {  # whether each device makes images of its own: name, colour, marker
    False: ("an image on all of them: its time", "#0072B2", "o"),
    True: ("an image on each: images/s", "#E69F00", "s"),
}


@style()
def speedup_over_devices(view: View) -> "Figure | None":
    """Of each trial that is held against its setting on one device; None where there is none.

    Where all share one setting and split the same stages, the curve of Amdahl's bound is drawn too.
    """
    trials = sharded_trials(view)
    points = [(t, s, s.request) for t in trials if (s := t.scaling) is not None and s.request is not None]
    if not points:
        return None
    figure, axes = new_figure(8.4, 5.0)
    most = max(trial.row.devices for trial, _, _ in points)
    counts = list(range(1, most + 1))
    axes.grid(True, zorder=0)
    axes.plot(counts, counts, color="#888888", linewidth=1.2, linestyle=(0, (4, 2)), zorder=2, label="ideal")
    splitting = [(trial.setting, s.amdahl) for trial, s, _ in points if s.amdahl is not None]
    if len({(setting, tuple(amdahl.serial_s)) for setting, amdahl in splitting}) == 1:
        _, amdahl = splitting[0]
        bounds = [amdahl.bound_on(ranks) for ranks in counts]
        axes.plot(counts, bounds, color="#D55E00", linewidth=1.2, zorder=2, label="bound by what does not scale")
    places = []
    for side_by_side, (name, colour, marker) in KINDS.items():
        chosen = [(t, r) for t, _, r in points if t.is_data_parallel == side_by_side]
        found = [(t.row.devices, r.speedup * (r.images if side_by_side else 1.0)) for t, r in chosen]
        places += [(t.row.label, float(x), y) for (t, _), (x, y) in zip(chosen, found, strict=True)]
        if chosen:
            axes.scatter(
                [x for x, _ in found],
                [y for _, y in found],
                s=62,
                marker=marker,
                facecolor=colour,
                zorder=3,
                label=name,
            )
    axes.set_xticks(counts if most <= 16 else sorted({x for _, x, _ in places}))
    axes.margins(x=0.12, y=0.14)
    axes.set_xlabel("devices")
    axes.set_ylabel("over the same setting on one device, ×")
    add_legend(figure)
    add_title(axes, "Speed-up over devices", view.complete)
    write_names(figure, axes, places, range(len(places)))
    return figure
