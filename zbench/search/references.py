"""References first: a policy around any search, so that whatever it asks for has what it is held to."""

from collections import deque
from dataclasses import replace

from zbench.analysis.figures import TrialFigures
from zbench.errors import ConfigError
from zbench.record import Record
from zbench.search import OnlyQuality, Search
from zbench.space import Placed, Space


class WithReferences:
    """Asks a search, and gives before each trial its quality reference and speed baseline if they have not come yet."""

    def __init__(self, search: Search, target: str) -> None:
        """`target` is the class of `search`, as `search.target` names it."""
        self._search, self._target = search, target
        self._asked: set[tuple[str, bool]] = set()  # by the search itself: id, and whether only its quality
        self._given: set[tuple[str, bool]] = set()
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
            trial, quality_only = (asked.trial, True) if isinstance(asked, OnlyQuality) else (asked, False)
            if (trial.trial_id, quality_only) in self._asked:
                problem = f"asks for {trial.label} twice; where nothing is left, ask is to give None"
                raise ConfigError("search.target", self._target, problem)
            self._asked.add((trial.trial_id, quality_only))
            every = [self._search.space.place(each) for each in (*self._search.space.held_to(trial), trial)]
            if not (every[-1].is_reference or every[-1].is_baseline):
                every[-1] = replace(every[-1], quality_only=quality_only)
            new = {k: p for p in every if (k := (p.trial.trial_id, p.quality_only)) not in self._given}
            self._given |= new.keys()
            self._next.extend(new.values())
        return self._next.popleft()

    def tell(self, record: Record, figures: TrialFigures) -> None:
        """See `Search.tell`."""
        self._search.tell(record, figures)
