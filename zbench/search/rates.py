"""The highest rate of arrivals that meets an objective: a policy around any search, by bisection.

Example: `zbench sweep workload=rates cache=none,dbcache` finds one rate for each of the two. A trial that seeks a rate
is not run itself. First comes the same work one request after another: what that takes says about how many requests a
second can be served, and it is what images are judged against. From half of that, rates are doubled or halved until one
meets the objective and one does not, and then the gap between the two is bisected.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from zbench.analysis.figures import TrialFigures
from zbench.analysis.metrics import REGISTRY
from zbench.analysis.serving import serving_figures
from zbench.config.arrivals import MOST_REQUESTS
from zbench.record import Record
from zbench.search import Foresight, OnlyQuality, Search, foresight_of, held_out_for, parts_of, remarks_of
from zbench.space import Placed, Space
from zbench.trial import Trial
from zbench.workload import one_after_another, request_count

CLOSE = 1.1
"""A rate that meets the objective and one that does not are close enough where they are this many times apart."""

LEAST_SHARE = 1 / 64
"""Of what can be served one after another: below it no rate is tried."""

MOST_LOADS = 16
"""Rates that are tried of one trial."""

FLOOD = 2
"""So many times the requests over what one takes alone: at that rate all are as good as at once, and no higher rate is
another load."""


class FindRates:
    """See `Search`. What the search within asks for and seeks no rate is asked for as it is."""

    def __init__(self, search: Search) -> None:
        self._search = search
        self._open: list[RateHunt] = []
        self._asked: set[str] = set()
        self._told: dict[str, Record] = {}

    @property
    def space(self) -> Space:
        """See `Search.space`: in place of each trial that seeks a rate, the same one request after another."""
        return without_load(self._search.space)

    @property
    def remarks(self) -> Sequence[str]:
        """See `Telling.remarks`."""
        return remarks_of(self._search)

    @property
    def foresight(self) -> Foresight:
        """See `search.foresight_of`: how many rates are tried depends on what comes of them."""
        return Foresight(foresight_of(self._search).least, None)

    @property
    def parts(self) -> Mapping[str, str]:
        """See `search.parts_of`."""
        return parts_of(self._search)

    @property
    def held_out_for(self) -> Mapping[str, Sequence[str]]:
        """See `search.held_out_for`."""
        return held_out_for(self._search)

    def ask(self) -> Trial | OnlyQuality | None:
        """See `Search.ask`."""
        while True:
            for hunt in self._open:
                wanted = hunt.next_trial(self._told)
                if wanted is not None and wanted.trial_id not in self._asked:
                    self._asked.add(wanted.trial_id)
                    return wanted
            asked = self._search.ask()
            if asked is None or isinstance(asked, OnlyQuality):
                return asked
            if asked.workload.seeks_rate:
                self._open.append(RateHunt(asked))
            elif asked.trial_id not in self._asked:
                self._asked.add(asked.trial_id)
                return asked

    def tell(self, record: Record, figures: TrialFigures) -> None:
        """See `Search.tell`."""
        self._told[record.trial_id] = record
        self._search.tell(record, figures)


@dataclass
class RateHunt:
    """The rates of one trial that have been tried, and which comes next."""

    seeking: Trial
    rates_per_s: list[float] = field(default_factory=list)

    def next_trial(self, told: dict[str, Record]) -> Trial | None:
        """The one whose outcome is needed now; it may be running. None: nothing more is to be known."""
        alone = unloaded(self.seeking)
        if alone.trial_id not in told:
            return alone
        latency_s = _median_latency_s(told[alone.trial_id])
        objective_s = self.seeking.workload.latency_objective_s
        if latency_s is None or objective_s is None:
            return None
        met: list[float] = []
        unmet: list[float] = []
        for rate_per_s in self.rates_per_s:
            record = told.get(self._at(rate_per_s).trial_id)
            if record is None:
                return self._at(rate_per_s)
            (met if _meets(record) else unmet).append(rate_per_s)
        following = next_rate(met, unmet, 1 / latency_s, request_count(self.seeking.workload))
        in_vain = bool(unmet) and latency_s > objective_s  # even one request alone takes longer
        if following is None or following in self.rates_per_s or in_vain:
            return None
        self.rates_per_s.append(following)
        return self._at(following)

    def _at(self, rate_per_s: float) -> Trial:
        return replace(self.seeking, workload=replace(self.seeking.workload, rate_per_s=rate_per_s))


def next_rate(met: list[float], unmet: list[float], alone_per_s: float, requests: int) -> float | None:
    """The rate to try after those that met the objective and those that did not; None where they are close enough.

    `alone_per_s` is how many are served a second, one after another; a load is of `requests`.
    """
    if len(met) + len(unmet) >= MOST_LOADS:
        return None
    if not met and not unmet:
        return _readable(min(alone_per_s / 2, MOST_REQUESTS))
    if not unmet:
        highest_per_s = min(FLOOD * requests * alone_per_s, MOST_REQUESTS)
        return _readable(min(max(met) * 2, MOST_REQUESTS)) if max(met) < highest_per_s else None
    if not met:
        lower = min(unmet) / 2
        return _readable(lower) if lower >= alone_per_s * LEAST_SHARE else None
    low, high = max(met), min(unmet)
    return None if high <= low * CLOSE else _readable((low * high) ** 0.5)


def without_load(space: Space) -> Space:
    """`space` with the same work one request after another in place of what seeks a rate.

    Whatever rate is tried is held to that: its images are judged against those made without load.
    """
    seeking = {p.trial.trial_id for p in space.placed if p.trial.workload.seeks_rate}
    if not seeking:
        return space

    def held_to(trial: Trial) -> tuple[Trial, Trial]:
        template = replace(trial, workload=replace(trial.workload, rate_per_s=None))
        return space.held_to(unloaded(trial) if template.trial_id in seeking else trial)

    placed: dict[str, Placed] = {}
    asked = set(space.asked - seeking)
    for each in space.placed:
        if each.trial.trial_id not in seeking:
            placed.setdefault(each.trial.trial_id, each)
            continue
        alone = unloaded(each.trial)
        reference, baseline = space.held_to(alone)
        for one in (reference, baseline, alone):
            placed.setdefault(one.trial_id, Placed(one, reference.trial_id, baseline.trial_id))
        asked |= {alone.trial_id} if each.trial.trial_id in space.asked else set()
    return Space(tuple(placed.values()), space.pruned, frozenset(asked), space.equal_to, held_to)


def unloaded(trial: Trial) -> Trial:
    """The same, one request after another."""
    return replace(trial, workload=one_after_another(trial.workload))


def _readable(rate_per_s: float) -> float:
    """Three digits, which is finer than any that is told apart."""
    return float(f"{rate_per_s:.3g}")


def _median_latency_s(record: Record) -> float | None:
    measured = record.valid_measurement
    return None if measured is None else REGISTRY["latency.median"].read(measured)


def _meets(record: Record) -> bool:
    """A trial that failed under its load did not."""
    measured = record.valid_measurement
    found = None if measured is None else serving_figures(measured)
    return found is not None and bool(found.meets_objective)
