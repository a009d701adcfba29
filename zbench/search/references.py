"""References first: a policy around any search, so that whatever it asks for has what it is held to."""

from collections import deque

from zbench.analysis.figures import TrialFigures
from zbench.errors import ConfigError
from zbench.record import Record
from zbench.search import Search
from zbench.space import Placed, Space


class WithReferences:
    """Asks a search, and gives before each trial its quality reference and speed baseline if they have not come yet."""

    def __init__(self, search: Search, target: str) -> None:
        """`target` is the class of `search`, as `search.target` names it."""
        self._search, self._target = search, target
        self._asked: set[str] = set()  # by the search itself
        self._given: set[str] = set()
        self._next: deque[Placed] = deque()

    @property
    def space(self) -> Space:
        """See `Search.space`."""
        return self._search.space

    def next_placed(self) -> Placed | None:
        """The next trial, held to its references. Raises ConfigError for a search that repeats itself."""
        while not self._next:
            asked = self._search.ask()
            if asked is None:
                return None
            if asked.trial_id in self._asked:
                problem = f"asks for {asked.label} twice; where nothing is left, ask is to give None"
                raise ConfigError("search.target", self._target, problem)
            self._asked.add(asked.trial_id)
            every = [self._search.space.place(trial) for trial in (*self._search.space.held_to(asked), asked)]
            new = {p.trial.trial_id: p for p in every if p.trial.trial_id not in self._given}
            self._given |= new.keys()
            self._next.extend(new.values())
        return self._next.popleft()

    def tell(self, record: Record, figures: TrialFigures) -> None:
        """See `Search.tell`."""
        self._search.tell(record, figures)
