"""An empty figure in the report's style, its title, its legend, and the figure as PNG; draws no data.

Colours are Okabe and Ito's, told apart by colour-blind readers, and shapes repeat what colours say.
"""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from zbench.analysis.figures import NOT_VALIDATED, TrialFigures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STYLE: Any = {  # matplotlib types its keys one by one
    "font.size": 10,
    "font.family": "DejaVu Sans",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": "#666666",
    "axes.labelcolor": "#333333",
    "xtick.color": "#333333",
    "ytick.color": "#333333",
    "grid.color": "#E6E6E6",
    "figure.facecolor": "white",
    "legend.frameon": False,
}
DPI = 144


def png_bytes(figure: "Figure") -> bytes:
    """The figure as a PNG, the same bytes for the same figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, bbox_inches="tight", pad_inches=0.12, metadata={"Software": None})
    return buffer.getvalue()


def new_figure(width: float, height: float) -> "tuple[Figure, Axes]":
    """An empty figure in the report's style, `width` and `height` in inches."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
        FigureCanvasAgg(figure)
        return figure, figure.add_subplot()


def add_legend(figure: "Figure", columns: int = 5) -> None:
    """Below the axes, from what was drawn with a label."""
    figure.legend(loc="outside lower center", ncols=columns, frameon=False, handletextpad=0.5, columnspacing=1.6)


def add_title(axes: "Axes", title: str, trials: Sequence[TrialFigures], note: str = "") -> None:
    """The figure's name with what must be said of `trials` beneath it: not validated, and `note`."""
    weak = any(row.source in ("proxy", "projected") for row in trials)
    notes = "; ".join(text for text in (NOT_VALIDATED if weak else "", note) if text)
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold", pad=22 if notes else 8)
    if notes:
        axes.annotate(
            notes,
            (0, 1),
            xycoords="axes fraction",
            xytext=(0, 8),
            textcoords="offset points",
            fontsize=9,
            color="#A03000" if weak else "#555555",
        )
