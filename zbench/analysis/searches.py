"""How far each search of a run came, trial by trial: what its trials cover together in cost and likeness.

Cost is a share of the baseline's. Where trials of a piece of work were judged by their images alone it is the share of
the steps that are computed, else the time over the baseline's. Likeness is SSIM of the worst image. It refuses trials
that are not to be trusted. What a search tries on fewer or on other samples counts as a trial and covers nothing.
"""

import shlex
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from zbench.analysis.figures import TrialFigures
from zbench.analysis.pareto import likeness
from zbench.analysis.view import View
from zbench.analysis.work import work_key, work_names
from zbench.record import Record
from zbench.stats import hypervolume
from zbench.trial import Trial

Cost = Literal["steps", "time"]

REFERENCE = (1.0, 0.0)
"""Cost and likeness that a trial must be better than to cover anything: the baseline's cost, and an SSIM of 0. With it
one that costs nothing and changes no image covers 1, and runs on other machines can be compared."""


@dataclass(frozen=True)
class SearchCurve:
    """One search over one piece of work."""

    name: str
    cost: Cost
    volumes: tuple[float, ...]  # hypervolume after each trial, in the order in which trials ended first


@dataclass(frozen=True)
class JudgedWork:
    """A piece of work of which trials were judged by their images alone, and its trials that have both figures."""

    name: str
    trials: tuple[TrialFigures, ...]
    computed: tuple[float, ...]  # steps an image, of each


def search_curves(view: View) -> list[SearchCurve]:
    """One for each run, piece of work and search in it; empty where no record tells of a search, nor of images judged
    alone. Which search made a trial is what was typed for it."""
    works: dict[str, Trial] = {}
    rows = {row.key: row for row in view.trials}
    groups: dict[tuple[str, str, str | None], list[tuple[TrialFigures, bool]]] = defaultdict(list)
    untimed: set[str] = set()
    for record in view.journal:
        if record.state == "PRUNED" or record.source == "published":
            continue
        row, work = rows[record.sweep, record.trial_id], record.part_of or work_key(record.trial)
        groups[record.sweep, work, searched_by(record)].append((row, record.part_of is None))
        if record.part_of is None:
            works.setdefault(work, record.trial)
            untimed |= {work} if row.is_untimed else set()
    if not untimed and all(search is None for _, _, search in groups):
        return []
    names = dict(zip(works, work_names(list(works.values())), strict=True))
    sweeps = {sweep for sweep, _, _ in groups}
    found = []
    for (sweep, work, search), made in groups.items():
        if work not in works:
            continue
        cost: Cost = "steps" if work in untimed else "time"
        told = [sweep if len(sweeps) > 1 or search is None else "", f"search={search}" if search is not None else ""]
        name = " ".join(filter(None, [*told, names[work] if len(names) > 1 else ""]))
        found.append(SearchCurve(name, cost, _volumes([_point(row, cost) if own else None for row, own in made])))
    return [curve for curve in found if any(curve.volumes)]


def judged_works(view: View) -> list[JudgedWork]:
    """Pieces of work of which trials were judged by their images alone; a search's other samples are none."""
    groups: dict[tuple[str, str], list[tuple[TrialFigures, Trial]]] = defaultdict(list)
    for row, record in view.pairs:
        if row.state == "COMPLETE" and row.source != "published" and record.part_of is None:
            groups[row.sweep, work_key(record.trial)].append((row, record.trial))
    groups = {key: made for key, made in groups.items() if any(row.is_untimed for row, _ in made)}
    works = {work: made[0][1] for (_, work), made in groups.items()}
    names = dict(zip(works, work_names(list(works.values())), strict=True))
    sweeps = {sweep for sweep, _ in groups}
    found = []
    for (sweep, work), made in groups.items():
        name = f"{sweep}, {names[work]}" if len(sweeps) > 1 else names[work]
        known = [(row, share * (row.steps or 0)) for row, _ in made if (share := computed_share(row)) is not None]
        both = [(row, steps) for row, steps in known if row.is_trusted and likeness(row) is not None]
        if len(both) > 1:
            found.append(JudgedWork(name, tuple(row for row, _ in both), tuple(steps for _, steps in both)))
    return found


def searched_by(record: Record) -> str | None:
    """The search that was typed when the record was made; None where none was, or nobody kept what was typed."""
    try:
        words = shlex.split(record.command or "")
    except ValueError:
        return None
    typed = [word.lstrip("+").removeprefix("search=") for word in words if word.lstrip("+").startswith("search=")]
    return typed[-1] if typed else "tune" if words[1:2] == ["tune"] else None


def computed_share(row: TrialFigures) -> float | None:
    """Of the steps of an image; None where it is not known how many were skipped."""
    return None if row.cached_steps is None or not row.steps else 1 - row.cached_steps / row.steps


def _point(row: TrialFigures, cost: Cost) -> tuple[float, float] | None:
    """What a trial saves of the reference point's cost, and how far it is above its likeness."""
    alike = likeness(row)
    share = computed_share(row) if cost == "steps" else None if not row.speedup else 1 / row.speedup
    if row.state != "COMPLETE" or not row.is_trusted or alike is None or share is None:
        return None
    return REFERENCE[0] - share, alike[0] - REFERENCE[1]


def _volumes(points: Sequence[tuple[float, float] | None]) -> tuple[float, ...]:
    """The hypervolume after each point; one that is covered already is no work."""
    volumes, best = [], list[tuple[float, float]]()
    volume = 0.0
    for point in points:
        if point is not None and not any(x >= point[0] and y >= point[1] for x, y in best):
            best = [point, *(each for each in best if not (point[0] >= each[0] and point[1] >= each[1]))]
            volume = hypervolume(best)
        volumes.append(volume)
    return tuple(volumes)
