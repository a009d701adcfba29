"""Every trial of a space, in its order."""

from zbench.analysis.figures import TrialFigures
from zbench.config import SearchConfig
from zbench.record import Record
from zbench.space import Placed, Space


class GridSearch:
    """See `Search`."""

    def __init__(self, space: Space, config: SearchConfig) -> None:
        self.space = space
        self._left = iter(space.placed)

    def ask(self) -> Placed | None:
        """See `Search.ask`."""
        return next(self._left, None)

    def tell(self, record: Record, figures: TrialFigures) -> None:
        """A grid is what it is, whatever came of its trials."""
