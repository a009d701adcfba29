"""Which of several choices no other choice beats; refuses to weigh one goal against the other."""

from collections.abc import Sequence


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points that no other point dominates, both coordinates being better when higher.

    A point dominates another if it is at least as good in both coordinates and better in one; equal
    points do not dominate each other. Ordered by the first coordinate, ascending.
    """
    front = [i for i, (x, y) in enumerate(points) if not any(u >= x and v >= y and (u > x or v > y) for u, v in points)]
    return sorted(front, key=lambda i: (points[i][0], -points[i][1], i))
