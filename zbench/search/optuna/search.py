"""Optuna chooses: TPE, or NSGA-II for several objectives at once, of the trials that were asked for.

Example: `zbench sweep search=optuna search.n_trials=32 search.options.min_ssim=0.95 cache=dbcache …` tries 32 trials of
the grid, the first 10 at random, the others where the fast and feasible ones lie.

Optuna is asked and told, and runs nothing. Each choice of a group and each axis within it is a parameter: numbers in
their order are steps of an integer, whatever lies between them; all else is a category. A trial that FAILED is a
failure, never a value. A point that cannot work is told as infeasible. No trial is run twice: a suggestion that was
tried before is answered from what was told, and after MOST_REPEATS of these a trial that nobody tried is drawn.

What it suggests follows from the space, the seed and what it was told, in the order in which it suggested. So a stopped
sweep goes on where it was, from its journal alone. `at_once` trials may be out at the same time; it then suggests
without knowing the outcome of the last ones.
"""

import random
import warnings
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

from zbench.analysis.figures import TrialFigures
from zbench.config import SearchConfig
from zbench.decode import Positive
from zbench.errors import ConfigError
from zbench.record import Record
from zbench.search import Foresight
from zbench.search.goals import GoalOptions, Goals, Standing, hold_one_work
from zbench.search.options import options_of
from zbench.search.optuna.points import Choice, Points
from zbench.search.optuna.stored_study import StoredStudy
from zbench.search.question import question
from zbench.space import Space
from zbench.trial import Trial

if TYPE_CHECKING:
    import optuna

PACKAGE = "pip install 'zbench[optuna]'"

MOST_REPEATS = 20
"""Suggestions one after another that were tried before."""

OF_SAMPLER = {"tpe": ["latency"], "nsga2": ["latency", "quality"]}
"""What each is after where nobody said."""


@dataclass(frozen=True)
class OptunaOptions(GoalOptions):
    """`search.options` of search=optuna."""

    sampler: Literal["tpe", "nsga2"] = "tpe"
    startup: Positive = 10  # TPE: trials at random before it suggests any
    population: Positive = 10  # NSGA-II: trials of a generation; the first is at random
    at_once: Positive = 1  # trials that are out at the same time; as many as executor.concurrent_trials


