"""The decisions of `tune` for one piece of work, in their order, each by measurement with what the one before left.

It gives batches of trials, and goes on once each of a batch was told. So it holds nothing that the journal lacks.
"""

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from zbench.config import CacheConfig, ComputeConfig, OffloadConfig, ParallelConfig
from zbench.errors import ConfigError
from zbench.methods.cache import method_of
from zbench.methods.cache.bound import most_skips
from zbench.methods.offload import BY_NAME, MOVING_MORE
from zbench.methods.parallel import ParallelDims
from zbench.search import OnlyQuality, Search
from zbench.search.tune_judge import Factor, Judge, Told
from zbench.search.tune_skips import CLOSE, SkipFamily, Skipping, families
from zbench.space import Placed, Space, constraint
from zbench.trial import Trial, geometry_of

Batches = Generator[list[Trial], None, None]
Question = Literal["fit", "compute", "devices", "skipping", "second look"]

UNTIL: dict[Question, float] = {"compute": 0.5, "devices": 0.7}
"""Share of the budget after which a decision begins no trial, so that something is left for what is skipped."""

MORE_THAN_SEEN = 0.8
"""Another way to compute, whose images are better, may skip more than was seen: to this share of the least time."""

QUESTIONS: dict[Question, str] = {
    "fit": "does it fit",
    "compute": "how it computes",
    "devices": "how many devices",
    "skipping": "what is skipped",
    "second look": "another way to compute, with skipping",
}
"""In the order in which they are decided."""


@dataclass(frozen=True)
class TuneChoices:
    """What there is to choose from, each group's choices in the order that they were asked for."""

    base: Trial  # of the work, with the first choice of each group and no step skipped
    offloads: tuple[OffloadConfig, ...]
    computes: tuple[ComputeConfig, ...]
    parallels: tuple[ParallelConfig, ...]
    caches: tuple[CacheConfig, ...]


@dataclass(frozen=True)
class Decision:
    """One of the questions, and what was decided."""

    question: Question
    said: str  # a sentence without its end
    before: Told | None = None
    after: Told | None = None
    factor: Factor | None = None
    trials: int = 0


