"""Which of several choices no other choice beats; refuses to weigh one goal against the other."""

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
