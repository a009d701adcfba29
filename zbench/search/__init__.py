"""Which points of a grid are tried; a search never changes what a trial is."""

import random
from collections.abc import Sequence
from typing import TypeVar

from zbench.config import SearchConfig

T = TypeVar("T")


def select(points: Sequence[T], search: SearchConfig) -> list[T]:
    """All of `points` for a grid; for a random search `n_trials` of them, seeded, in grid order."""
    if search.name == "grid" or search.n_trials is None or search.n_trials >= len(points):
        return list(points)
    chosen = random.Random(search.seed).sample(range(len(points)), search.n_trials)
    return [points[index] for index in sorted(chosen)]