@dataclass
class Decider:
    """Of one piece of work. `predict` gives a trial's peak device memory in GiB, None where nobody can say; `inner`
    makes the search that decides what is skipped, None for tune's own."""

    choices: TuneChoices
    judge: Judge
    limit_gib: float | None
    predict: Callable[[Trial], float | None]
    inner: Callable[[Space], Search] | None
    space: Space
    leaves: Callable[[float], bool]  # whether one more trial may begin within a share of the budget
    is_limited: bool  # whether there is a budget
    told: dict[str, Told] = field(default_factory=dict)
    decisions: list[Decision] = field(default_factory=list)
    not_tried: dict[str, str] = field(default_factory=dict)
    _floors: dict[str, int] = field(default_factory=dict)
    _spoils_from: list[float] = field(default_factory=list)

    @property
    def baseline(self) -> Told | None:
        """What speed-ups are over; what took its place where it did not fit."""
        known = (told for told in self.told.values() if told.row.is_baseline and told.record.state == "COMPLETE")
        return next(known, None)

    @property
    def best(self) -> Told | None:
        """The cheapest that may stand."""
        return self.judge.best(list(self.told.values()), self.baseline)

    def batches(self) -> Batches:
        """Every decision."""
        base = yield from self._fit()
        if base is None:
            return
        base = yield from self._compute(base)
        base = yield from self._devices(base)
        yield from self._skipping(base)
        yield from self._second_look(base)

    def _fit(self) -> Generator[list[Trial], None, Told | None]:
        first = self.choices.base
        fitting = self._fitted(first)
        if fitting is None:  # another way to compute may need less
            others = (self._fitted(replace(first, compute=compute)) for compute in self.choices.computes)
            fitting = next((trial for trial in others if trial is not None), None)
        if fitting is None:
            self._decide("fit", f"nothing is predicted to fit into {self.limit_gib or 0:g} GiB", None, None)
            return None
        held = yield from self._measure(fitting)
        while held is not None and (following := self._moving_more(held.trial)) is not None:
            if held.trial.offload.mode == MOVING_MORE[0].name:
                break  # nothing waits, and what moves more is no faster
            other = yield from self._measure(following)
            if other is None or self.judge.best([held, other], self.baseline) is not other:
                break
            held = other
        if held is None:
            self._decide("fit", f"{fitting.label} cannot work", None, None)
            return None
        self._decide("fit", self._fit_said(held), None, held)
        return held

    def _fit_said(self, held: Told) -> str:
        if len(self.choices.offloads) == 1:
            return f"nothing to decide: offload={held.trial.offload.mode} is the one choice"
        gib = self.predict(held.trial)
        predicted = "" if gib is None or self.limit_gib is None else f"; {gib:.1f} of {self.limit_gib:g} GiB predicted"
        return f"offload={held.trial.offload.mode}{predicted}"

    def _compute(self, base: Told) -> Generator[list[Trial], None, Told]:
        computes = [c for c in self.choices.computes if c != base.trial.compute]
        if not computes:
            self._decide("compute", f"nothing to decide: {_of_compute(base.trial)} is the one choice", base, base)
            return base
        wanted = [self._fitted(replace(base.trial, compute=compute)) for compute in computes]
        tried = yield from self._measure_each([trial for trial in wanted if trial is not None], "compute")
        chosen = self.judge.best([base, *tried], self.baseline) or base
        self._decide("compute", f"{_of_compute(chosen.trial)}{self._beside([base, *tried], chosen)}", base, chosen)
        return chosen

    def _devices(self, base: Told) -> Generator[list[Trial], None, Told]:
        others = [p for p in self.choices.parallels if p != base.trial.parallel]
        if self.judge.objective != "throughput":
            for sideways in [p for p in others if ParallelDims.of(p).dp > 1]:
                label = replace(base.trial, parallel=sideways).label
                self.not_tried[label] = f"makes images side by side, and --objective {self.judge.objective} is of one"
                others.remove(sideways)
        if not others:
            count = ParallelDims.of(base.trial.parallel).devices
            one = "one device: nothing to decide" if count == 1 else f"nothing to decide: {count} devices, one split"
            self._decide("devices", one, base, base)
            return base
        wanted = [self._fitted(replace(base.trial, parallel=parallel)) for parallel in others]
        tried = yield from self._measure_each([trial for trial in wanted if trial is not None], "devices")
        chosen = self.judge.best([base, *tried], self.baseline) or base
        count = ParallelDims.of(chosen.trial.parallel).devices
        named = f"{count} device{'s' if count > 1 else ''}{self._beside([base, *tried], chosen)}"
        self._decide("devices", named, base, chosen)
        return chosen

    def _skipping(self, base: Told) -> Batches:
        every = families(self.choices.caches, base.trial.pipeline.steps)
        if not every:
            self._decide("skipping", "nothing to decide: no cache setting was asked for", base, base)
            return
        before = len(self.told)
        if self.inner is None:
            yield from self._skips(base).run(every, self._with_cache(base))
        else:
            yield from self._by_inner(base, self.inner)
        self._decide("skipping", self._skipped_said(base), base, self._best_or(base), len(self.told) - before)

    def _second_look(self, base: Told) -> Batches:
        """Other ways to compute that lost alone may win with skipping: they keep more of the limit on images, or allow
        skips that the chosen one cannot have."""
        before, best_before = len(self.told), self._best_or(base)
        lossless = base.row.is_reference or base.row.is_unchanged or not self.judge.limits_images
        every = families(self.choices.caches, base.trial.pipeline.steps)
        every = [family for family in every if not lossless or not self._works(base, family)]
        computes = [c for c in self.choices.computes if c != base.trial.compute and every and self.inner is None]
        fitting = [self._fitted(replace(base.trial, compute=compute), note=False) for compute in computes]
        expected = [(plain, self._expected(plain, base)) for plain in fitting if plain is not None]
        for plain, cost in sorted(expected, key=lambda pair: pair[1]):
            if cost == math.inf or not self._hopeful(every, base, cost, plain):
                continue  # what failed, or was left out before, has its reason already
            held = yield from self._measure(plain)
            if held is None or not self.judge.allows(held):
                continue
            hopeful = self._hopeful(every, base, self.judge.cost(held, self.baseline), plain)
            yield from self._skips(held).run(hopeful, self._with_cache(held))
        if len(self.told) > before:
            after = self._best_or(base)
            said = "it stays" if after is best_before else after.row.label
            self._decide("second look", said, best_before, after, len(self.told) - before)

    def _expected(self, plain: Trial, base: Told) -> float:
        """What it costs, or would on the devices of `base` by what it cost on others; infinite where unknown."""
        if plain.trial_id in self.told:
            return self.judge.cost(self.told[plain.trial_id], self.baseline)
        every = [told for told in self.told.values() if not method_of(told.trial.cache).skips]
        for own in (told for told in every if told.trial.compute == plain.compute):
            for other in (told for told in every if told.trial.compute == base.trial.compute):
                if other.trial.parallel == own.trial.parallel and self.judge.cost(other, self.baseline) > 0:
                    ratio = self.judge.cost(own, self.baseline) / self.judge.cost(other, self.baseline)
                    return ratio * self.judge.cost(base, self.baseline)
        return math.inf

    def _hopeful(self, every: Sequence[SkipFamily], base: Told, cost: float, plain: Trial) -> list[SkipFamily]:
        """Of these families those that may win where nothing skipped costs so much: as much as they saved on `base`,
        where they were tried there, else as much as they can at most."""
        best = self.best
        goal = math.inf if best is None else self.judge.cost(best, self.baseline) * CLOSE
        hopeful = [family for family in every if cost * self._least_share(family, base) < goal]
        if not hopeful and best is not None:
            why = f"with the most skipping that was seen it would be no faster than {best.row.label}"
            self.not_tried.setdefault(f"{plain.label} with skipping", why)
        return hopeful

    def _least_share(self, family: SkipFamily, base: Told) -> float:
        """Of the time without skipping what is left at least: by what the family can skip, and by somewhat more than
        the most that any setting saved on `base`, also one that spoilt images."""
        bound = 1 - base.denoise_share * family.most / family.steps
        how, whole = (base.trial.compute, base.trial.parallel), self.judge.cost(base, self.baseline)
        alike = [told for told in self.told.values() if (told.trial.compute, told.trial.parallel) == how]
        costs = [self.judge.cost(told, self.baseline) for told in alike if told.record.state == "COMPLETE"]
        seen = min(costs, default=whole) / whole
        return max(bound, MORE_THAN_SEEN * seen) if seen < 1 else bound

    def _works(self, base: Told, family: SkipFamily) -> bool:
        return self._fitted(replace(base.trial, cache=family.caches[-1]), note=False) is not None

    def _skips(self, base: Told) -> Skipping:
        return Skipping(self.judge, base, lambda: self.baseline, lambda: self.best, self.not_tried, self._spoils_from)

    def _with_cache(self, base: Told) -> Callable[[CacheConfig], Generator[list[Trial], None, Told | None]]:
        def measure(cache: CacheConfig) -> Generator[list[Trial], None, Told | None]:
            fitting = self._fitted(replace(base.trial, cache=cache))
            return None if fitting is None else (yield from self._measure(fitting))

        return measure

    def _by_inner(self, base: Told, make: Callable[[Space], Search]) -> Batches:
        """The seam: a search of its own over the space in which everything but skipping is decided."""
        trials = [replace(base.trial, cache=cache) for cache in self.choices.caches]
        works = [trial for trial in trials if constraint(trial, geometry_of(trial.pipeline)) is None]
        placed: list[Placed] = [self.space.place(trial) for trial in works]
        asked = frozenset(trial.trial_id for trial in works)
        search = make(Space(tuple(placed), (), asked, {}, self.space.held_to))
        while (wanted := search.ask()) is not None:
            if isinstance(wanted, OnlyQuality):
                problem = "asks for the quality of trials alone, which tune has no room for; use thresholds or bisect"
                raise ConfigError("search.options.skips", type(search).__name__, problem)
            if wanted.trial_id not in self.told:
                yield [wanted]
            if (told := self.told.get(wanted.trial_id)) is None:
                problem = f"asks for other work ({wanted.label}), which tune has no room for; use thresholds or bisect"
                raise ConfigError("search.options.skips", type(search).__name__, problem)
            search.tell(told.record, told.row)

    def _measure(self, trial: Trial) -> Generator[list[Trial], None, Told | None]:
        tried = yield from self._measure_all([trial])
        return tried[0] if tried else None

    def _measure_each(self, trials: Sequence[Trial], question: Question) -> Generator[list[Trial], None, list[Told]]:
        """One after another while the decision has budget left; all at once where nothing limits them."""
        share = UNTIL[question]
        if not self.is_limited:
            return (yield from self._measure_all(trials))
        found: list[Told] = []
        for trial in trials:
            if trial.trial_id in self.told or self.leaves(share):
                found += yield from self._measure_all([trial])
            else:
                self.not_tried[trial.label] = f"{share:.0%} of the budget were used, and the rest is for what follows"
        return found

    def _measure_all(self, trials: Sequence[Trial]) -> Generator[list[Trial], None, list[Told]]:
        """What came of each; of one that did not fit after all, of the offload that did."""
        new = [trial for trial in {t.trial_id: t for t in trials}.values() if trial.trial_id not in self.told]
        if new:
            yield new
        found = []
        for trial in trials:
            told = self._of(trial)
            while self.judge.misses_memory(told) and (smaller := self._moving_more(told.trial)) is not None:
                self._floors[_how(trial)] = self._place(smaller.offload)
                if smaller.trial_id not in self.told:
                    yield [smaller]
                told = self._of(smaller)
            if told.record.state == "PRUNED":
                self.not_tried[told.row.label] = told.why_not or "cannot work"
            else:
                found.append(told)
        return found

    def _of(self, trial: Trial) -> Told:
        return self.told[trial.trial_id]

    def _fitted(self, trial: Trial, *, note: bool = True) -> Trial | None:
        """With the offload that moves least, works with it and is predicted to fit; why others are not is noted."""
        for offload in self.choices.offloads[self._floors.get(_how(trial), 0) :]:
            tried = replace(trial, offload=offload)
            why = constraint(tried, geometry_of(tried.pipeline)) or self._predicted_misfit(tried)
            if why is None:
                return tried
            if note:
                self.not_tried.setdefault(tried.label, why)
        return None

    def _predicted_misfit(self, trial: Trial) -> str | None:
        gib = self.predict(trial) if self.limit_gib is not None else None
        if gib is None or self.limit_gib is None or gib <= self.limit_gib:
            return None
        return f"is predicted to need {gib:.1f} GiB of {self.limit_gib:g}"

    def _moving_more(self, trial: Trial) -> Trial | None:
        """The same with the next offload that works and is predicted to fit."""
        for offload in self.choices.offloads[self._place(trial.offload) + 1 :]:
            tried = replace(trial, offload=offload)
            if constraint(tried, geometry_of(tried.pipeline)) is None and self._predicted_misfit(tried) is None:
                return tried
        return None

    def _place(self, offload: OffloadConfig) -> int:
        return self.choices.offloads.index(offload) if offload in self.choices.offloads else -1

    def _best_or(self, base: Told) -> Told:
        return self.best or base

    def _beside(self, tried: Sequence[Told], chosen: Told) -> str:
        """What the others have, such as `; compiled 1.10×`."""
        parts = []
        for told in tried:
            if told is chosen:
                continue
            factor = self.judge.factor(tried[0], told, self.baseline) if told.is_measured else None
            standing = "" if self.judge.allows(told) else " (misses a limit)"
            figure = f"{factor.ratio:.2f}×" if factor is not None else _no_figure(told)
            parts.append(f"{_short(told.trial)} {figure}{standing if factor is not None else ''}")
        return f"; beside it {', '.join(parts)}" if parts else ""

    def _skipped_said(self, base: Told) -> str:
        best = self._best_or(base)
        if not method_of(best.trial.cache).skips:
            return "nothing: no setting that was tried is faster and keeps the limits"
        steps = best.trial.pipeline.steps
        bound = most_skips(best.trial.cache, steps)
        mean = "" if best.row.cached_steps is None else f", {best.row.cached_steps:g} of {steps} steps an image"
        return f"{method_of(best.trial.cache).label}{mean} ({bound} at most)"

    def _decide(
        self, question: Question, said: str, before: Told | None, after: Told | None, trials: int | None = None
    ) -> None:
        known = sum(d.trials for d in self.decisions)
        factor = None if before is None or after is None else self.judge.factor(before, after, self.baseline)
        counted = len(self.told) - known if trials is None else trials
        self.decisions.append(Decision(question, said, before, after, factor, counted))

    def undecided(self) -> list[Question]:
        """What the search did not come to the end of."""
        decided = {decision.question for decision in self.decisions}
        return [question for question in QUESTIONS if question not in decided and question != "second look"]


def in_order_of_moving(offloads: Sequence[OffloadConfig]) -> tuple[OffloadConfig, ...]:
    """Those that move least first; of equal ones pinned memory first."""
    names = [mode.name for mode in MOVING_MORE]
    return tuple(sorted(offloads, key=lambda o: (names.index(BY_NAME[o.mode].name), not o.pin_memory)))


def _no_figure(told: Told) -> str:
    return "failed" if told.record.state != "COMPLETE" else "is not to be trusted"


def _how(trial: Trial) -> str:
    return f"{trial.compute} {trial.parallel}"


def _short(trial: Trial) -> str:
    return " ".join(trial.label.split(" ")[1:]) or "eager"


def _of_compute(trial: Trial) -> str:
    alone = replace(trial, offload=OffloadConfig(), parallel=ParallelConfig(), cache=CacheConfig())
    return _short(alone)
