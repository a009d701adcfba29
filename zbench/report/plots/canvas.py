"""The report's style, an empty figure in it, its title, its legend, and the figure as PNG; draws no data.

Labels come from users and from code outside zbench, so they are drawn as plain text, whatever they hold (`plain`).

Colours are Okabe and Ito's, told apart by colour-blind readers, and shapes repeat what colours say.
"""

import io
import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from zbench.analysis.figures import NOT_VALIDATED, TrialFigures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STYLE: Any = {  # matplotlib types its keys one by one
    "font.size": 10,
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
    "text.parse_math": False,  # a $ is a $
    "text.usetex": False,
}
DPI = 144

MORE_FONTS = ("Noto Sans CJK SC", "Noto Sans CJK JP", "Source Han Sans SC", "WenQuanYi Zen Hei", "Microsoft YaHei")
"""For what DejaVu lacks, as far as they are here."""

LONGEST = 200
"""Characters of a label that are drawn."""


@contextmanager
def style() -> Iterator[None]:
    """Draw and save inside this, or decorated by it: text is made as late as a figure is saved."""
    import matplotlib
    from matplotlib.font_manager import fontManager

    here = {font.name for font in fontManager.ttflist}
    fonts = ["DejaVu Sans", *(name for name in MORE_FONTS if name in here)]
    with matplotlib.rc_context({**STYLE, "font.family": fonts}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # it is drawn as a box
        yield


def plain(label: str) -> str:
    """A label on one line, of a length that can be drawn: what cannot be seen is a space, what is left out is `…`.

    It is not empty and begins with no `_`, which would keep it out of a legend.
    """
    seen = "".join(" " if unicodedata.category(c)[0] in "CZ" else c for c in label).strip()
    short = seen if len(seen) <= LONGEST else seen[: LONGEST - 1] + "…"
    return f" {short}" if short.startswith("_") else short or "–"


@style()
def png_bytes(figure: "Figure") -> bytes:
    """The figure as a PNG, the same bytes for the same figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, bbox_inches="tight", pad_inches=0.12, metadata={"Software": None})
    return buffer.getvalue()


@style()
def new_figure(width: float, height: float) -> "tuple[Figure, Axes]":
    """An empty figure in the report's style, `width` and `height` in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

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
