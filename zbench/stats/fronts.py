"""Which of several choices no other choice beats, by any number of goals; refuses to weigh one goal against another."""

from collections.abc import Sequence


def nondominated(points: Sequence[Sequence[float]]) -> list[int]:
    """Indices, in order, of the points that no other point dominates, every coordinate being better when higher.

    A point dominates another if it is at least as good in all coordinates and better in one; equal points do not
    dominate each other. All points have the same number of coordinates. Takes time with the square of their number.
    """
    return [i for i, point in enumerate(points) if not any(_dominates(other, point) for other in points)]


def _dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    pairs = list(zip(one, other, strict=True))
    return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)
