"""What `tune` knows of one piece of work while it decides, and how it asks for what it wants to know.

What it asks for are batches of trials, and it goes on once each of a batch was told. So it holds nothing that the
journal lacks. What the budget has no room for is put off; what is left of it goes to what still fits.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from zbench.config import CacheConfig, ComputeConfig, OffloadConfig, ParallelConfig, WorkloadConfig
from zbench.search import Asked, OnlyQuality
from zbench.search.tune.fit import Fitting
from zbench.search.tune.judge import Factor, Judge, Told
from zbench.search.tune.skips import Measure, SkipFamily, Skipping
from zbench.space import Space
from zbench.trial import Trial, on_devices

Batches = Generator[list[Asked], None, None]
Question = Literal["fit", "compute", "devices", "skipping", "second look", "held out"]

UNTIL: dict[Question, float] = {"compute": 0.5, "devices": 0.7}
"""Share of the budget after which a decision begins no trial, so that something is left for what is skipped."""

QUESTIONS: dict[Question, str] = {
    "fit": "does it fit",
    "compute": "how it computes",
    "devices": "how many devices",
    "skipping": "what is skipped",
    "second look": "another way to compute, with skipping",
    "held out": "on samples held out",
}
"""In the order in which they are decided."""

OF_NEED: tuple[Question, ...] = ("fit", "compute", "devices", "skipping")
"""Those that are asked in every case."""


@dataclass(frozen=True)
class TuneChoices:
    """What there is to choose from, each group's choices in the order that they were asked for."""

    base: Trial  # of the work, with the first choice of each group and no step skipped
    offloads: tuple[OffloadConfig, ...]
    computes: tuple[ComputeConfig, ...]
    parallels: tuple[ParallelConfig, ...]
    caches: tuple[CacheConfig, ...]


def computed_as(trial: Trial, compute: ComputeConfig) -> Trial:
    """`trial` on its devices by another of the choices, each of which is as one device has it."""
    return on_devices(replace(trial, compute=compute, parallel=ParallelConfig()), trial.parallel)


@dataclass(frozen=True)
class Decision:
    """One of the questions, and what was decided."""

    question: Question
    said: str  # a sentence without its end
    before: Told | None = None
    after: Told | None = None
    factor: Factor | None = None
    trials: int = 0


@dataclass(frozen=True)
class PutOff:
    """What the budget had no room for when it was wanted."""

    question: Question
    wanted: Asked

    @property
    def trial(self) -> Trial:
        """Of which time or quality was wanted."""
        return trial_of(self.wanted)


@dataclass(frozen=True)
class Room:
    """Of a budget."""

    leaves: Callable[[Sequence[Asked], float, Sequence[Asked]], bool]
    """Whether these may begin within a share of it, with room for others after them."""
    is_limited: bool = False


Inner = Callable[["Decider", Told], Batches]
"""What decides what is skipped on a base, in place of tune's own bisection."""


