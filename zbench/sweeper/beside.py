"""Which uncached trial takes turns with each trial, as far as a plan can say, and in words; it runs nothing."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from zbench.analysis.labels import as_typed, flatten
from zbench.config import ServedEngineConfig
from zbench.engines import Descriptions
from zbench.methods.cache import method_of
from zbench.space import Placed, constraint
from zbench.trial import Trial, geometry_of


def uncached_beside(
    placed: Placed, baseline: Trial, engines: Descriptions, process: Callable[[Trial], str] | None = None
) -> Trial | None:
    """The uncached trial of the same loaded pipeline, with which `placed` takes turns; None: it has none.

    That is the speed baseline itself where one process serves both. One that is known to skip nothing is no other than
    the uncached trial, which takes turns with none. `process` is what `engines` say, perhaps remembered.
    """
    trial = placed.trial
    if placed.is_reference or placed.is_baseline or trial.hardware is not None or trial.workload.is_load:
        return None
    process = process or engines.process
    found = next((each for each in (baseline, engines.uncached(trial)) if process(each) == process(trial)), None)
    if found is None or found.trial_id == trial.trial_id:
        return None
    if not method_of(engines.plainest(trial)[0].cache).skips and not method_of(found.cache).skips:
        return None
    return None if constraint(found, geometry_of(found.pipeline)) or engines.supports(found) else found


def may_begin_a_block(placed: Placed) -> bool:
    """Whether an uncached trial, or a baseline, may be measured in the turns that others take with it, and not alone. A
    server's may not, for nobody knows what settings of others leave there; nor a reference that others' baseline waits
    for."""
    trial = placed.trial
    alone = placed.quality_only or trial.workload.is_load or isinstance(trial.engine, ServedEngineConfig)
    return trial.hardware is None and not alone and (placed.is_baseline or not placed.is_reference)


def companions(placed: Sequence[Placed], engines: Descriptions) -> dict[str, Trial]:
    """By the id of each trial that has one."""
    by_id = {each.trial.trial_id: each.trial for each in placed}
    processes: dict[str, str] = {}

    def process(trial: Trial) -> str:
        if trial.trial_id not in processes:
            processes[trial.trial_id] = engines.process(trial)
        return processes[trial.trial_id]

    found = (
        (each, uncached_beside(each, by_id.get(each.baseline_id, each.trial), engines, process)) for each in placed
    )
    return {each.trial.trial_id: companion for each, companion in found if companion is not None}


def turns_told(placed: Sequence[Placed], beside: Mapping[str, Trial], engines: Descriptions) -> list[str]:
    """Sentences about uncached trials that take turns and have no row, and about trials that none takes turns with.

    Each says which values add the row: what is typed for one key is asked for with every value of the others.
    """
    rows = {each.trial.trial_id for each in placed}
    without_row: dict[str, list[Trial]] = {}
    alone = []
    for each in placed:
        trial, companion = each.trial, beside.get(each.trial.trial_id)
        if companion is not None and companion.trial_id not in rows:
            without_row.setdefault(companion.trial_id, []).append(trial)
        elif companion is None and _could_have_one(each, engines):
            alone.append(trial)
    said = []
    for trials in without_row.values():
        companion = beside[trials[0].trial_id]
        turns = f"turns are taken with {companion.label}, which has no row of its own"
        said.append(f"{_listed(trials)}: {turns}; {_adds(['cache=none', *_other_than(companion, trials[0])])}")
    if alone:
        said.append(
            f"{_listed(alone)}: no uncached trial is of the same process ({_engines_of(alone)}), so that speed-ups are "
            "not by turns, and their intervals count what equal processes differ by"
        )
    return said


def _adds(values: Sequence[str]) -> str:
    """That these, among the values asked for, add a row; of several keys all combinations are asked for."""
    besides = ", and one for each other combination" if len(values) > 1 else ""
    return f"add {' and '.join(values)} to the values asked for to give it a row{besides}"


def _could_have_one(placed: Placed, engines: Descriptions) -> bool:
    """Whether it skips steps and is timed, so that one would expect turns."""
    trial = placed.trial
    if placed.is_reference or placed.is_baseline or placed.quality_only or trial.hardware is not None:
        return False
    return not trial.workload.is_load and method_of(engines.plainest(trial)[0].cache).skips


def _other_than(companion: Trial, trial: Trial) -> list[str]:
    """Overrides by which the uncached trial differs from `trial` besides its cache."""
    before = flatten(trial.to_dict())
    return [
        f"{key}={as_typed(value)}"
        for key, value in flatten(companion.to_dict()).items()
        if not key.startswith("cache.") and before.get(key) != value
    ]


def _listed(trials: Sequence[Trial], most: int = 3) -> str:
    shown = [trial.label for trial in trials[:most]]
    return ", ".join(shown) + (f" and {len(trials) - most} more" if len(trials) > most else "")


def _engines_of(trials: Iterable[Trial]) -> str:
    return ", ".join(dict.fromkeys(f"engine={trial.engine.name}" for trial in trials))
