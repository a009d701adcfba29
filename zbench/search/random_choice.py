"""So many trials of a space, drawn with a seed; a larger number begins with those of a smaller one."""

import random

from zbench.config import SearchConfig
from zbench.search.grid import GridSearch
from zbench.space import Space


class RandomSearch(GridSearch):
    """See `Search`. It is the grid of what was drawn, whatever order the space was typed in."""

    def __init__(self, space: Space, config: SearchConfig) -> None:
        drawn = sorted(space.asked)
        random.Random(config.seed).shuffle(drawn)
        super().__init__(space.only(drawn[: config.n_trials]), config)
