"""What a search says and leaves out while it is told of trials, each of it once."""

from collections.abc import Callable, Collection

from zbench.search import Search, remarks_of
from zbench.space import Placed


class News:
    """Of one search."""

    def __init__(
        self,
        search: Search,
        leave_out: Callable[[Placed, str], object],
        note: Callable[[str], None],
        told: Collection[str] = (),
    ) -> None:
        """`leave_out` records a trial with the reason, `note` shows a sentence; those of `told` the plan has said."""
        self._search, self._leave_out, self._note = search, leave_out, note
        self._left_out, self._said = 0, set(told)

    def heed(self) -> None:
        """All that is new."""
        for placed, reason in self._search.space.pruned[self._left_out :]:
            self._left_out += 1
            self._leave_out(placed, reason)
        for text in remarks_of(self._search):
            if text not in self._said:
                self._said.add(text)
                self._note(text)
