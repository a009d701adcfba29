"""So many trials of a space, drawn with a seed; a larger number begins with those of a smaller one."""

import random
from dataclasses import replace

from zbench.config import SearchConfig
from zbench.errors import ConfigError
from zbench.search.grid import GridSearch
from zbench.space import Space


class RandomSearch(GridSearch):
    """See `Search`. It is the grid of what was drawn, whatever order the space was typed in."""

    def __init__(self, space: Space, config: SearchConfig) -> None:
        """Raises ConfigError where it is not said how many."""
        if config.n_trials is None:
            needs = "a random search needs the number of points, such as search.n_trials=16"
            raise ConfigError("search.n_trials", None, needs)
        drawn = sorted(space.asked)
        random.Random(config.seed).shuffle(drawn)
        super().__init__(space.only(drawn[: config.n_trials]), replace(config, n_trials=None))
