"""Every trial of a space, in its order."""

from zbench.analysis.figures import TrialFigures
from zbench.config import SearchConfig
from zbench.errors import ConfigError
from zbench.record import Record
from zbench.search import Foresight
from zbench.search.options import refuse_storage
from zbench.space import Space
from zbench.trial import Trial


class GridSearch:
    """See `Search`."""

    def __init__(self, space: Space, config: SearchConfig) -> None:
        """Raises ConfigError for what only another search takes."""
        if config.n_trials is not None:
            raise ConfigError("search.n_trials", config.n_trials, "a grid takes every point; use search=random")
        if config.options:
            raise ConfigError("search.options", config.options, f"search={config.name} takes none")
        refuse_storage(config)
        if config.seed and config.name == "grid":
            raise ConfigError("search.seed", config.seed, "a grid draws nothing; use search=random")
        self.space = space
        self._left = iter(space.placed)

    @property
    def foresight(self) -> Foresight:
        """See `search.foresight_of`."""
        return Foresight(len(self.space.placed), len(self.space.placed))

    def ask(self) -> Trial | None:
        """See `Search.ask`."""
        placed = next(self._left, None)
        return None if placed is None else placed.trial

    def tell(self, record: Record, figures: TrialFigures) -> None:
        """A grid is what it is, whatever came of its trials."""
