"""Optuna's study in a database, for those who look at it: every trial that was told, once, with its values.

The journal is the truth and decides; nothing is read from here. So a sweep that was killed between two trials leaves
none that is half done, and what was measured again takes the place of what was.
"""

import warnings
from types import ModuleType
from typing import TYPE_CHECKING, Any

from zbench.errors import ConfigError, one_line
from zbench.record import Record
from zbench.sanitize import without_password
from zbench.search.goals import Goals, Standing
from zbench.search.optuna.points import Choice, Points

if TYPE_CHECKING:
    import optuna

TRIAL_ID = "trial_id"


class StoredStudy:
    """One study at `search.storage`."""

    def __init__(self, library: ModuleType, url: str, name: str, goals: Goals, points: Points) -> None:
        """Opens nothing."""
        self._optuna, self._url, self._name = library, url, name
        self._goals, self._points = goals, points
        self._study: optuna.Study | None = None
        self._held: dict[str, optuna.trial.FrozenTrial] = {}
        self._told: dict[str, optuna.trial.FrozenTrial] = {}

    def open(self) -> None:
        """Find the study, or make it. Raises ConfigError for what is no database that can be written."""
        if self._study is None:
            try:
                self._study = self._made()
                found = self._study.get_trials(deepcopy=False)
            except Exception as error:  # whatever a driver, the database or its URL's parser says
                raise self._refused(error) from error
            self._held = {trial.user_attrs.get(TRIAL_ID, ""): trial for trial in found}

    def tell(self, record: Record, standing: Standing) -> None:
        """Add a trial, if it is not there; where another outcome of it is, the study is written anew."""
        self.open()
        told = self._trial(record, standing)
        held = self._held.get(record.trial_id)
        self._told[record.trial_id] = told
        try:
            if held is not None and not _is_same(held, told):
                self._optuna.delete_study(study_name=self._name, storage=self._url)
                self._study, self._held = self._made(), {}
            for trial_id in self._told.keys() - self._held.keys():
                self._add(trial_id)
        except Exception as error:
            raise self._refused(error) from error

    def _add(self, trial_id: str) -> None:
        assert self._study is not None, "it was opened"
        self._study.add_trial(self._told[trial_id])
        self._held[trial_id] = self._told[trial_id]

    def _made(self) -> "optuna.Study":
        """As it is there, or new."""
        directions = ["maximize" if more else "minimize" for more in self._goals.more_is_better]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", self._optuna.exceptions.ExperimentalWarning)
            study: optuna.Study = self._optuna.create_study(
                storage=self._url, study_name=self._name, directions=directions, load_if_exists=True
            )
            study.set_metric_names(list(self._goals.objectives))
        return study

    def _trial(self, record: Record, standing: Standing) -> "optuna.trial.FrozenTrial":
        states = self._optuna.trial.TrialState
        way = self._points.way_to(record.trial_id)
        said: dict[str, Any] = {TRIAL_ID: record.trial_id, "label": record.label}
        if record.reason is not None:
            said["reason"] = record.reason.message
        found: optuna.trial.FrozenTrial = self._optuna.trial.create_trial(
            state=states.FAIL if standing.values is None else states.COMPLETE,
            values=standing.values,
            params={self._points.name(choice): choice.values[place] for choice, place in way.items()},
            distributions={self._points.name(choice): self._distribution(choice) for choice in way},
            user_attrs=said,
            constraints=standing.missed,
        )
        return found

    def _distribution(self, choice: Choice) -> "optuna.distributions.BaseDistribution":
        """Numbers as numbers, so that they are drawn on a scale."""
        kinds = self._optuna.distributions
        first, last = choice.values[0], choice.values[-1]
        found: optuna.distributions.BaseDistribution
        if not choice.is_ordered:
            found = kinds.CategoricalDistribution(choice.values)
        elif all(isinstance(value, int) for value in choice.values):
            found = kinds.IntDistribution(first, last)
        else:
            found = kinds.FloatDistribution(first, last)
        return found

    def _refused(self, error: Exception) -> ConfigError:
        """One line, without the password that a URL may hold."""
        shown = without_password(self._url)
        try:
            from sqlalchemy.engine import make_url

            url = make_url(self._url)
            said = one_line(error).replace(self._url, shown).replace(str(url.password or self._url), "***")
        except Exception:  # no URL at all
            said = one_line(error).replace(self._url, shown)
        return ConfigError("search.storage", shown, f"cannot be used: {said}; such as sqlite:///study.db")


def _is_same(held: "optuna.trial.FrozenTrial", told: "optuna.trial.FrozenTrial") -> bool:
    return (held.state, held.values, held.constraints) == (told.state, told.values, told.constraints)
