"""Successive halving over requests: many settings on few samples, the better share of them on more.

Example: 27 settings over 9 prompts are measured on one prompt each, the 9 best of them on three, the 3 best on all
nine. That is 27 + 27 + 27 requests, where the grid has 243. A rung is ordinary trials, whose workload begins as the
typed one does and ends sooner; prompts come before further seeds. The last rung is the workload as it was typed. Each
rung has references of its own, so likeness is judged on the same samples.

What it can lose. A setting that is the best over all samples and not among the better share on the first few is gone:
it is sure only of what those few show. Latency hardly differs between prompts; likeness does, so with a limit on that
`least_samples` should hold the prompts that are hard. A setting that spoils one image of few spoils it on all of them
too, so it goes no further while another is feasible. And a trial has `measure.min_rounds` requests whatever its
samples are: it saves something only where the workload has more samples than that.
"""

import random
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Annotated

import msgspec

from zbench.analysis.figures import TrialFigures
from zbench.analysis.work import work_key
from zbench.config import SearchConfig, WorkloadConfig
from zbench.decode import Positive
from zbench.errors import ConfigError
from zbench.record import Record
from zbench.search import Foresight
from zbench.search.goals import GoalOptions, Goals, Standing, hold_one_work, option
from zbench.search.options import options_of, refuse_storage
from zbench.space import Placed, Space
from zbench.trial import Trial


@dataclass(frozen=True)
class HalvingOptions(GoalOptions):
    """`search.options` of search=halving."""

    factor: Annotated[int, msgspec.Meta(ge=2, le=1000)] = 3  # of so many settings one goes on, to so many samples
    least_samples: Positive = 1  # of the first rung


class HalvingSearch:
    """See `Search`."""

    def __init__(self, space: Space, config: SearchConfig) -> None:
        """Raises ConfigError for options that are none, and for trials that cannot be compared on fewer samples."""
        options = options_of(config, HalvingOptions)
        refuse_storage(config)
        if len(options.objectives) > 1:
            raise ConfigError(option("objective"), options.objective, "halving is after one; use search=optuna")
        hold_one_work(space, config.name)
        drawn = sorted(space.asked)
        random.Random(config.seed).shuffle(drawn)
        chosen = space.only(drawn[: config.n_trials])
        standing_in = {chosen.equal_to.get(trial_id) for trial_id in chosen.asked}
        wanted = chosen.asked | standing_in
        settings = [placed.trial for placed in chosen.placed if placed.trial.trial_id in wanted]
        if any(trial.workload.is_load for trial in settings):
            raise ConfigError("search", config.name, "begins with fewer samples, and a load has none; use search=grid")
        self._factor = options.factor
        self._goals = Goals(options, options.objectives or ["latency"])
        self._workloads = rungs(settings[0].workload, options.factor, options.least_samples) if settings else []
        self._rung = 0
        self._trials = [_on(trial, self._workloads[0]) for trial in settings]
        self._asked: set[str] = set()
        self._told: dict[str, Standing] = {}
        self._space = _space_of(self._trials, chosen)
        self.parts = {
            work_key(_on(trial, workload)): work_key(trial) for trial in settings for workload in self._workloads[:-1]
        }
        """See `search.parts_of`: every rung but the last."""

    @property
    def space(self) -> Space:
        """See `Search.space`: the first rung. What the others are made of depends on what comes of it."""
        return self._space

    @property
    def foresight(self) -> Foresight:
        """See `search.foresight_of`: each rung has what it is held to beside its settings."""
        first = self._space.placed
        held_to = sum(each.is_reference or each.is_baseline for each in first)
        most, left = len(first), sum(each.trial.trial_id in self._space.asked for each in first)
        for _ in self._workloads[1:]:
            left = -(-left // self._factor)
            most += left + held_to
        return Foresight(len(first), most)

    def ask(self) -> Trial | None:
        """See `Search.ask`. None while the last of a rung are running."""
        while self._trials:
            for trial in self._trials:
                if trial.trial_id not in self._asked and trial.trial_id not in self._told:
                    self._asked.add(trial.trial_id)
                    return trial
            done = all(trial.trial_id in self._told for trial in self._trials)
            if not done or self._rung == len(self._workloads) - 1:
                return None
            self._trials = self._going_on()
        return None

    def tell(self, record: Record, figures: TrialFigures) -> None:
        """See `Search.tell`."""
        self._told[record.trial_id] = self._goals.standing(figures)

    def _going_on(self) -> list[Trial]:
        """The better share of a rung, on the samples of the next; one that is left goes on to the last at once."""
        ranked = sorted(self._trials, key=lambda trial: self._goals.rank(self._told[trial.trial_id]))
        known = [trial for trial in ranked if self._told[trial.trial_id].values is not None]
        if any(self._told[trial.trial_id].is_feasible for trial in known):
            known = [trial for trial in known if not self._told[trial.trial_id].beyond_recovery]
        kept = {trial.trial_id for trial in known[: -(-len(ranked) // self._factor)]}
        self._rung = len(self._workloads) - 1 if len(kept) == 1 else self._rung + 1
        return [_on(trial, self._workloads[self._rung]) for trial in self._trials if trial.trial_id in kept]


def rungs(workload: WorkloadConfig, factor: int, least_samples: int) -> list[WorkloadConfig]:
    """`workload` with so few samples as the first rung has, then about `factor` times as many, at last all of them.

    Samples are prompts times seeds, and no rung has more than its due: prompts are added before seeds.
    """
    prompts, seeds = len(workload.prompts), len(workload.seeds)
    found: list[tuple[int, int]] = []
    samples = least_samples
    while samples < prompts * seeds:
        of_prompts = min(prompts, samples)
        found.append((of_prompts, min(seeds, samples // of_prompts)))
        samples *= factor
    sizes = dict.fromkeys([*found, (prompts, seeds)])
    return [replace(workload, prompts=workload.prompts[:p], seeds=workload.seeds[:s]) for p, s in sizes]


def _on(trial: Trial, workload: WorkloadConfig) -> Trial:
    return replace(trial, workload=workload)


def _space_of(trials: Iterable[Trial], chosen: Space) -> Space:
    """These trials and what they are held to, in place of the settings that were chosen."""
    placed: dict[str, Placed] = {}
    asked = []
    for trial in trials:
        reference, baseline = chosen.held_to(trial)
        asked.append(trial.trial_id)
        for one in (reference, baseline, trial):
            placed.setdefault(one.trial_id, Placed(one, reference.trial_id, baseline.trial_id))
    left_out = {each.trial.trial_id for each, _ in chosen.pruned}
    return Space(tuple(placed.values()), chosen.pruned, frozenset(asked) | left_out, chosen.equal_to, chosen.held_to)
