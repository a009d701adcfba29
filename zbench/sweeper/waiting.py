"""Trials that a search was asked for and that have not begun; it decides neither which may begin nor when to ask."""

from collections.abc import Callable

from zbench.search.retry import WithNextOffload
from zbench.space import Placed


class Waiting:
    """Of one sweep, in the order in which they came."""

    def __init__(self, search: WithNextOffload) -> None:
        self._search = search
        self.placed: list[Placed] = []
        self.came: set[str] = set()
        """Ids of all that the search has given, begun by now or not."""

    def __len__(self) -> int:
        return len(self.placed)

    def put_back(self, placed: Placed) -> None:
        """Have one wait before all others."""
        self.placed.insert(0, placed)

    def take(self, fits: Callable[[Placed], bool], asks: Callable[[Placed | None], bool]) -> Placed | None:
        """Remove and return the first that `fits`, held to the reference and the baseline that serve by now.

        Where none of those that wait does, the search is asked for others as long as `asks` wants it, which is told
        which one came last, None before any. What comes and does not fit waits.
        """
        for place, waiting in enumerate(self.placed):
            placed = self._search.held_to_what_serves(waiting)
            if fits(placed):
                del self.placed[place]
                return placed
        last: Placed | None = None
        while asks(last):
            last = self._search.next_placed()
            if last is None:
                break
            self.came.add(last.trial.trial_id)
            placed = self._search.held_to_what_serves(last)
            if fits(placed):
                return placed
            self.placed.append(last)
        return None