class OptunaSearch:
    """See `Search`."""

    def __init__(self, space: Space, config: SearchConfig) -> None:
        """Raises ConfigError without Optuna, for options that are none, and for trials that cannot be compared."""
        self._optuna = _needed(config)
        options = options_of(config, OptunaOptions)
        if config.n_trials is None:
            raise ConfigError("search.n_trials", None, "how many trials it takes, such as search.n_trials=32")
        if options.population < 2:
            raise ConfigError("search.options.population", options.population, "must be at least 2, for it has parents")
        hold_one_work(space, config.name)
        self.space = space
        self._goals = Goals(options, options.objectives or OF_SAMPLER[options.sampler])
        self._points = Points(space)
        self._at_random = self._points.runnable
        random.Random(config.seed).shuffle(self._at_random)
        self._most = min(config.n_trials, len(self._at_random))
        self._at_once = options.at_once
        self._startup = options.startup if options.sampler == "tpe" else options.population
        self._study = _study_in_memory(self._optuna, options, config.seed, self._goals)
        self._tried: dict[str, None] = {}  # suggested, in that order
        self._open: deque[tuple[optuna.Trial, str]] = deque()  # suggested, and Optuna does not know the outcome
        self._told: dict[str, Standing] = {}
        self._stored: StoredStudy | None = None
        if config.storage is not None:
            name = f"zbench-{question(space, config)}"
            self._stored = StoredStudy(self._optuna, config.storage, name, self._goals, self._points)

    @property
    def foresight(self) -> Foresight:
        """See `search.foresight_of`: so many of the space, and what they are held to."""
        placed = self.space.placed
        held_to = {each.trial.trial_id for each in placed if each.is_reference or each.is_baseline}
        beside = len(held_to.difference(self._at_random))  # those that it cannot suggest come in any case
        return Foresight(self._most + beside, min(self._most + len(held_to), len(placed)))

    def ask(self) -> Trial | None:
        """See `Search.ask`. None while the outcome of a trial is awaited that the next depends on."""
        if self._stored is not None:
            self._stored.open()
        while len(self._tried) < self._most:
            if not self._knows_all_but(self._at_once - 1):
                return None
            trial_id = self._suggested()
            self._tried[trial_id] = None
            if trial_id not in self._told:
                return self._points.trials.get(trial_id) or self._standing_in(trial_id)
        return None

    def tell(self, record: Record, figures: TrialFigures) -> None:
        """See `Search.tell`. Optuna hears of it in its turn."""
        standing = self._goals.standing(figures)
        self._told[record.trial_id] = standing
        if self._stored is not None and record.trial_id in self._at_random:
            self._stored.tell(record, standing)

    def _standing_in(self, trial_id: str) -> Trial:
        """A trial that was not asked for itself, and is equal to one that was."""
        return next(placed.trial for placed in self.space.placed if placed.trial.trial_id == trial_id)

    def _knows_all_but(self, most: int) -> bool:
        """Tell Optuna the outcomes in the order of its suggestions, until so many at most are open; whether that can
        be done."""
        while len(self._open) > most:
            suggestion, trial_id = self._open[0]
            if trial_id not in self._told:
                return False
            self._answer(suggestion, self._told[trial_id])
            self._open.popleft()
        return True

    def _answer(self, suggestion: "optuna.Trial", standing: Standing) -> None:
        if standing.values is None:
            self._study.tell(suggestion, state=self._optuna.trial.TrialState.FAIL)
            return
        for limit, missed_by in standing.missed.items():
            suggestion.set_constraint(limit, missed_by)
        self._study.tell(suggestion, list(standing.values))

    def _suggested(self) -> str:
        """The id of a trial that can run and was not suggested before."""
        states = self._optuna.trial.TrialState
        for attempt in range(MOST_REPEATS + 1):
            if len(self._tried) < self._startup or attempt == MOST_REPEATS:
                self._study.enqueue_trial(self._parameters(self._drawn()))
            suggestion = self._study.ask()
            trial_id = self._points.standing(self._points.choose(partial(self._pick, suggestion)))
            awaited = any(trial_id == other for _, other in self._open)
            if trial_id in self._points.pruned:
                suggestion.set_constraint("space", 1.0)
                self._study.tell(suggestion, state=states.PRUNED)
            elif trial_id not in self._tried:
                self._open.append((suggestion, trial_id))
                return trial_id
            elif awaited:
                self._study.tell(suggestion, state=states.FAIL)
            else:
                self._answer(suggestion, self._told[trial_id])
        raise RuntimeError("what was drawn had been tried before")

    def _drawn(self) -> str:
        """The next in an order of chance that was not suggested."""
        return next(trial_id for trial_id in self._at_random if trial_id not in self._tried)

    def _parameters(self, trial_id: str) -> dict[str, Any]:
        """What Optuna would have suggested for a trial."""
        way: Mapping[Choice, int] = self._points.way_to(trial_id)
        return {
            self._points.name(choice): place if choice.is_ordered else choice.values[place]
            for choice, place in way.items()
        }

    def _pick(self, suggestion: "optuna.Trial", choice: Choice) -> int:
        """The place of the value that Optuna suggests."""
        name = self._points.name(choice)
        if choice.is_ordered:
            return suggestion.suggest_int(name, 0, len(choice.values) - 1)
        return choice.values.index(suggestion.suggest_categorical(name, choice.values))


def _needed(config: SearchConfig) -> ModuleType:
    """Optuna, which speaks of warnings and errors alone. Raises ConfigError where it is not installed."""
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise ConfigError("search", config.name, f"needs the package {error.name}: {PACKAGE}") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _study_in_memory(library: ModuleType, options: OptunaOptions, seed: int, goals: Goals) -> "optuna.Study":
    """What decides; it holds what was told in this process."""
    seed %= 2**32  # of numpy
    sampler: optuna.samplers.BaseSampler
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", library.exceptions.ExperimentalWarning)
        if options.sampler == "tpe":
            startup = options.startup
            sampler = library.samplers.TPESampler(seed=seed, n_startup_trials=startup, multivariate=True, group=True)
        else:
            sampler = library.samplers.NSGAIISampler(seed=seed, population_size=options.population)
    directions = ["maximize" if more else "minimize" for more in goals.more_is_better]
    study: optuna.Study = library.create_study(directions=directions, sampler=sampler)
    return study
