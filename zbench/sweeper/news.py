"""What a search says and leaves out while it is told of trials, each of it once."""

from collections.abc import Callable

from zbench.search import Search, remarks_of
from zbench.space import Placed


class News:
    """Of one search."""

    def __init__(self, search: Search, leave_out: Callable[[Placed, str], object], note: Callable[[str], None]) -> None:
        """`leave_out` records a trial with the reason, `note` shows a sentence. What it says by now the plan said."""
        self._search, self._leave_out, self._note = search, leave_out, note
        self._left_out, self._said = 0, len(remarks_of(search))

    def heed(self) -> None:
        """All that is new."""
        for placed, reason in self._search.space.pruned[self._left_out :]:
            self._left_out += 1
            self._leave_out(placed, reason)
        for text in remarks_of(self._search)[self._said :]:
            self._said += 1
            self._note(text)
