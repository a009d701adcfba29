"""Every pattern of skipped steps once: thresholds are chosen by the residual differences that trials recorded.

Example: `zbench sweep search=thresholds cache=dbcache` tries of each setting (blocks, warm-up, steps in a row, order of
TaylorSeer) all thresholds that skip anything else, and no two that skip the same; what was typed comes first. With
`search.options.min_ssim=0.95` it looks only for the one that skips most within that, in eight trials at most.

That search takes likeness to fall as the threshold rises. Where it does not, it still ends at a pattern that was
measured to hold, below one that was measured not to; a higher one that holds again is missed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace

from zbench.analysis.constraints import Limits, constraints_of
from zbench.analysis.figures import TrialFigures
from zbench.config import SearchConfig
from zbench.errors import ConfigError
from zbench.methods.cache import method_of
from zbench.record import Record
from zbench.search import Foresight
from zbench.search.options import options_of, refuse_storage
from zbench.search.thresholds.family import MOST_TRIALS, Family, threshold_of
from zbench.search.thresholds.patterns import Walk, walks_of
from zbench.space import Placed, Space, constraint
from zbench.trial import Trial, geometry_of

ANY_OTHER = 0.5
"""A threshold that stands for those that were not typed: can the setting work with it, then it can with all."""


@dataclass(frozen=True)
class ThresholdOptions:
    """`search.options` of it; see `analysis.constraints`, which judges."""

    min_ssim: float | None = None  # of the worst image
    min_psnr_db: float | None = None  # of the worst image
    min_prompt_fidelity: float | None = None  # mean share of the attributes asked for, 0 to 1
    max_lpips: float | None = None  # of the worst image
    min_clip_score: float | None = None  # mean, 0 to 100


class ThresholdSearch:
    """See `Search`. Trials without a threshold are asked for as a grid would."""

    def __init__(self, space: Space, config: SearchConfig) -> None:
        """Raises ConfigError for what only another search takes, and for a limit that cannot be meant."""
        refuse_storage(config)
        if config.seed:
            raise ConfigError("search.seed", config.seed, "thresholds are not drawn; use search=random")
        options = options_of(config, ThresholdOptions)
        limits = Limits(**asdict(options))
        self._constraints = constraints_of(limits, lambda name: f"search.options.{name}")
        self._space, self._most = space, config.n_trials
        asked = (f"{key}={limit:g}" for key, limit in asdict(options).items() if limit is not None)
        self._families, self._of = _families(space, " and ".join(asked))
        self._asked: set[str] = set()
        self._counted = 0
        self._left_out: set[str] = set()
        self._said: dict[str, str] = {}  # by the id of a family's first trial
        self._now = _before(space, self._families)

    @property
    def space(self) -> Space:
        """See `Search.space`: of each family what is tried first, and what is known to be equal to what was tried."""
        return self._now

    @property
    def foresight(self) -> Foresight:
        """See `search.foresight_of`: with a limit a family has MOST_TRIALS at most, else as many as it has patterns."""
        listed = self._now.placed
        bounds = [len(listed) + (MOST_TRIALS - 1) * len(self._families)] if self._constraints else []
        if self._most is not None:
            bounds.append(self._most + sum(map(_is_held_to, listed)))
        most = len(listed) if not self._families else min(bounds, default=None)
        return Foresight(len(listed) if most is None else min(len(listed), most), most)

    @property
    def remarks(self) -> Sequence[str]:
        """See `Telling.remarks`."""
        return [_intent(family) for family in self._families] + list(self._said.values())

    def ask(self) -> Trial | None:
        """See `Search.ask`. Of a family it asks for one after another."""
        if self._most is not None and self._counted >= self._most:
            self._conclude(at_the_end=True)
            return None
        wanted = next(self._wanted(), None)
        if wanted is not None:
            self._asked.add(wanted.trial_id)
            self._counted += wanted.trial_id in self._of or wanted.trial_id in self._space.asked
        return wanted

    def _wanted(self) -> Iterator[Trial]:
        """In the order of the space, a family where its first trial is."""
        for placed in self._space.placed:
            trial = placed.trial
            family = self._of.get(trial.trial_id)
            if family is None:
                if trial.trial_id not in self._asked:
                    yield trial
            elif (threshold := family.next_threshold()) is not None:
                family.awaited = threshold
                made = family.trial_at(threshold)
                self._of[made.trial_id] = family
                yield made

    def tell(self, record: Record, figures: TrialFigures) -> None:
        """See `Search.tell`."""
        family = self._of.get(record.trial_id)
        if family is None:
            return
        threshold = threshold_of(record.trial)
        holds, problem = self._judged(record, figures)
        family.tell(threshold, list(_walks(record)), holds, problem)
        self._conclude()

    def _judged(self, record: Record, figures: TrialFigures) -> tuple[bool | None, str | None]:
        """Whether a trial is within the limits, if there are any; and why it failed, or why that is not known."""
        if record.state != "COMPLETE":
            said = "" if record.reason is None else f": {record.reason.message}"
            return (False if record.measurement else None), f"{record.label} is {record.state}{said}"
        judged = [limit.judge(figures) for limit in self._constraints]
        unknown = next((each for each in judged if each.missed_by is None), None)
        if unknown is not None:
            return None, f"{record.label}: {unknown}"
        return (all(each.missed_by == 0 for each in judged) if judged else None), None

    def _conclude(self, *, at_the_end: bool = False) -> None:
        """What is known by now of what was typed, and of families that came to their ends."""
        for family in self._families:
            for trial, reason in family.left_out():
                if trial.trial_id not in self._left_out:
                    self._left_out.add(trial.trial_id)
                    pruned = (*self._now.pruned, (self._space.place(trial), reason))
                    self._now = replace(self._now, pruned=pruned)
            if family.has_ended or family.gave_up or (at_the_end and family.visits):
                self._said.setdefault(family.typed[0].trial_id, family.outcome())


def _families(space: Space, limits: str) -> tuple[list[Family], dict[str, Family]]:
    """Of the trials asked for that have a threshold which may be another, and by each trial's id."""
    typed: dict[str, list[Trial]] = {}
    for trial in (placed.trial for placed in space.placed if placed.trial.trial_id in space.asked):
        method = method_of(trial.cache)
        if method.threshold is None or trial.workload.seeks_rate:
            continue
        any_other = replace(trial, cache=method.at_threshold(ANY_OTHER))
        if constraint(any_other, geometry_of(any_other.pipeline)) is None:
            typed.setdefault(any_other.trial_id, []).append(trial)
    families = [Family(sorted(members, key=threshold_of), limits) for members in typed.values()]
    return families, {trial.trial_id: family for family in families for trial in family.typed}


def _before(space: Space, families: Sequence[Family]) -> Space:
    """What of a space is certain to be tried: of each family the threshold that comes first."""
    later = {trial.trial_id for family in families for trial in family.typed}
    kept = [placed for placed in space.placed if placed.trial.trial_id not in later or _is_held_to(placed)]
    known = {placed.trial.trial_id for placed in kept}
    firsts = [family.trial_at(first) for family in families if (first := family.next_threshold()) is not None]
    kept += [space.place(first) for first in firsts if first.trial_id not in known]
    return replace(space, placed=tuple(kept))


def _is_held_to(placed: Placed) -> bool:
    return placed.is_reference or placed.is_baseline


def _intent(family: Family) -> str:
    if family.limits:
        what = f"the threshold that skips most within {family.limits}"
        return f"{family.name}: {what} is sought, in {MOST_TRIALS} trials at most"
    return f"{family.name}: every threshold that skips other steps is tried once; how many, their differences say"


def _walks(record: Record) -> Iterator[tuple[object, Walk]]:
    """Of each of its requests; none where nothing was measured."""
    requests = [] if record.measurement is None else record.measurement.requests
    return walks_of(((r.prompt_id, r.seed), r.cached_steps, r.residual_diffs) for r in requests)
