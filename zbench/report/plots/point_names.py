"""The names of points in a scatter plot: adjustText moves them apart, and one that cannot be read is left out.

A name cannot be read where it covers another name or a marker, where a line to its point would run through a name, or
where it ended far from its point.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zbench.report.plots.canvas import plain, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text
    from matplotlib.transforms import Bbox

MARKER = 6.0  # points: half a marker's width
ALIKE = 1.5  # points: how near points share a name
BESIDE = 9.0  # points: from a point to where its name would stand if it were alone
SIDES = {  # of a point, where its name is tried: across, up, how it is aligned
    "right": (1.0, 0.3, "left"),
    "left": (-1.0, -0.3, "right"),
    "above": (0.0, 1.3, "center"),
    "below": (0.0, -1.3, "center"),
}
GAP = 1.5  # points: between names
FAR = 80.0  # points: how far a name may end from its point
LINE = 12.0  # points: from how far on a line joins the two
ROOM = 0.25  # of the axes' width: how far right of them a name may reach
FORCES: dict[str, Any] = {  # found by trying some hundred settings on sweeps of 4 to 49 trials
    "force_explode": (0, 0.3),
    "force_text": (0.02, 0.2),
    "force_static": (0.05, 0.3),
    "force_pull": (0.002, 0.002),
    "expand": (1.05, 1.2),
    "max_move": (5, 10),
    "prevent_crossings": False,
    "ensure_inside_axes": False,
    "iter_lim": 80,  # a limit in time would give another picture on another day
}


@dataclass
class PlacedName:
    """A name on the axes, the pixel its point lies at, and the pixels it takes."""

    text: "Text"
    point: tuple[float, float]
    sides: tuple[str, ...]
    box: "Bbox"

    @property
    def end(self) -> tuple[float, float]:
        """The pixel of the name that is nearest to its point."""
        return self.nearest(self.point)

    def nearest(self, pixel: tuple[float, float]) -> tuple[float, float]:
        """The pixel of the name that is nearest to another."""
        x, y = pixel
        return (min(max(x, self.box.x0), self.box.x1), min(max(y, self.box.y0), self.box.y1))


@style()
def write_names(
    figure: "Figure", axes: "Axes", points: Sequence[tuple[str, float, float]], front: Collection[int]
) -> None:
    """Name the points (name, x, y), those of the front first; points that lie on one another share a name.

    Ends the figure's automatic layout.
    """
    figure.canvas.draw()
    figure.set_layout_engine("none")
    axes.autoscale(False)  # lines to names do not widen the plot
    scale = figure.dpi / 72
    pixels = [_pair(axes.transData.transform((x, y))) for _, x, y in points]
    shared = _shared_names([plain(name) for name, _, _ in points], pixels, front, scale)
    order = sorted(shared, key=lambda i: (i not in front, points[i][1]))
    waiting = [_name(axes, shared[i], pixels[i], i in front) for i in order]
    markers = _around(pixels, MARKER * scale)
    read: list[PlacedName] = []
    for side in range(len(SIDES)):
        _place(figure, axes, waiting, side, [*markers, *_walls(axes), *(name.box for name in read)])
        for name in list(waiting):
            if _is_readable(name, read, markers, scale):
                waiting.remove(name)
                read.append(name)
    for name in waiting:
        name.text.remove()
    for name in read:
        if math.dist(name.end, name.point) > LINE * scale or _is_nearer_to_another(name, pixels):
            ends = axes.transData.inverted().transform([name.point, name.end])
            axes.plot(*zip(*ends, strict=True), color="#999999", linewidth=0.7, zorder=2.5, clip_on=False)


def _name(axes: "Axes", text: str, point: tuple[float, float], on_front: bool) -> PlacedName:
    """Tried first right of a point of the front, as nothing lies there, and left of another."""
    from matplotlib.patheffects import withStroke
    from matplotlib.transforms import Bbox

    weight, colour = ("bold", "#222222") if on_front else ("normal", "#555555")
    halo = [withStroke(linewidth=2.5, foreground="white")]
    style: dict[str, Any] = {"fontsize": 8.5, "fontweight": weight, "color": colour, "path_effects": halo}
    sides = ("right", "left", "above", "below") if on_front else ("left", "right", "below", "above")
    return PlacedName(axes.text(0, 0, text, zorder=5, **style), point, sides, Bbox.null())


def _place(figure: "Figure", axes: "Axes", names: Sequence[PlacedName], side: int, obstacles: Sequence["Bbox"]) -> None:
    """From that side of its point, adjustText moves each to where it covers neither obstacle nor another."""
    from adjustText import adjust_text

    if not names:
        return
    back, beside = axes.transData.inverted(), BESIDE * figure.dpi / 72
    for name in names:
        across, up, align = SIDES[name.sides[side]]
        home = back.transform((name.point[0] + across * beside, name.point[1] + up * beside))
        name.text.set(position=home, ha=align, va="center")
    targets = back.transform([name.point for name in names])
    adjust_text(
        [name.text for name in names],
        objects=[box.transformed(back) for box in obstacles],
        target_x=targets[:, 0],
        target_y=targets[:, 1],
        avoid_self=False,
        ax=axes,
        **FORCES,
    )
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    for name in names:
        name.box = name.text.get_window_extent(renderer)


def _is_readable(name: PlacedName, read: Sequence[PlacedName], markers: Sequence["Bbox"], scale: float) -> bool:
    """Whether it can be read beside those that can, and they beside it."""
    from matplotlib.path import Path

    if math.dist(name.end, name.point) > FAR * scale or name.box.count_overlaps(markers):
        return False
    line = Path([name.point, name.end])
    return not any(
        name.box.padded(GAP * scale).overlaps(other.box)
        or line.intersects_bbox(other.box, filled=False)
        or Path([other.point, other.end]).intersects_bbox(name.box, filled=False)
        for other in read
    )


def _walls(axes: "Axes") -> list["Bbox"]:
    """What lies around the axes and the room right of them."""
    from matplotlib.transforms import Bbox

    area, thick = axes.get_window_extent(), 10_000.0
    left, right, bottom, top = area.x0, area.x1 + ROOM * area.width, area.y0, area.y1
    return [
        Bbox.from_extents(left - thick, bottom, left, top),
        Bbox.from_extents(right, bottom, right + thick, top),
        Bbox.from_extents(left - thick, bottom - thick, right + thick, bottom),
        Bbox.from_extents(left - thick, top, right + thick, top + thick),
    ]


def _is_nearer_to_another(name: PlacedName, pixels: Sequence[tuple[float, float]]) -> bool:
    """Whether a reader would take it for another point's name."""
    away = [math.dist(pixel, name.nearest(pixel)) for pixel in pixels]
    return min(away) < math.dist(name.point, name.end) - 1


def _around(pixels: Sequence[tuple[float, float]], half: float) -> list["Bbox"]:
    from matplotlib.transforms import Bbox

    return [Bbox.from_extents(x - half, y - half, x + half, y + half) for x, y in pixels]


def _shared_names(
    names: Sequence[str], pixels: Sequence[tuple[float, float]], front: Collection[int], scale: float
) -> dict[int, str]:
    """One name for points within ALIKE of each other, under the index of the first, of the front if any is."""
    shared: dict[int, str] = {}
    more: dict[int, int] = {}
    near = ALIKE * scale
    for i in sorted(range(len(names)), key=lambda i: (i not in front, i)):
        (x, y) = pixels[i]
        known = next((j for j in shared if abs(x - pixels[j][0]) < near and abs(y - pixels[j][1]) < near), None)
        if known is None:
            shared[i], more[i] = names[i], 0
        else:
            more[known] += 1
    return {i: f"{name} (+{more[i]} alike)" if more[i] else name for i, name in shared.items()}


def _pair(numbers: Any) -> tuple[float, float]:
    return float(numbers[0]), float(numbers[1])
