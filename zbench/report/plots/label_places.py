"""Where to write the names of points so that none covers another; a name that fits nowhere is left out.

Knows only rectangles in pixels, nothing of matplotlib.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

Point = tuple[float, float]


@dataclass(frozen=True)
class Box:
    """A rectangle, y upwards."""

    x0: float
    y0: float
    x1: float
    y1: float

    def overlaps(self, other: "Box", gap: float = 0.0) -> bool:
        """Whether less than `gap` lies between the two."""
        return (
            self.x0 < other.x1 + gap
            and other.x0 < self.x1 + gap
            and self.y0 < other.y1 + gap
            and other.y0 < self.y1 + gap
        )

    def holds(self, other: "Box") -> bool:
        """Whether `other` lies wholly inside."""
        return self.x0 <= other.x0 and self.y0 <= other.y0 and other.x1 <= self.x1 and other.y1 <= self.y1

    def nearest(self, point: Point) -> Point:
        """The point of the rectangle that is nearest to `point`."""
        x, y = point
        return (min(max(x, self.x0), self.x1), min(max(y, self.y0), self.y1))


def place_labels(
    points: Sequence[Point],
    sizes: Sequence[tuple[float, float]],
    *,
    obstacles: Sequence[Point],
    area: Box,
    towards: Sequence[float],
    scale: float = 1.0,
) -> list[Box | None]:
    """A box for each point's label, in the order given, near its point, inside `area`; None where none is free.

    `sizes` are (width, height); `obstacles` are markers no label may cover; `towards` is the direction each
    label is tried in first, degrees; lengths are pixels, `scale` pixels a typographic point. The first
    labels get the best places.
    """
    markers = [Box(x - 6 * scale, y - 6 * scale, x + 6 * scale, y + 6 * scale) for x, y in obstacles]
    taken: list[Box] = []
    leaders: list[tuple[Point, Point]] = []
    placed: list[Box | None] = []
    for point, size, degrees in zip(points, sizes, towards, strict=True):
        spot = None
        for box in _candidates(point, size, degrees, scale):
            leader = (point, box.nearest(point))
            if (
                area.holds(box)
                and not any(box.overlaps(other, 2 * scale) for other in taken)
                and not any(box.overlaps(marker) for marker in markers)
                and not any(_crosses(line, box) for line in leaders)
                and not any(_crosses(leader, other) for other in taken)
            ):
                spot = box
                taken.append(box)
                leaders.append(leader)
                break
        placed.append(spot)
    return placed


def _candidates(point: Point, size: tuple[float, float], towards: float, scale: float) -> list[Box]:
    """Boxes around the point, the nearest ring first, in each ring those nearest to the wanted direction."""
    x, y = point
    width, height = size
    boxes = []
    for distance in (9, 16, 28, 42, 58, 76):
        for turn in (0, -25, 25, 50, -50, 80, -80, 115, -115, 150, -150, 180):
            angle = math.radians(towards + turn)
            cx = x + (distance * scale + width / 2) * math.cos(angle)
            cy = y + (distance * scale + height / 2) * math.sin(angle)
            boxes.append(Box(cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2))
    return boxes


def _crosses(line: tuple[Point, Point], box: Box) -> bool:
    """Whether a straight leader runs through the box (sampled: leaders are short)."""
    (x0, y0), (x1, y1) = line
    return any(
        box.x0 < x0 + (x1 - x0) * t / 12 < box.x1 and box.y0 < y0 + (y1 - y0) * t / 12 < box.y1 for t in range(13)
    )
