"""Where bisection stands: between what holds and what does not, of settings of which a larger number holds less."""

from collections.abc import Iterable


def bracket(tried: Iterable[tuple[float, bool | None]]) -> tuple[float | None, float | None]:
    """Of numbers that were tried and whether each holds: the largest that does, and the least above it that does not.

    Where a larger one holds again, what did not below it says nothing: it ends at one that was seen to hold. One that
    could not be judged (None) counts as neither.
    """
    every = list(tried)
    best = max((number for number, holds in every if holds), default=None)
    above = (number for number, holds in every if holds is False and (best is None or number > best))
    return best, min(above, default=None)
