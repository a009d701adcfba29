"""Which steps to compute: masks are judged by their images alone, and the front's few are timed and validated.

Example: `zbench sweep search=masks` on the tiny pipeline tries each of the 127 masks of 8 steps that computes the first
step and skips another. What a mask saves follows from how many steps it computes, so each sample is made once and only
its image counts. Of the masks that no other beats, the most alike for each number of computed steps is then timed as
any trial is. Its images of other seeds are judged too, so that none is served that suits the samples alone on which it
was chosen.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from zbench.analysis.figures import TrialFigures
from zbench.analysis.pareto import likeness
from zbench.analysis.work import work_key
from zbench.config import SearchConfig
from zbench.decode import Count, Positive
from zbench.errors import ConfigError
from zbench.methods.cache.scm import with_mask
from zbench.record import Record
from zbench.search import Foresight, OnlyQuality
from zbench.search.held_out import held_out, parts_and_typed
from zbench.search.masks.walks import drawn, exhaustive, greedy
from zbench.search.options import options_of, refuse_storage
from zbench.space import Placed, Space, constraint
from zbench.stats.fronts import nondominated
from zbench.trial import Trial, geometry_of

MOST_EXHAUSTIVE = 9
"""Steps of which every mask is tried: 256 at most."""

N_TRIALS = 2 ** (MOST_EXHAUSTIVE - 1)
"""Masks that are tried where nobody says how many."""


@dataclass(frozen=True)
class MaskOptions:
    """`search.options` of `search=masks`."""

    method: Literal["auto", "exhaustive", "greedy", "random"] = "auto"
    timed: Positive = 5  # of the front's masks that skip a step, each of another number of computed steps
    holdout_seeds: list[Count] | None = None  # null: those that follow; []: the workload's own, or nothing is held out
    holdout_prompts: str | None = None  # a file as workload.prompts_file is; null: the workload's own prompts


class MaskSearch:
    """See `Search`. Each trial of the space gives a setting: its pipeline, first and last blocks, and so on; which
    steps it skips itself is no part of it."""

    waits_itself = True
    """See `search.waits_itself`."""

    def __init__(self, space: Space, config: SearchConfig) -> None:
        """Raises ConfigError for options that cannot be, and for a setting that takes no masks."""
        refuse_storage(config)
        options = options_of(config, MaskOptions)
        self._told: dict[str, TrialFigures] = {}
        self._asked: set[tuple[str, bool]] = set()
        asked = [placed.trial for placed in space.placed if placed.trial.trial_id in space.asked]
        settings = {(setting := _setting(trial)).trial_id: setting for trial in asked}
        most = N_TRIALS if config.n_trials is None else config.n_trials
        self._hunts = [
            _Hunt(
                setting, _method(options, setting.pipeline.steps, most), options, most, config.seed, self._told, space
            )
            for setting in settings.values()
        ]
        self.space = _foreseen(space, self._hunts)
        typed = {work_key(placed.trial) for placed in space.placed}
        self.parts, self.held_out_for = parts_and_typed((part for hunt in self._hunts for part in hunt.parts), typed)
        """See `search.parts_of` and `search.held_out_for`: the samples held out."""

    @property
    def foresight(self) -> Foresight:
        """See `search.foresight_of`: the front's masks come once more, to be timed, and on the samples held out."""
        listed = len(self.space.placed)
        return Foresight(listed, listed + sum(hunt.most_further for hunt in self._hunts))

    def ask(self) -> Trial | OnlyQuality | None:
        """See `Search.ask`."""
        for hunt in self._hunts:
            for wanted in hunt.wants:
                if wanted is None:
                    break
                key = (wanted.trial.trial_id, True) if isinstance(wanted, OnlyQuality) else (wanted.trial_id, False)
                if key not in self._asked:  # settings may share what skips nothing
                    self._asked.add(key)
                    return wanted
        return None

    def tell(self, record: Record, figures: TrialFigures) -> None:
        """See `Search.tell`."""
        self._told[record.trial_id] = figures


