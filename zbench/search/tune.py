"""Tune: from limits and an objective to the best configuration in few trials; `zbench tune` composes its space.

Example: `zbench tune --min-ssim 0.95 --budget 10min` decides in this order, each by measurement with what the one
before left: does it fit (offload), how it computes, how many devices, what is skipped. The choices are those that occur
in the space; it need not hold their combinations. Which of them were measured follows from the records alone, so a
stopped search goes on; only when a budget of seconds ends depends on a clock.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from zbench.analysis.constraints import Limits, Objective, constraints_of
from zbench.analysis.figures import TrialFigures
from zbench.analysis.work import work_key, work_names
from zbench.config import CacheConfig, ComputeConfig, ParallelConfig, SearchConfig
from zbench.errors import ConfigError
from zbench.hardware.footprint import GIB, TEXT_TOKENS, peak_device_bytes
from zbench.methods import dtypes
from zbench.record import Record
from zbench.search import Search, load_search
from zbench.search.budget import Budget, Spent, parse_budget
from zbench.search.options import options_of, refuse_storage
from zbench.search.thresholds import ThresholdOptions
from zbench.search.tune_decide import Batches, Decider, TuneChoices, in_order_of_moving
from zbench.search.tune_judge import Judge, Told
from zbench.space import Space, constraint
from zbench.trial import Trial, geometry_of

OWN_SKIPS = "bisect"
SKIPS = {"thresholds": ("zbench.search.thresholds:ThresholdSearch", tuple(ThresholdOptions.__dataclass_fields__))}
"""Searches that may decide what is skipped, by what `search.options.skips` calls them: the class, and which of tune's
limits it takes as options of its own."""

T = TypeVar("T")

Predict = Callable[[Trial], float | None]
"""A trial's peak device memory in GiB; None where nobody can say."""


@dataclass(frozen=True)
class TuneOptions(Limits):
    """`search.options` of tune."""

    objective: Objective = "latency"
    budget: str | int | None = None  # 10min, 600s, or a number of trials
    skips: str = OWN_SKIPS  # what decides what is skipped: bisect, thresholds, or module:Class of zbench


@dataclass(frozen=True)
class WorkStory:
    """What was decided for one piece of work, and what it left."""

    work: str
    key: str  # `work_key` of its trials
    decider: Decider
    ended: bool  # all was decided; False where the budget or a stop ended it


