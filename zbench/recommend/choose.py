"""For each piece of work, the fastest trial that satisfies every constraint, what binds it, and the runner-up.

Trials of one piece of work are ranked by the speed-up the report shows; each kind of device has a ranking of its own.
Refuses to recommend what the report distrusts, and figures that were not measured on the model asked for, unless that
is allowed; then it says so in its head. What is projected must also fit into the memory of its hardware.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from zbench.analysis.constraints import Constraint, Limits, constraints_of, hardware_memory
from zbench.analysis.figures import TrialFigures
from zbench.analysis.holdout import works_judged
from zbench.analysis.view import View
from zbench.analysis.work import work_key, work_names
from zbench.errors import ConfigError, NothingFeasibleError, RecordError, ZbenchError
from zbench.measurement import QUALITY_ONLY, RANDOM_WEIGHTS
from zbench.recommend.evidence import evidence_of, not_measured
from zbench.recommend.held_out import OtherSamples
from zbench.recommend.recommendation import Advice, Binding, NoAnswer, Recommendation
from zbench.recommend.uses import DeviceUse, Goal, counted, rank_uses, use_notes
from zbench.record import Record
from zbench.report.tables.main import table_head
from zbench.report.text import cells
from zbench.trial import Trial

MOST_NAMED = 3  # of the trials left out
FIT_IT = "sweep again with offload=all or offload=group, or onto hardware with more memory"


def recommend(view: View, limits: Limits, *, allow_proxy: bool = False, goal: Goal | None = None) -> Advice:
    """One answer for each piece of work: of its COMPLETE trials the fastest that is feasible and to be trusted.

    Where they were measured on several kinds of devices, one for each kind. With a `goal` one for each number of
    devices too, the best for the goal's objective.

    A piece of work that has no answer says why in its place. Raises ConfigError for a limit that cannot be meant or
    that no record can be judged by, RecordError where the records allow no choice, and NothingFeasibleError, naming
    what came nearest, for the one piece of work there is.
    """
    constraints = constraints_of(limits)
    works: dict[str, list[tuple[TrialFigures, Record]]] = {}
    parts: list[tuple[TrialFigures, Record]] = []
    judging: list[tuple[TrialFigures, Record]] = []
    for row, record in view.pairs:
        if row.state == "PRUNED":
            continue  # what cannot work asks for no answer
        judging += [(row, record)] if works_judged(record) else []
        if record.part_of is not None:
            parts.append((row, record))
            continue  # on some of the samples, or on others: it served a search, and is no work of its own
        works.setdefault(work_key(record.trial), []).append((row, record))
    if not works and parts:
        problem = "were made by a search on some of the samples alone, or on others; the same command goes on with it"
        raise RecordError(f"nothing to choose among: all {cells.trials(len(parts))} of these records {problem}")
    if not works:
        raise RecordError("no COMPLETE trial in these records; every trial was pruned, zbench report says why")
    others = OtherSamples.of(judging)
    names = work_names([pairs[0][1].trial for pairs in works.values()])
    answers: list[Recommendation | NoAnswer] = []
    refusals: list[ZbenchError] = []
    for work, goal_here, rows in _questions(names, works.values(), goal):
        try:
            answers.append(_answer(view, work, rows, constraints, allow_proxy, goal_here, others))
        except (ConfigError, RecordError, NothingFeasibleError) as refusal:
            refusals.append(refusal)
            answers.append(NoAnswer(work, str(refusal)))
    none_was_judged = not any(isinstance(refusal, NothingFeasibleError) for refusal in refusals)
    if len(refusals) == len(answers) and (len(answers) == 1 or none_was_judged):
        raise refusals[0]
    return Advice(tuple(answers))


def _questions(
    names: Sequence[str], works: Iterable[Sequence[tuple[TrialFigures, Record]]], goal: Goal | None
) -> Iterator[tuple[str, Goal | None, list[TrialFigures]]]:
    """What is asked, its name first: each piece of work on each kind of device, and with a goal each number of them."""
    for work, pairs in zip(names, works, strict=True):
        for name, rows in _kinds_apart(work, [row for row, _ in pairs]):
            if goal is None:
                yield name, None, rows
                continue
            for devices in goal.numbers(rows):
                yield f"{name}, {goal.objective} on {counted(devices)}", replace(goal, devices=devices), rows


def _kinds_apart(work: str, rows: list[TrialFigures]) -> Iterator[tuple[str, list[TrialFigures]]]:
    """The trials of each kind of device, as a cluster may have several: which setting is faster says nothing across."""
    kinds = dict.fromkeys(row.device for row in rows if row.state == "COMPLETE")
    if len(kinds) < 2:
        yield work, rows
        return
    for kind in kinds:
        yield f"{work}, measured on {kind}", [row for row in rows if row.device == kind]


def _answer(
    view: View,
    work: str,
    rows: Sequence[TrialFigures],
    constraints: Sequence[Constraint],
    allow_proxy: bool,
    goal: Goal | None,
    others: OtherSamples,
) -> Recommendation:
    def trial_of(row: TrialFigures) -> Trial:
        return view.by_key[row.key].trial

    comparable, left_out = _comparable([row for row in rows if row.state == "COMPLETE"], allow_proxy)
    for constraint in constraints:
        _refuse_unjudgeable(constraint, comparable)
    trusted, doubted = _trusted(comparable)
    trusted, untimed = _timed(trusted)
    trusted, broken = others.holding(trusted, trial_of, constraints)
    left_out = [*left_out, *doubted, *untimed, *broken]
    if not trusted:
        raise NothingFeasibleError("; ".join(left_out))
    constraints = [*constraints, *hardware_memory(trusted)]
    every = [row for row in trusted if _feasible(row, constraints)]
    uses = [] if goal is None else rank_uses(trusted, trial_of, goal.objective, goal.devices or 1)
    trusted = _fastest_first(trusted) if goal is None else [use.row for use in uses]
    feasible = [row for row in trusted if _feasible(row, constraints)]
    if not feasible:
        raise NothingFeasibleError("; ".join([_nothing_feasible(trusted, constraints), *left_out]))
    chosen = feasible[0]
    use = next((use for use in uses if use.row is chosen), None)
    other = [] if use is None else use_notes(every, trial_of, use)
    return Recommendation(
        work=work,
        head=table_head([chosen]),
        chosen=chosen,
        trial=trial_of(chosen),
        judged=tuple(constraint.judge(chosen) for constraint in constraints if constraint.applies(chosen)),
        binding=tuple(_binding(trusted, constraints)),
        runner_up=feasible[1] if len(feasible) > 1 else None,
        notes=(*_notes(chosen, feasible, use), *others.notes(trial_of(chosen), constraints), *other, *left_out),
        use=use,
        evidence=evidence_of(chosen, view.by_key[chosen.key]),
        unmeasured=not_measured(chosen, view.by_key[chosen.key]),
    )


def _comparable(complete: Sequence[TrialFigures], allow_proxy: bool) -> tuple[list[TrialFigures], list[str]]:
    """Trials that were measured, or all if `allow_proxy`, and a sentence for those that were left out."""
    if not complete:
        raise RecordError("no COMPLETE trial in these records; see zbench report for what failed")
    if allow_proxy:
        return list(complete), []
    measured = [row for row in complete if row.source == "measured"]
    if not measured:
        raise RecordError(
            "these records are projected or measured on a smaller model, not on the hardware and model asked "
            "for; give --allow-proxy to choose by them nonetheless"
        )
    others = len(complete) - len(measured)
    were = "trial was" if others == 1 else "trials were"
    return measured, [f"{others} projected or proxy {were} left out (--allow-proxy)"] if others else []


def _trusted(rows: Sequence[TrialFigures]) -> tuple[list[TrialFigures], list[str]]:
    """The trials to choose among, and a sentence for those that are not to be trusted. RecordError if none is."""
    trusted = [row for row in rows if not row.doubts]
    doubted = [row for row in rows if row.doubts]
    why = "; ".join(f"{row.label}: {' and '.join(row.doubts)}" for row in doubted[:MOST_NAMED])
    more = f"; and {len(doubted) - MOST_NAMED} more, see zbench report" if len(doubted) > MOST_NAMED else ""
    if not trusted:
        raise RecordError(f"none of {cells.trials(len(doubted))} is to be trusted ({why}{more})")
    if not doubted:
        return trusted, []
    were = "was" if len(doubted) == 1 else "were"
    return trusted, [f"{cells.trials(len(doubted))} {were} left out as not to be trusted ({why}{more})"]


def _timed(rows: Sequence[TrialFigures]) -> tuple[list[TrialFigures], list[str]]:
    """Those whose time was asked for, and a sentence for the others. RecordError if none is."""
    untimed = [row for row in rows if row.is_untimed]
    if not untimed:
        return list(rows), []
    said = f"{cells.trials(len(untimed))} without a time ({QUALITY_ONLY}), of which images alone were judged"
    if len(untimed) == len(rows):
        raise RecordError(f"{said}: nothing to choose among; measure them with measure.quality_only=false")
    return [row for row in rows if not row.is_untimed], [f"left out: {said}"]


def _fastest_first(rows: Sequence[TrialFigures]) -> list[TrialFigures]:
    """By speed-up where all are compared with one baseline, as the report ranks them; else by median latency."""
    compared = all(row.speedup is not None for row in rows)
    if compared and len({(row.sweep, row.baseline_id) for row in rows}) == 1:
        return sorted(rows, key=lambda row: -(row.speedup or 0.0))
    return sorted(rows, key=lambda row: (row.latency_median_s or math.inf) / row.images)


def _refuse_unjudgeable(constraint: Constraint, rows: Sequence[TrialFigures]) -> None:
    judged = [row for row in rows if not row.is_reference] or list(rows)
    meaningless = any(row.why_missing(constraint.path) == RANDOM_WEIGHTS for row in rows)
    if not meaningless and any(constraint.miss(row) is not None for row in judged):
        return
    why = judged[0].why_missing(constraint.path)
    by_cpu = "; measure on a GPU, or project with hardware=<a GPU> and --allow-proxy" if why == "no_gpu" else ""
    raise ConfigError(
        constraint.flag,
        f"{constraint.limit:g}",
        f"no trial here has a figure for {constraint.what} ({why or 'not recorded'}); leave it out{by_cpu}",
    )


def _feasible(row: TrialFigures, constraints: Sequence[Constraint]) -> bool:
    return all(constraint.miss(row) == 0 for constraint in constraints)


def _binding(rows: Sequence[TrialFigures], constraints: Sequence[Constraint]) -> list[Binding]:
    """Each constraint without which a faster trial would be chosen, the dearest first; if it takes more than
    one to give way, those that the next faster trial misses. `rows` are the fastest first.
    """
    chosen = next(i for i, row in enumerate(rows) if _feasible(row, constraints))
    found = []
    for constraint in constraints:
        others = [c for c in constraints if c is not constraint]
        place = next(i for i, row in enumerate(rows) if _feasible(row, others))
        if place < chosen:
            found.append((place, Binding((constraint.judge(rows[place]),), rows[place])))
    if not found and chosen > 0:
        row = rows[chosen - 1]
        missed = tuple(c.judge(row) for c in constraints if c.miss(row) != 0)
        return [Binding(missed, row)]
    return [binding for _, binding in sorted(found, key=lambda pair: pair[0])]


def _nothing_feasible(rows: Sequence[TrialFigures], constraints: Sequence[Constraint]) -> str:
    def distance(row: TrialFigures) -> tuple[bool, float, float]:
        misses = [constraint.miss(row) for constraint in constraints]
        parts = [m / abs(c.limit or 1) for m, c in zip(misses, constraints, strict=True) if m is not None]
        return (None in misses, sum(parts), row.latency_median_s or math.inf)

    nearest = min(rows, key=distance)
    missed = [constraint for constraint in constraints if constraint.miss(nearest) != 0]
    parts = [str(constraint.judge(nearest)) for constraint in missed]
    if any(constraint.hardware for constraint in missed):
        parts.append(FIT_IT)
    wanted = " and ".join(map(str, constraints))
    speed = f", {nearest.speedup:.2f}× the baseline" if nearest.speedup is not None else ""
    return (
        f"none of {cells.trials(len(rows))} satisfies {wanted}; nearest is {nearest.label} "
        f"({cells.digits(nearest.latency_median_s or 0)} s {cells.for_images(nearest)}{speed}): {'; '.join(parts)}"
    )


def _overlap(chosen: TrialFigures, second: TrialFigures) -> str:
    """What it means that the intervals of the first two overlap; projections may be off in the same way."""
    of = "90 % ranges" if chosen.latency_source == "projected" else "95 % intervals"
    if chosen.projected_speedup_low is not None and not chosen.may_equal(second):
        return (
            f"the {of} of the first two overlap, those of their speed-ups do not: the order is surer than the seconds"
        )
    return f"the {of} of the first two overlap: their speeds cannot be told apart"


def _notes(chosen: TrialFigures, feasible: Sequence[TrialFigures], use: DeviceUse | None) -> list[str]:
    notes = []
    by_speed = use is None or use.objective == "latency"
    if by_speed and len(feasible) > 1:
        second = feasible[1]
        if chosen.latency_high_s and second.latency_low_s and second.latency_low_s <= chosen.latency_high_s:
            notes.append(_overlap(chosen, second))
    if chosen.why_missing("quality") == RANDOM_WEIGHTS and not chosen.is_reference:
        notes.append("weights were random, so nothing is known of its images: look at some before you serve it")
    if by_speed and chosen.is_baseline:
        notes.append("the baseline itself is the best: nothing that was tried is faster and feasible")
    return notes
