"""Which of several choices no other choice beats, and how much they cover together; refuses to weigh one goal against
the other."""

import math
from collections.abc import Sequence


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points that no other point dominates, both coordinates being better when higher.

    A point dominates another if it is at least as good in both coordinates and better in one; equal
    points do not dominate each other. Ordered by the first coordinate, ascending.
    """
    front: list[int] = []
    highest = -math.inf  # second coordinate among the points before it, all of which are as far right
    for i in sorted(range(len(points)), key=lambda i: (-points[i][0], -points[i][1], i)):
        x, y = points[i]
        if y > highest or (front and points[front[-1]] == (x, y)):
            front.append(i)
            highest = y
    return sorted(front, key=lambda i: (points[i][0], -points[i][1], i))


def hypervolume(points: Sequence[tuple[float, float]], reference: tuple[float, float] = (0.0, 0.0)) -> float:
    """The area of all that some point is at least as good as and that is better than `reference` in both coordinates,
    which are better when higher (Zitzler and Thiele, 1998).

    Exact, by a sweep from the right: each point adds the strip between its own height and the highest before it. A
    point that is no better than the reference in one coordinate adds nothing. In the product of both units.
    """
    left, highest = reference
    area = 0.0
    for x, y in sorted(points, reverse=True):
        if x <= left:
            break
        if y > highest:
            area += (x - left) * (y - highest)
            highest = y
    return area