@dataclass
class Decider:
    """What is known of one piece of work, and what is still wanted for a decision; `order` has the decisions."""

    choices: TuneChoices
    judge: Judge
    fitting: Fitting
    inner: Inner | None
    space: Space
    room: Room
    held_out: WorkloadConfig | None = None
    told: dict[str, Told] = field(default_factory=dict)
    checked: dict[str, Told] = field(default_factory=dict)
    """Of the samples held out."""
    broken: dict[str, str] = field(default_factory=dict)
    """Ids of trials that miss a limit on samples held out, to a sentence that says so."""
    decisions: list[Decision] = field(default_factory=list)
    not_tried: dict[str, str] = field(default_factory=dict)
    put_off: dict[str, PutOff] = field(default_factory=dict)
    """By trial id."""
    question: Question = "fit"
    """What is being decided."""
    cut_short: set[str] = field(default_factory=set)
    """Names of families of skips that the budget ended, or kept from beginning."""
    _spoils_from: list[float] = field(default_factory=list)
    heard: int = 0
    """Trials of this work that it was told."""

    @property
    def baseline(self) -> Told | None:
        """What speed-ups are over; what took its place where it did not fit."""
        known = (told for told in self.told.values() if told.row.is_baseline and told.record.state == "COMPLETE")
        return next(known, None)

    @property
    def best(self) -> Told | None:
        """The cheapest that may stand, and is not known to miss a limit on samples held out."""
        every = [told for trial_id, told in self.told.items() if trial_id not in self.broken]
        return self.judge.best(every, self.baseline)

    def tell(self, told: Told) -> None:
        """What came of a trial of this work."""
        if told.trial.workload == self.held_out:
            self.checked[told.trial.trial_id] = told
        else:
            self.told[told.trial.trial_id] = told
            self.heard += 1

    # What a decision asks for

    def skips(self, base: Told) -> Skipping:
        """Tune's own search over skips."""
        return Skipping(self.judge, base, lambda: self.baseline, lambda: self.best, self.not_tried, self._spoils_from)

    def works(self, base: Told, family: SkipFamily) -> bool:
        """Whether the family can work where everything else is as in `base`."""
        return self.fitting.fitted(replace(base.trial, cache=family.caches[-1]), note=False) is not None

    def with_cache(self, base: Told) -> Measure:
        """Measures settings of a cache where everything else is as in `base`."""

        def measured(family: SkipFamily, cache: CacheConfig) -> Generator[list[Asked], None, Told | None]:
            fitting = self.fitting.fitted(replace(base.trial, cache=cache))
            if fitting is None:
                self.not_tried.setdefault(f"{family.name} and the like", "cannot work with what was decided before")
                return None
            told = yield from self.measure(fitting)
            if fitting.trial_id in self.put_off:
                self.cut_short.add(family.name)
            return told

        return measured

    def measure(self, trial: Trial) -> Generator[list[Asked], None, Told | None]:
        """What came of it, or of the offload that did fit; None where it cannot work, or was put off."""
        tried = yield from self.measure_all([trial])
        return tried[0] if tried else None

    def measure_all(self, trials: Sequence[Trial]) -> Generator[list[Asked], None, list[Told]]:
        """The same of each. Under a budget one after another, else all at once."""
        yield from self.ask_for(list({trial.trial_id: trial for trial in trials}.values()))
        found = []
        for trial in trials:
            told = self.known(trial)
            while told is not None and self.judge.misses_memory(told):
                smaller = self.fitting.moving_more(told.trial)
                if smaller is None:
                    break
                self.fitting.begin_at(trial, smaller.offload)
                yield from self.ask_for([smaller])
                told = self.known(smaller)
            if told is not None and told.record.state == "PRUNED":
                self.not_tried[told.row.label] = told.why_not or "cannot work"
            elif told is not None:
                found.append(told)
        return found

    def ask_for(self, wanted: Sequence[Asked]) -> Batches:
        """Those of them that are not known and that the budget has room for; the others are put off."""
        new = [each for each in wanted if self.known(each) is None]
        if not self.room.is_limited:
            if new:
                yield new
            return
        for each in new:
            trial_id = trial_of(each).trial_id
            if self.room.leaves(self._with_reference(each), UNTIL.get(self.question, 1.0), self._aside()):
                self.put_off.pop(trial_id, None)
                yield [each]
            else:
                self.put_off.setdefault(trial_id, PutOff(self.question, each))

    def known(self, asked: Asked) -> Told | None:
        """What came of it; what was not timed is none where a time is wanted."""
        trial_id = trial_of(asked).trial_id
        told = self.told.get(trial_id) or self.checked.get(trial_id)
        untimed = told is not None and told.row.is_untimed
        return None if untimed and not isinstance(asked, OnlyQuality) else told

    def _with_reference(self, asked: Asked) -> list[Asked]:
        """With the quality reference of samples held out, where that comes with it."""
        trial = trial_of(asked)
        if trial.workload != self.held_out or self.checked:
            return [asked]
        return [self.space.held_to(trial)[0], asked]

    def _aside(self) -> list[Asked]:
        """What is still to come when all is decided."""
        if self.held_out is None or self.question in (*UNTIL, "held out") or not self.judge.limits_images:
            return []
        return self._with_reference(OnlyQuality(replace(self.choices.base, workload=self.held_out)))

    # What was decided

    def decide(self, question: Question, said: str, before: Told | None, after: Told | None) -> None:
        """Keep a decision; it took the trials that were heard of since the one before."""
        trials = self.heard - sum(d.trials for d in self.decisions)
        factor = None if before is None or after is None else self.judge.factor(before, after, self.baseline)
        self.decisions.append(Decision(question, said, before, after, factor, trials))

    def undecided(self) -> list[Question]:
        """What the search did not come to."""
        decided = {decision.question for decision in self.decisions}
        return [question for question in OF_NEED if question not in decided]

    def cut(self, question: Question) -> list[PutOff]:
        """What was put off while that was decided, and did not come later."""
        return [each for each in self.left if each.question == question]

    @property
    def left(self) -> list[PutOff]:
        """What a larger budget would try, in the order in which it was wanted."""
        return [each for each in self.put_off.values() if self.known(each.wanted) is None]


def trial_of(asked: Asked) -> Trial:
    """Of which time or quality is asked for."""
    return asked.trial if isinstance(asked, OnlyQuality) else asked
