"""Which trials of a sweep take turns in one window, and with which uncached trial; it runs nothing.

Example: of `compute=eager,compiled cache=none,dbcache` the eager DBCache settings take turns with the eager uncached
trial, four at a time, and the compiled ones with the compiled uncached one. Both are measured in the window of the
first of theirs, and have none of their own. Those that cannot be paired have: other references and baselines,
projections, loads, and what its engine launches anew for each cache setting.
"""

from collections.abc import Callable, Collection, Iterable

from zbench.engines import Descriptions
from zbench.executors import Completed, Disrupted, Done, Failed, Stopped, TaskResult
from zbench.record import MACHINE, Reason
from zbench.search import Search, asks_ahead, waits_itself
from zbench.space import Placed
from zbench.sweeper.beside import may_begin_a_block, uncached_beside
from zbench.trial import Trial

MOST_A_BLOCK, FEWEST_A_BLOCK = 4, 3
"""Settings to one uncached trial: it then costs about a quarter of what they do, a third at most where there are so
many."""


ALONE = ("reading the task", "loading", "cache configuration", "warm-up rounds")
"""Stages of the first of a block before any other is configured: what fails there would fail alone too."""


class Blocks:
    """Of one sweep."""

    def __init__(self, search: Search, engines: Descriptions, *, paired: bool, begin: bool = True) -> None:
        """`paired`: whether it is wanted, and workers can. `begin`: whether what is compared with may begin a block."""
        self._engines, self._paired = engines, paired
        self._space = search.space
        self._unpaired: set[str] = set()
        self._processes: dict[str, str] = {}
        self._to_come: dict[str, list[str]] = {}  # ids by process; the next one is the last
        self._waits_itself = waits_itself(search)
        self.asks_ahead = asks_ahead(search)
        """Whether trials may be asked for before others are told."""
        self._begin = paired and begin and self.asks_ahead
        found = (placed.trial.trial_id for placed in self._space.placed if may_begin_a_block(placed))
        self.may_begin = frozenset(found if self._begin else ())
        """Ids of trials of the sweep that may begin a block, if others are compared with them."""

    def process(self, trial: Trial) -> str:
        """What must be equal for one process to serve two trials."""
        if trial.trial_id not in self._processes:
            self._processes[trial.trial_id] = self._engines.process(trial)
        return self._processes[trial.trial_id]

    def companion(self, placed: Placed, baseline: Trial, has_failed: Callable[[str], bool]) -> Trial | None:
        """The uncached trial of the same loaded pipeline, with which `placed` takes turns; None: it has none.

        See `uncached_beside`. `has_failed` says so of a trial's id.
        """
        if not self._paired or placed.trial.trial_id in self._unpaired:
            return None
        found = uncached_beside(placed, baseline, self._engines, self.process)
        return None if found is None or has_failed(found.trial_id) else found

    def begins_with(self, placed: Placed) -> bool:
        """Whether a baseline, or an uncached trial, is measured in its first block, in which others take turns with it.
        Where tasks run side by side it is alone, so that all devices are soon in use; so it is where its images are to
        be sent elsewhere."""
        trial = placed.trial
        if not self._begin or trial.trial_id in self._unpaired or not may_begin_a_block(placed):
            return False
        return placed.is_baseline or self._engines.uncached(trial).trial_id == trial.trial_id

    def goes_on(self, first: Placed, last: Placed | None, came: Collection[str]) -> bool:
        """Whether more may be asked for to take turns with `first`, where `last` came last (None: nothing yet), and
        trials of these ids `came` by now: as long as others of its process are to come. Where it is not known what will
        come, the next one, and the one after references and baselines."""
        if not self.asks_ahead or self._waits_itself:
            return self.asks_ahead and (last is None or last.is_reference or last.is_baseline)
        if not self._to_come:
            for placed in reversed(self._space.placed):
                self._to_come.setdefault(self.process(placed.trial), []).append(placed.trial.trial_id)
        left = self._to_come.get(self.process(first.trial), [])
        while left and left[-1] in came:
            left.pop()
        return bool(left)

    def results(self, done: Done) -> tuple[TaskResult, ...]:
        """Of a task's settings. Those whose companion failed in its turn are measured alone from now on. So is the
        first of a block that others are compared with, where it or another failed; if it failed after others were
        configured, it is measured again, as it might not have failed alone. Beside one whose images are none others are
        measured anew, without it."""
        settings, results = done.task.settings, done.results
        first = results[0]
        if done.task.compares_with_first and isinstance(first, Completed) and first.measurement.image_fault:
            return first, *(Disrupted() if isinstance(each, Completed) else each for each in results[1:])
        if all(isinstance(result, Disrupted) for result in results):
            self.without_companion(setting.trial.trial_id for setting in settings)
        elif done.task.compares_with_first and not all(isinstance(each, Completed | Stopped) for each in results):
            self.without_companion([settings[0].trial.trial_id])
            if isinstance(first, Failed) and first.reason.code != MACHINE and not _alone(first.reason):
                return Disrupted(), *results[1:]
        return results

    def without_companion(self, trial_ids: Iterable[str]) -> None:
        """They are measured alone from now on, for instance as their companion failed in its turn."""
        self._unpaired |= set(trial_ids)

    def size(self, trial: Trial, begun: Collection[str], room: int) -> int:
        """How many trials the block of `trial` is to have, of those of its process that have not begun: as equal as
        can be, MOST_A_BLOCK at most, and a block for each task that the executor has `room` for."""
        if not self.asks_ahead:
            return 1
        if self._waits_itself:  # how many will come is not known
            return MOST_A_BLOCK
        left = sum(
            1
            for placed in self._space.placed
            if placed.trial.trial_id not in begun
            and placed.trial.hardware is None
            and self.process(placed.trial) == self.process(trial)
        )
        blocks = max(blocks_of(left), min(room, left), 1)
        return max(1, -(-left // blocks))


def _alone(reason: Reason) -> bool:
    """Whether the first of a block failed before any other was configured; of stages some have parts."""
    return reason.stage is not None and reason.stage.partition(",")[0] in ALONE


def blocks_of(trials: int) -> int:
    """How many blocks so many trials of one process are: MOST_A_BLOCK a block at most, but one of five, for of two
    one would have fewer than FEWEST_A_BLOCK."""
    return max(1, min(-(-trials // MOST_A_BLOCK), trials // FEWEST_A_BLOCK))
