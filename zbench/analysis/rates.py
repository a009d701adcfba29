"""Rates of arrivals that were tried of one setting, and between which of them its objective stops being met."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from zbench.analysis.figures import TrialFigures
from zbench.analysis.labels import told_apart
from zbench.analysis.serving import ServingFigures, serving_figures
from zbench.analysis.view import View
from zbench.record import Record
from zbench.trial import Trial
from zbench.workload import one_after_another


@dataclass(frozen=True)
class RatePoint:
    """One rate of Poisson arrivals that was measured."""

    rate_per_s: float
    row: TrialFigures
    load: ServingFigures


@dataclass(frozen=True)
class RateCurve:
    """One setting under one objective, its rates in ascending order."""

    setting: str  # its label without the arrivals
    objective_s: float
    points: tuple[RatePoint, ...]
    alone_per_s: float | None  # requests that are served a second, one after another; None where that was not measured

    @property
    def highest_met(self) -> RatePoint | None:
        """The highest rate that meets the objective, as long as no lower one misses it."""
        unmet = min((p.rate_per_s for p in self.points if not p.load.meets_objective), default=float("inf"))
        met = [p for p in self.points if p.load.meets_objective and p.rate_per_s < unmet]
        return met[-1] if met else None

    @property
    def lowest_unmet(self) -> RatePoint | None:
        """The lowest rate that misses it."""
        return next((p for p in self.points if not p.load.meets_objective), None)


def rate_curves(view: View) -> list[RateCurve]:
    """Of every setting that was measured at a rate and held to an objective, in the order of the view."""
    groups: dict[tuple[str, str], list[RatePoint]] = {}
    trials: dict[tuple[str, str], Trial] = {}
    alone: dict[tuple[str, str], float] = {}
    for row, record in view.pairs:
        if row.state != "COMPLETE":
            continue
        trial, point = record.trial, _point(row, record)
        if not trial.workload.is_load and row.latency_median_s:
            alone[row.sweep, trial.trial_id] = 1 / row.latency_median_s
        if point is None:
            continue
        setting = replace(trial, workload=replace(trial.workload, rate_per_s=None))
        groups.setdefault((row.sweep, setting.trial_id), []).append(point)
        trials[row.sweep, setting.trial_id] = setting
    settings = list(trials.values())
    plain = [replace(trial, workload=one_after_another(trial.workload)) for trial in settings]
    names = told_apart([t.label for t in plain], lambda i: settings[i], lambda i: settings[i].trial_id[:6])
    return [
        _curve(name, points, alone.get((key[0], unloaded.trial_id)))
        for name, unloaded, (key, points) in zip(names, plain, groups.items(), strict=True)
    ]


def _point(row: TrialFigures, record: Record) -> RatePoint | None:
    rate_per_s, measured = record.trial.workload.rate_per_s, record.valid_measurement
    load = None if measured is None else serving_figures(measured)
    if load is None or rate_per_s is None or load.objective_s is None:
        return None
    return RatePoint(rate_per_s, row, load)


def _curve(setting: str, points: Iterable[RatePoint], alone_per_s: float | None) -> RateCurve:
    ordered = tuple(sorted(points, key=lambda point: point.rate_per_s))
    objective_s = ordered[0].load.objective_s
    assert objective_s is not None, "a point has an objective"
    return RateCurve(setting, objective_s, ordered, alone_per_s)