class TuneSearch:
    """See `Search`."""

    def __init__(
        self,
        space: Space,
        config: SearchConfig,
        *,
        predict: Predict | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises ConfigError for options that cannot be meant, and for work that seeks a rate."""
        refuse_storage(config)
        options = options_of(config, TuneOptions)
        if config.n_trials is not None:
            raise ConfigError("search.n_trials", config.n_trials, "tune takes --budget, in trials or in minutes")
        if config.seed:
            raise ConfigError("search.seed", config.seed, "tune draws nothing; leave it out")
        self.options, self.budget = options, parse_budget(options.budget, "--budget")
        self._judge = Judge(constraints_of(options), options.objective)
        self._clock, self._seen_at = clock, clock()
        self._seconds, self._warm = list[float](), list[float]()
        self._deciders = self._made(space, predict or predicted_gib)
        self.space = self._known(space)
        self._batches: list[Batches] = [decider.batches() for decider in self._deciders.values()]
        self._waiting: list[Trial] = []  # of a batch, not asked for yet
        self._pending: set[str] = set()  # asked for and not told
        self._at = 0
        self._ended: set[int] = set()
        self.ran_out = False

    def ask(self) -> Trial | None:
        """See `Search.ask`."""
        while not self._waiting and not self._pending and self._at < len(self._batches):
            try:
                self._waiting = list(next(self._batches[self._at]))
            except StopIteration:
                self._ended.add(self._at)
                self._at += 1
        if not self._waiting:
            return None
        if self._seconds and not self.spent.leaves(self.budget, (self._at + 1) / len(self._batches)):
            self.ran_out, self._waiting = True, []  # within a budget a batch is one trial, so none of it is out
            self._at += 1
            return self.ask()
        wanted = self._waiting.pop(0)
        self._pending.add(wanted.trial_id)
        return wanted

    def tell(self, record: Record, figures: TrialFigures) -> None:
        """See `Search.tell`. What a trial took is what its record says, or the time since the one before, if longer."""
        now = self._clock()
        if record.state != "PRUNED":
            self._seconds.append(max(recorded_s(record), now - self._seen_at - waited_s(record)))
            self._warm.append(recorded_s(record, cold=False))
        self._seen_at = now
        self._pending.discard(record.trial_id)
        told = Told(record.trial, record, figures)
        decider = self._deciders.get(work_key(told.trial))
        if decider is not None:
            decider.told[record.trial_id] = told

    @property
    def spent(self) -> Spent:
        """Of the budget."""
        seconds = self._seconds
        return Spent(len(seconds), sum(seconds), statistics.median(self._warm) if seconds else 0.0)

    @property
    def stories(self) -> list[WorkStory]:
        """What was decided for each piece of work."""
        names = work_names([decider.choices.base for decider in self._deciders.values()])
        pairs = enumerate(zip(names, self._deciders.items(), strict=True))
        return [WorkStory(name, key, decider, place in self._ended) for place, (name, (key, decider)) in pairs]

    def _made(self, space: Space, predict: Predict) -> dict[str, Decider]:
        """A decider for each piece of work, by its key."""
        asked: dict[str, list[tuple[Trial, str | None]]] = {}
        for placed in space.placed:
            if placed.trial.trial_id in space.asked:
                asked.setdefault(work_key(placed.trial), []).append((placed.trial, None))
        for placed, why in space.pruned:
            asked.setdefault(work_key(placed.trial), []).append((placed.trial, why))
        found: dict[str, Decider] = {}
        for place, (key, pairs) in enumerate(asked.items()):
            if pairs[0][0].workload.seeks_rate:
                problem = "tune finds no rates; give workload.rate_per_s, or take search=grid"
                raise ConfigError("workload.arrivals", pairs[0][0].workload.arrivals, problem)
            choices, not_tried = _choices(pairs, space)
            limits = (self.options.max_vram_gib, choices.base.memory_gib)
            limit_gib = min((limit for limit in limits if limit is not None), default=None)
            leaves = partial(self._leaves, place, len(asked))
            inner = self._inner()
            found[key] = Decider(
                choices,
                self._judge,
                limit_gib,
                predict,
                inner,
                space,
                leaves,
                is_limited=self.budget != Budget(),
                not_tried=not_tried,
            )
        return found

    def _leaves(self, place: int, works: int, share: float) -> bool:
        """Whether one more trial may begin within a share of what the work at `place` of so many has."""
        return self.spent.leaves(self.budget, (place + share) / works)

    def _inner(self) -> Callable[[Space], Search] | None:
        """Makes the search that decides what is skipped. Raises ConfigError for one that there is not."""
        named = self.options.skips
        if named == OWN_SKIPS:
            return None
        if named not in SKIPS and not named.startswith("zbench."):
            known = ", ".join((OWN_SKIPS, *SKIPS))
            raise ConfigError("search.options.skips", named or "''", f"must be one of {known}, or a class of zbench's")
        target, takes = SKIPS.get(named, (named, ()))
        options = {name: getattr(self.options, name) for name in takes}
        return lambda space: load_search(SearchConfig(name=named, target=target, options=options), space)

    def _known(self, space: Space) -> Space:
        """What is sure to come: what the works are held to; and one of those that cannot work for each reason."""
        held_to = {trial_id for placed in space.placed for trial_id in (placed.reference_id, placed.baseline_id)}
        pruned = {why: (placed, why) for placed, why in reversed(space.pruned)}
        placed = tuple(each for each in space.placed if each.trial.trial_id in held_to)
        return replace(space, placed=placed, pruned=tuple(reversed(pruned.values())))


def predicted_gib(trial: Trial) -> float | None:
    """By `hardware.footprint`; None on a CPU, which has no device memory to fit into."""
    if trial.compute.device == "cpu" and trial.hardware is None:
        return None
    dtype_bytes = dtypes.dtype_on("cuda", trial.compute.dtype).nbytes
    return peak_device_bytes(trial, geometry_of(trial.pipeline), dtype_bytes, TEXT_TOKENS) / GIB


def recorded_s(record: Record, *, cold: bool = True) -> float:
    """What a trial took, as far as its record says: warm-up and window, and with `cold` loading and its first call."""
    measured = record.measurement
    if measured is None:
        return 0.0
    paid_s = (measured.cold.load_s or 0.0) + (measured.cold.first_latency_s or 0.0) + (measured.cold.compile_s or 0.0)
    wall_s = measured.window.wall_s
    if wall_s is None:
        wall_s = sum(request.latency_s for request in measured.requests)
    return (paid_s if cold else 0.0) + sum(measured.warmup_latencies_s) + wall_s


def waited_s(record: Record) -> float:
    """How long it waited for its turn on the device, which is nobody's budget."""
    turn = None if record.measurement is None else record.measurement.window.turn
    return 0.0 if turn is None else turn.waited_s or 0.0


def _choices(pairs: Sequence[tuple[Trial, str | None]], space: Space) -> tuple[TuneChoices, dict[str, str]]:
    """The choices of a work's trials. One whose every trial cannot work, for more than what goes with it, is none."""
    not_tried: dict[str, str] = {}
    usable: list[Trial] = []
    for trial, why in pairs:
        excluded = why is not None and (
            trial.trial_id in space.equal_to or constraint(trial, geometry_of(trial.pipeline)) is None
        )
        if excluded and why is not None:
            not_tried[trial.label] = why
        else:
            usable.append(trial)
    usable = usable or [pairs[0][0]]
    caches = _each(usable, lambda trial: trial.cache)
    computes, parallels = _each(usable, lambda t: t.compute), _each(usable, lambda t: t.parallel)
    offloads = in_order_of_moving(_each(usable, lambda t: t.offload))
    base = replace(usable[0], compute=computes[0], parallel=parallels[0], offload=offloads[0], cache=CacheConfig())
    made = TuneChoices(base, offloads, _plain_first(computes), _single_first(parallels), caches)
    return replace(made, base=replace(base, compute=made.computes[0], parallel=made.parallels[0])), not_tried


def _each(trials: Sequence[Trial], of: Callable[[Trial], T]) -> tuple[T, ...]:
    found: list[Any] = []
    for trial in trials:
        value: Any = of(trial)
        bare = replace(value, grid={}) if hasattr(value, "grid") else value
        if bare not in found:
            found.append(bare)
    return tuple(found)


def _plain_first(computes: Sequence[ComputeConfig]) -> tuple[ComputeConfig, ...]:
    """What is nothing but the defaults begins: it is measured as the reference anyway."""
    return tuple(sorted(computes, key=lambda c: c != ComputeConfig(device=c.device)))


def _single_first(parallels: Sequence[ParallelConfig]) -> tuple[ParallelConfig, ...]:
    return tuple(sorted(parallels, key=lambda p: p != ParallelConfig()))
