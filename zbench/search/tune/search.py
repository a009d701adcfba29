"""Tune: from limits and an objective to the best configuration in few trials; `zbench tune` composes its space.

Example: `zbench tune --min-ssim 0.95 --budget 10min` decides in this order, each by measurement with what the one
before left: does it fit (offload), how it computes, how many devices, what is skipped. The choices are those that occur
in the space; it need not hold their combinations. Which of them were measured follows from the records alone, so a
stopped search goes on; only when a budget of seconds ends depends on a clock.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from zbench.analysis.constraints import Limits, constraints_of
from zbench.analysis.figures import TrialFigures
from zbench.analysis.objectives import Objective
from zbench.analysis.work import work_key, work_names
from zbench.config import CacheConfig, ComputeConfig, ParallelConfig, SearchConfig
from zbench.decode import Count
from zbench.errors import ConfigError
from zbench.hardware.footprint import GIB, TEXT_TOKENS, peak_device_bytes
from zbench.methods import dtypes
from zbench.record import Record
from zbench.search import Asked, OnlyQuality, Search, load_search
from zbench.search.held_out import held_out, parts_and_typed
from zbench.search.options import options_of, refuse_storage
from zbench.search.thresholds.search import ThresholdOptions
from zbench.search.tune.budget import Budget, Ledger, Paid, Spent, Want, parse_budget
from zbench.search.tune.decide import Batches, Decider, Inner, Room, TuneChoices, computed_as, trial_of
from zbench.search.tune.fit import Fitting, Predict, in_order_of_moving
from zbench.search.tune.inner import by_masks, by_search, masked_settings, space_of
from zbench.search.tune.judge import Judge, Told
from zbench.search.tune.order import decisions
from zbench.space import Space, constraint
from zbench.trial import Trial, geometry_of, unsharded
from zbench.workload import pairs

OWN_SKIPS = "bisect"
MASKS = "masks"
SKIPS: dict[str, tuple[str, tuple[str, ...]]] = {
    "thresholds": ("zbench.search.thresholds.search:ThresholdSearch", tuple(ThresholdOptions.__dataclass_fields__)),
    MASKS: ("zbench.search.masks.search:MaskSearch", ()),
}
"""Searches that may decide what is skipped, by what `search.options.skips` calls them: the class, and which of tune's
limits it takes as options of its own."""

OF_MASKS: dict[str, Any] = {"holdout_seeds": []}
"""Options of the search over masks: what tune finds is validated by tune itself."""

SHARE_OF_MASKS = 0.8
"""Of the budget that is left, what judging masks may take: the rest times the best, and validates it."""

T = TypeVar("T")


@dataclass(frozen=True)
class TuneOptions(Limits):
    """`search.options` of tune."""

    objective: Objective = "latency"
    budget: str | int | None = None  # 10min, 600s, or a number of trials
    skips: str = OWN_SKIPS  # what decides what is skipped: bisect, thresholds, masks, or module:Class of zbench
    holdout_seeds: list[Count] | None = None  # null: those that follow; []: the workload's own, or nothing is held out
    holdout_prompts: str | None = None  # a file as workload.prompts_file is; null: the workload's own prompts


@dataclass(frozen=True)
class WorkStory:
    """What was decided for one piece of work, and what it left."""

    work: str
    decider: Decider
    ended: bool  # all was decided; False where the budget put something off, or a stop ended it


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
        self._ledger = Ledger(self.budget)
        self._by_work: dict[str, list[Decider]] = {}  # by `work_key`: whose it is, and who holds it out
        self._deciders = self._made(space, predict or predicted_gib)
        self.space = self._known(space)
        self._batches: list[Batches] = [decisions(decider) for decider in self._deciders]
        self._waiting: list[Asked] = []  # of a batch, not asked for yet
        self._pending: set[str] = set()  # asked for and not told
        self._at = 0

    def ask(self) -> Asked | None:
        """See `Search.ask`."""
        while not self._waiting and not self._pending and self._at < len(self._batches):
            try:
                self._waiting = list(next(self._batches[self._at]))
            except StopIteration:
                self._at += 1
        if not self._waiting:
            return None
        wanted = self._waiting.pop(0)
        self._pending.add(trial_of(wanted).trial_id)
        return wanted

    def tell(self, record: Record, figures: TrialFigures) -> None:
        """See `Search.tell`. What a trial took is what its record says, or the time since the one before, if longer."""
        now = self._clock()
        told = Told(record.trial, record, figures)
        if record.state != "PRUNED":
            self._ledger.paid.append(paid_for(told, now - self._seen_at - waited_s(record)))
        self._seen_at = now
        self._pending.discard(record.trial_id)
        for decider in self._by_work.get(work_key(told.trial), ()):
            decider.tell(told)

    @property
    def spent(self) -> Spent:
        """Of the budget."""
        return self._ledger.spent

    @property
    def ran_out(self) -> bool:
        """Whether the budget ended it."""
        return any(decider.left for decider in self._deciders)

    @property
    def least_left_s(self) -> float | None:
        """What the shortest trial that the budget put off is expected to take."""
        left = [each.wanted for decider in self._deciders for each in decider.left]
        return min((self._ledger.expected_s(want_of(wanted)) for wanted in left), default=None)

    @property
    def stories(self) -> list[WorkStory]:
        """What was decided for each piece of work."""
        names = work_names([decider.choices.base for decider in self._deciders])
        return [
            WorkStory(name, decider, place < self._at and not decider.left)
            for place, (name, decider) in enumerate(zip(names, self._deciders, strict=True))
        ]

    def _made(self, space: Space, predict: Predict) -> list[Decider]:
        """A decider for each piece of work."""
        asked: dict[str, list[tuple[Trial, str | None]]] = {}
        for placed in space.placed:
            if placed.trial.trial_id in space.asked:
                asked.setdefault(work_key(placed.trial), []).append((placed.trial, None))
        for placed, why in space.pruned:
            asked.setdefault(work_key(placed.trial), []).append((placed.trial, why))
        found: list[Decider] = []
        limited = self.budget != Budget()
        for place, (key, trials) in enumerate(asked.items()):
            if trials[0][0].workload.seeks_rate:
                problem = "tune finds no rates; give workload.rate_per_s, or take search=grid"
                raise ConfigError("workload.arrivals", trials[0][0].workload.arrivals, problem)
            room = Room(partial(self._leaves, place, len(asked)), limited)
            decider = self._decider(trials, space, predict, room)
            found.append(decider)
            self._by_work.setdefault(key, []).append(decider)
            if decider.held_out is not None:
                others = replace(decider.choices.base, workload=decider.held_out)
                self._by_work.setdefault(work_key(others), []).append(decider)
        return found

    @property
    def parts(self) -> dict[str, str]:
        """See `search.parts_of`: the samples held out, where they are nobody's own work."""
        return self._held_out[0]

    @property
    def held_out_for(self) -> dict[str, list[str]]:
        """See `search.held_out_for`: those that are."""
        return self._held_out[1]

    @property
    def _held_out(self) -> tuple[dict[str, str], dict[str, list[str]]]:
        bases = [decider.choices.base for decider in self._deciders]
        own = {work_key(base) for base in bases}
        held = [(decider.held_out, base) for decider, base in zip(self._deciders, bases, strict=True)]
        pairs = (
            (work_key(replace(base, workload=others)), work_key(base)) for others, base in held if others is not None
        )
        return parts_and_typed(pairs, own)

    def _decider(
        self, trials: Sequence[tuple[Trial, str | None]], space: Space, predict: Predict, room: Room
    ) -> Decider:
        """Of one piece of work. Raises ConfigError for samples held out that are none, and as its inner search does."""
        choices, not_tried = _choices(trials, space)
        options = self.options
        limits = (options.max_vram_gib, choices.base.memory_gib)
        limit_gib = min((limit for limit in limits if limit is not None), default=None)
        others = None
        if not choices.base.workload.is_load:
            others = held_out(choices.base, options.holdout_seeds, options.holdout_prompts)
        return Decider(
            choices,
            self._judge,
            Fitting(choices.offloads, limit_gib, predict, not_tried),
            self._inner(choices, space),
            space,
            room,
            others,
            not_tried=not_tried,
        )

    def _leaves(self, place: int, works: int, wants: Sequence[Asked], share: float, aside: Sequence[Asked]) -> bool:
        """Whether these may begin within a share of what the work at `place` of so many has; something always may."""
        if not self._ledger.paid:
            return True
        ahead, behind = ([want_of(each) for each in some] for some in (wants, aside))
        return self._ledger.leaves(ahead, (place + share) / works, behind)

    def _inner(self, choices: TuneChoices, space: Space) -> Inner | None:
        """What decides what is skipped, where that is not tune itself. Raises ConfigError for what there is not, and as
        that search does for what it cannot do."""
        named = self.options.skips
        if named == OWN_SKIPS:
            return None
        if named not in SKIPS and not named.startswith("zbench."):
            known = ", ".join((OWN_SKIPS, *SKIPS))
            raise ConfigError("search.options.skips", named or "''", f"must be one of {known}, or a class of zbench's")
        target, takes = SKIPS.get(named, (named, ()))
        options = {name: getattr(self.options, name) for name in takes}
        if named != MASKS:
            return by_search(lambda space: load_search(SearchConfig(name=named, target=target, options=options), space))

        def masks(space: Space) -> Search:
            trials = [placed.trial for placed in space.placed]
            left = [self._ledger.fitting_in(want_of(OnlyQuality(trial)), SHARE_OF_MASKS) for trial in trials]
            fits = min((each for each in left if each is not None), default=None)
            most = None if fits is None else max(1, fits // max(1, len(trials)))
            return load_search(SearchConfig(name=named, target=target, options=OF_MASKS, n_trials=most), space)

        masks(space_of(choices.base, masked_settings(choices.caches), space))  # refuses now what it cannot do
        return by_masks(masks)

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


def paid_for(told: Told, elapsed_s: float) -> Paid:
    """What a trial took: as far as its record says, or `elapsed_s`, if that is longer. What is beyond its record goes
    with loading where it loaded, else with its window."""
    process, measured = process_of(told.trial), told.record.measurement
    if measured is None:
        return Paid(process, 0.0, max(0.0, elapsed_s), 0)
    cold = measured.cold
    cold_s = (cold.load_s or 0.0) + (cold.first_latency_s or 0.0) + (cold.compile_s or 0.0)
    wall_s = measured.window.wall_s
    if wall_s is None:
        wall_s = sum(request.latency_s for request in measured.requests)
    compiled_s = min(cold.compile_s or 0.0, sum(measured.warmup_latencies_s))  # they have it in them
    warm_s = sum(measured.warmup_latencies_s) - compiled_s + wall_s
    beyond_s = max(0.0, elapsed_s - cold_s - warm_s)
    loaded = cold.load_s is not None
    calls = len(measured.requests) + len(measured.warmup_latencies_s)
    return Paid(
        process,
        cold_s + (beyond_s if loaded else 0.0),
        warm_s + (0.0 if loaded else beyond_s),
        calls,
        measured.quality_only,
    )


def want_of(asked: Asked) -> Want:
    """What a trial's time depends on."""
    trial = trial_of(asked)
    return Want(process_of(trial), len(pairs(trial.workload)), isinstance(asked, OnlyQuality))


def process_of(trial: Trial) -> str:
    """Equal where the pipeline stays loaded and compiled from one trial to the next."""
    loaded = replace(trial.pipeline, steps=0)
    return f"{loaded} {trial.engine} {trial.parallel} {trial.offload} {trial.compute}"


def waited_s(record: Record) -> float:
    """How long it waited for its turn on the device, which is nobody's budget."""
    turn = None if record.measurement is None else record.measurement.window.turn
    return 0.0 if turn is None else turn.waited_s or 0.0


def _choices(asked: Sequence[tuple[Trial, str | None]], space: Space) -> tuple[TuneChoices, dict[str, str]]:
    """The choices of a work's trials. One whose every trial cannot work, for more than what goes with it, is none."""
    not_tried: dict[str, str] = {}
    usable: list[Trial] = []
    for trial, why in asked:
        excluded = why is not None and (
            trial.trial_id in space.equal_to or constraint(trial, geometry_of(trial.pipeline)) is None
        )
        if excluded and why is not None:
            not_tried[trial.label] = why
        else:
            usable.append(trial)
    usable = usable or [asked[0][0]]
    caches = _each(usable, lambda trial: trial.cache)
    computes, parallels = _each(usable, lambda t: unsharded(t).compute), _each(usable, lambda t: t.parallel)
    offloads = in_order_of_moving(_each(usable, lambda t: t.offload))
    base = replace(usable[0], offload=offloads[0], cache=CacheConfig())
    made = TuneChoices(base, offloads, _plain_first(computes), _single_first(parallels), caches)
    return replace(made, base=computed_as(replace(base, parallel=made.parallels[0]), made.computes[0])), not_tried


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
