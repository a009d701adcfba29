"""Searches: which trials of a space are tried, in which order. This module has their protocol and loads them by name.

A new search is one module with a class that fits `Search`, and one line `target: module:Class` in `conf/search/`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from zbench.analysis.figures import TrialFigures
from zbench.config import SearchConfig
from zbench.plugins import FromOutside, check_permitted, load_object
from zbench.record import Record
from zbench.space import Space
from zbench.trial import Trial


@dataclass(frozen=True)
class OnlyQuality:
    """What a search asks for where it wants a trial's images judged and nothing timed: `measure.quality_only` for it.

    The same trial may be asked for once more as it is, to be timed. A timed record serves both.
    """

    trial: Trial


Asked = Trial | OnlyQuality
"""What a search may ask for."""


class Search(Protocol):
    """Asked for trials and told what came of them, while a sweep runs. Made with a Space and a SearchConfig.

    It never changes what a trial is, and decides by the space, its config and what it was told alone.
    """

    @property
    def space(self) -> Space:
        """What it may ask for, and what it leaves out with the reason, as far as it knows before anything has run.

        What it leaves out by what it was told comes at the end of `pruned`.
        """
        ...

    def ask(self) -> Asked | None:
        """The next trial, of the space or made anew, or only its quality. None: nothing more, at least until it is told
        something.

        It is asked for no more than there is room to run. What a trial is held to is measured before it, whether the
        search asks for that or not. Asked for twice, a trial is an error.
        """
        ...

    def tell(self, record: Record, figures: TrialFigures) -> None:
        """What came of a trial, measured now or before: of all that were asked for, of what those are held to, and of
        what took the place of one that ran out of memory."""
        ...


class Telling(Protocol):
    """What a search may be too: one that says what it is about, and what it found."""

    @property
    def remarks(self) -> Sequence[str]:
        """Sentences for the user: those that it has before anything has run first, others at the end as they come."""
        ...


def remarks_of(search: Search) -> Sequence[str]:
    """What a search says by now."""
    said: Sequence[str] = getattr(search, "remarks", ())
    return said


@dataclass(frozen=True)
class Foresight:
    """How many trials a search takes, what they are held to included, as far as that is known before anything runs."""

    least: int
    most: int | None  # None: nobody knows

    def __post_init__(self) -> None:
        """Raises ValueError for a range that is none."""
        if self.least < 0 or (self.most is not None and self.most < self.least):
            raise ValueError(f"least={self.least}, most={self.most}: must be 0 or more, and no more than the most")

    @property
    def is_exact(self) -> bool:
        """Whether it is known how many."""
        return self.least == self.most


class Foreseeing(Protocol):
    """What a search may be too: one that knows how many trials it takes."""

    @property
    def foresight(self) -> Foresight:
        """What is known of that before anything runs."""
        ...


UNFORESEEN = Foresight(0, None)
"""Of a search from outside that does not say: it may try less than its space lists, and trials that are not there."""


def foresight_of(search: Search) -> Foresight:
    """How many trials a search takes, as far as it says. One of zbench's own that does not say takes at least those
    that it lists."""
    untold = UNFORESEEN if isinstance(search, FromOutside) else Foresight(len(search.space.placed), None)
    found: Foresight = getattr(search, "foresight", untold)
    return found


def waits_itself(search: Search) -> bool:
    """Whether a search of zbench's own gives None until it was told what it decides by, and says so. Then it may be
    asked for trials before others are told, so that they take turns; any other is asked when there is room."""
    return getattr(search, "waits_itself", False) is True


def asks_ahead(search: Search) -> bool:
    """Whether a search may be asked for trials before others are told, so that they take turns: it decides by nothing
    that it is told, or waits for that itself."""
    from zbench.search.grid import GridSearch  # which knows this module

    kind = type(search)  # one from outside comes in a wrapper, which has neither method
    is_grid = isinstance(search, GridSearch) and (kind.ask, kind.tell) == (GridSearch.ask, GridSearch.tell)
    return is_grid or waits_itself(search)


def parts_of(search: Search) -> Mapping[str, str]:
    """Work that a search of zbench's own makes and nobody asked for, on some of the samples or on others, to the work
    that it is for: both by `analysis.work.work_key`."""
    found: Mapping[str, str] = getattr(search, "parts", {})
    return found


def held_out_for(search: Search) -> Mapping[str, Sequence[str]]:
    """Work that was asked for, and whose samples a search of zbench's own holds out of other works too, to these: all
    by `analysis.work.work_key`."""
    found: Mapping[str, Sequence[str]] = getattr(search, "held_out_for", {})
    return found


def load_search(config: SearchConfig, space: Space, *, allow_code: bool = False) -> Search:
    """A search from `search.target`, made with the space and the config; around it, what finds the rates it asks for.

    Raises ConfigError as `load_object` does.
    """
    from zbench.search.rates import FindRates  # a policy, which knows this module

    search: Search = load_object(
        "search",
        "search.target",
        config.target,
        Search,
        lambda found: found(space, config),
        optional=(Telling, Foreseeing),
        allow_code=allow_code,
    )
    return FindRates(search) if any(p.trial.workload.seeks_rate for p in space.placed) else search


class Preview(NamedTuple):
    """What a search will choose of a space, as far as that is known before anything has run."""

    space: Space
    remarks: Sequence[str]
    foresight: Foresight
    asks_ahead: bool


def preview(config: SearchConfig, space: Space, *, allow_code: bool = False) -> Preview:
    """What a search will choose of a space. One from outside zbench is not asked: all of the space may come."""
    place = check_permitted("search", "search.target", config.target, allow_code=allow_code)
    from zbench.search.rates import without_load

    if not place.is_own:
        return Preview(without_load(space), (), UNFORESEEN, asks_ahead=False)
    search = load_search(config, space)
    return Preview(search.space, remarks_of(search), foresight_of(search), asks_ahead(search))
