"""Which points of a grid are tried; a search never changes what a trial is."""

import random
from collections.abc import Callable, Sequence
from typing import TypeVar

from zbench.config import SearchConfig
from zbench.errors import ConfigError

T = TypeVar("T")


def select(points: Sequence[T], search: SearchConfig, key: Callable[[T], str] = repr) -> list[T]:
    """All of `points` for a grid; for a random search `n_trials` of them, seeded, in grid order.

    `key` says what a point is: the same points are chosen in whatever order they stand. Raises ConfigError for a search
    from outside.
    """
    if not (search.target or "zbench.").startswith("zbench."):
        raise ConfigError("search.target", search.target, "a sweep asks none but zbench's own searches")
    if search.name == "grid" or search.n_trials is None or search.n_trials >= len(points):
        return list(points)
    canonical = sorted(range(len(points)), key=lambda index: key(points[index]))
    chosen = random.Random(search.seed).sample(canonical, search.n_trials)
    return [points[index] for index in sorted(chosen)]
