"""What is tried in place of a trial that ran out of memory: a policy around any search.

Offload does not change images, so any mode makes a reference. What takes the place of a reference or a speed baseline
takes over what that was to others.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import replace

from zbench.analysis.figures import TrialFigures
from zbench.methods.offload import in_mode
from zbench.record import Record
from zbench.search.references import WithReferences
from zbench.space import Placed, Space
from zbench.trial import Trial


class WithNextOffload:
    """Asks first for what takes the place of what did not fit, then as `WithReferences` does."""

    def __init__(
        self, search: WithReferences, wanted: Callable[[Placed], bool], added: Callable[[Trial, Trial | None], None]
    ) -> None:
        """`wanted` says of a trial out of memory whether the next offload is to be tried; `added` is told of
        each that would not come anyway."""
        self._search, self._wanted, self._added = search, wanted, added
        self._asked: dict[str, Placed] = {}
        self._given: set[tuple[str, bool]] = set()  # id, and whether only its quality was asked for
        self._next: deque[Placed] = deque()
        self.gave_way: dict[str, str] = {}
        """A trial that ran out of memory to the one that is tried in its place, by id."""

    @property
    def space(self) -> Space:
        """See `Search.space`."""
        return self._search.space

    def next_placed(self) -> Placed | None:
        """The next trial, held to its references."""
        placed = self._next.popleft() if self._next else self._search.next_placed()
        while placed is not None and _asked_as(placed) in self._given:  # it took another's place before
            placed = self._search.next_placed()
        if placed is not None:
            self._given.add(_asked_as(placed))
            self._asked[placed.trial.trial_id] = placed
        return placed

    def tell(self, record: Record, figures: TrialFigures) -> None:
        """See `Search.tell`."""
        self._search.tell(record, figures)
        placed = self.held_to_what_serves(self._asked[record.trial_id])
        if record.reason is None or record.reason.next_offload is None or not self._wanted(placed):
            return
        smaller = replace(placed.trial, offload=in_mode(placed.trial.offload, record.reason.next_offload))
        self.gave_way[record.trial_id] = smaller.trial_id
        has_a_role = placed.is_reference or placed.is_baseline
        to_come = any(other.trial.trial_id == smaller.trial_id for other in self.space.placed)
        if smaller.trial_id in self._asked or (to_come and not has_a_role):
            return
        if not to_come:
            self._added(smaller, placed.trial)
        self._next.appendleft(replace(placed, trial=smaller))  # others will be held to it, so it comes first

    def serving(self, trial_id: str) -> str:
        """The trial that serves in place of this one; itself where it did not give way."""
        while trial_id in self.gave_way:
            trial_id = self.gave_way[trial_id]
        return trial_id

    def held_to_what_serves(self, placed: Placed) -> Placed:
        """With what took the place of a reference or a baseline that did not fit."""
        return replace(
            placed, reference_id=self.serving(placed.reference_id), baseline_id=self.serving(placed.baseline_id)
        )


def _asked_as(placed: Placed) -> tuple[str, bool]:
    return placed.trial.trial_id, placed.quality_only