class _Hunt:
    """The masks of one setting."""

    def __init__(
        self,
        setting: Trial,
        method: str,
        options: MaskOptions,
        most: int,
        seed: int,
        told: Mapping[str, TrialFigures],
        space: Space,
    ) -> None:
        self._setting, self._method, self._options, self._most, self._seed = setting, method, options, most, seed
        self._told, self._space = told, space
        self._steps = setting.pipeline.steps
        self._held_out = held_out(setting, options.holdout_seeds, options.holdout_prompts)
        self.wants = self._wants()

    def foreseen(self) -> Iterator[Trial]:
        """What is known to be tried before anything is, the setting without a cache first."""
        yield self._at("1" * self._steps)
        if self._method != "greedy":
            yield from (self._at(mask) for mask in self._walk() if mask is not None)

    @property
    def held_out(self) -> Trial | None:
        """The setting without a cache on other samples, if there are any."""
        return None if self._held_out is None else replace(self._at("1" * self._steps), workload=self._held_out)

    @property
    def most_further(self) -> int:
        """Trials at most that are not foreseen."""
        chosen = min(self._options.timed, self._steps - 1) + 1
        walked = self._most if self._method == "greedy" else 0
        return walked + chosen + (0 if self._held_out is None else chosen)

    @property
    def parts(self) -> Iterator[tuple[str, str]]:
        """The work of the samples held out, if there are any, and the work that masks are chosen for."""
        if self.held_out is not None:
            yield work_key(self.held_out), work_key(self._setting)

    def _wants(self) -> Iterator[Trial | OnlyQuality | None]:
        """What is to be asked for, in order; None while it waits for what was asked."""
        tried = ["1" * self._steps]
        yield OnlyQuality(self._at(tried[0]))
        for mask in self._walk():
            tried += [] if mask is None else [mask]
            yield None if mask is None else OnlyQuality(self._at(mask))
        while any(self._figures(mask) is None for mask in tried):
            yield None
        chosen = self._chosen(tried)
        yield from map(self._at, chosen)
        if self._held_out is not None:
            yield from (OnlyQuality(replace(self._at(mask), workload=self._held_out)) for mask in chosen)

    def _walk(self) -> Iterator[str | None]:
        if self._method == "exhaustive":
            return exhaustive(self._steps)
        if self._method == "random":
            return drawn(self._steps, self._most, self._seed)
        return greedy(self._steps, self._most, self._seed, self._worth)

    def _chosen(self, tried: Sequence[str]) -> list[str]:
        """Of the front, for each number of computed steps the mask whose worst image is most alike; of many, some that
        lie as far apart as can be."""
        known = {mask: row for mask in tried if (row := self._figures(mask)) is not None and likeness(row) is not None}
        points = points_of(known)
        best: dict[int, str] = {}
        for mask in (list(points)[i] for i in nondominated(list(points.values()))):
            computed = mask.count("1")
            if computed not in best or points[mask] > points[best[computed]]:
                best[computed] = mask
        full = [best.pop(self._steps)] if self._steps in best else []
        ordered = [best[computed] for computed in sorted(best, reverse=True)]
        most = min(self._options.timed, len(ordered))
        places = {round(i * (len(ordered) - 1) / max(most - 1, 1)) for i in range(most)}
        return [*full, *(ordered[place] for place in sorted(places))] if ordered else full

    def _at(self, mask: str) -> Trial:
        """The trial that skips by `mask`; the setting without a cache where that skips nothing."""
        cache = with_mask(self._setting.cache, mask)
        assert cache is not None, "_setting asked it before"
        return replace(self._setting, cache=cache)

    def _figures(self, mask: str) -> TrialFigures | None:
        return self._told.get(self._at(mask).trial_id)

    def _worth(self, mask: str) -> float | None:
        row = self._figures(mask)
        found = None if row is None else likeness(row)
        return None if row is None else -math.inf if found is None else found[0]


def points_of(rows: Mapping[str, TrialFigures]) -> dict[str, tuple[float, ...]]:
    """Of each mask what it is judged by, all better when higher: steps skipped, SSIM of the worst image, mean SSIM,
    then the mean share of the prompts that is right and the mean CLIP score, where every mask has them."""
    further = [
        name
        for name in ("prompt_fidelity_mean", "clip_mean")
        if rows and all(getattr(row, name) is not None for row in rows.values())
    ]
    return {
        mask: (float(mask.count("0")), *(likeness(row) or ()), *(getattr(row, name) for name in further))
        for mask, row in rows.items()
    }


def _setting(trial: Trial) -> Trial:
    """The trial with a mask that computes the first step alone in place of its own step skipping."""
    cache = with_mask(trial.cache, "1" + "0" * (trial.pipeline.steps - 1))
    if cache is None:
        raise ConfigError("cache.method", trial.cache.method, "takes no step masks; leave cache= out with search=masks")
    if trial.pipeline.steps < 2:
        raise ConfigError("pipeline.steps", trial.pipeline.steps, "search=masks needs a step beside the first")
    if trial.pipeline.weights == "random":
        raise ConfigError("pipeline.weights", "random", "images of random weights say nothing of a mask")
    if trial.workload.is_load:
        raise ConfigError("workload.arrivals", trial.workload.arrivals, "search=masks makes one request after another")
    setting = replace(trial, cache=cache)
    problem = constraint(setting, geometry_of(trial.pipeline))
    if problem is not None:
        raise ConfigError("search", "masks", f"no mask can work: {problem}")
    return setting


def _method(options: MaskOptions, steps: int, most: int) -> str:
    """How masks of so many steps are tried. Raises ConfigError where they cannot all be."""
    fits = steps <= MOST_EXHAUSTIVE and 2 ** (steps - 1) - 1 <= most
    if options.method == "auto":
        return "exhaustive" if fits else "greedy"
    if options.method == "exhaustive" and not fits:
        there_are = f"there are {2 ** (steps - 1) - 1} masks of pipeline.steps={steps}"
        way_out = f"all are tried of {MOST_EXHAUSTIVE} steps at most, and within search.n_trials={most}; use greedy"
        raise ConfigError("search.options.method", options.method, f"{there_are}; {way_out}")
    return options.method


def _foreseen(space: Space, hunts: Sequence[_Hunt]) -> Space:
    """What is going to be tried as far as that is known: references and baselines, then the masks."""
    placed: dict[str, Placed] = {}
    masks = [trial for hunt in hunts for trial in hunt.foreseen()]
    works = [*masks, *(hunt.held_out for hunt in hunts if hunt.held_out is not None)]
    for trial in works:
        for one in space.held_to(trial):
            placed.setdefault(one.trial_id, replace(space.place(trial), trial=one))
    for trial in masks:
        placed.setdefault(trial.trial_id, replace(space.place(trial), quality_only=True))
    asked = frozenset(trial.trial_id for trial in masks)
    return Space(tuple(placed.values()), space.pruned, asked, space.equal_to, space.held_to)
