"""A sweep on this machine: holds the run folder, the executor, the progress display and the handlers of signals."""

import os
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console

from zbench.analysis.labels import told_apart
from zbench.engines.weights import resolve_weights
from zbench.errors import StoreError, WeightsUnavailableError
from zbench.executors import is_elsewhere, load_executor
from zbench.plugins import check_permitted
from zbench.quality.judge_weights import check_judges
from zbench.search import Search, foresight_of, load_search
from zbench.space import Placed, Space
from zbench.store import Store
from zbench.streams import talk
from zbench.sweeper.outcome import SweepResult
from zbench.sweeper.plan import Plan
from zbench.sweeper.progress import SweepProgress
from zbench.sweeper.reference import named_by_its_key
from zbench.sweeper.signals import Interrupt, on_interrupt
from zbench.sweeper.sweep import Sweep
from zbench.trial import Trial


def conduct(plan: Plan, console: Console, search: Search | None = None) -> SweepResult:
    """Run `plan` and return what came of it. Leaves a run folder that the same command goes on from.

    `search` is that of the plan, where the caller wants to know what it found out.
    """
    search = search or load_search(plan.search, plan.space, allow_code=plan.allow_code)
    trials = search.space.placed  # as far as it knows; it may make more of its own
    check_weights_of(plan, trials)
    check_judges(plan.measure)
    executor = load_executor(plan.executor, plan.run_folder / "logs", allow_code=plan.allow_code)
    try:
        _check_reports(Path(os.path.expanduser(plan.sweep.reports_dir)))  # last, for it makes the folder
    except StoreError:
        executor.close()
        raise
    with (
        SweepProgress(foresight_of(search), console, executor.capacity, labels=labels_of(plan.space)) as progress,
        Store(plan.run_folder, progress.note) as store,
    ):
        interrupt = Interrupt(executor)
        with on_interrupt(interrupt):
            try:
                result = Sweep(plan, store, executor, search, progress, lambda: interrupt.asked).run()
            finally:
                executor.close()
        store.check()
        return result


def labels_of(space: Space) -> dict[str, str]:
    """Of each trial that may come, told apart where several share one."""
    every = [placed.trial for placed in space.placed]
    told = told_apart([trial.label for trial in every], every.__getitem__, lambda index: every[index].trial_id[:6])
    return dict(zip((trial.trial_id for trial in every), told, strict=True))


def check_before(plan: Plan) -> None:
    """Raise ZbenchError for what `conduct` would refuse before it measures anything, as far as `plan` may ask.

    An executor and a search from outside are not asked.
    """
    check_weights_of(plan, plan.trials)
    check_judges(plan.measure)
    for key in ("runs_dir", "reports_dir"):
        _hold_writable(f"sweep.{key}", Path(os.path.expanduser(getattr(plan.sweep, key))))
    if check_permitted("executor", "executor.target", plan.executor.target, allow_code=True).is_own:
        load_executor(plan.executor, plan.run_folder / "logs").close()


def check_weights_of(plan: Plan, placed: Iterable[Placed]) -> None:
    """As `check_weights`. What is not here may be where the trials run, if that is elsewhere: then it is said."""
    try:
        check_weights((each.trial for each in placed), plan.sweep.reference_weights)
    except WeightsUnavailableError as error:
        if not is_elsewhere(plan.executor):
            raise
        talk(f"note: here {error}; the nodes of executor={plan.executor.name} look for it themselves")


def check_weights(trials: Iterable[Trial], reference_weights: str | None = None) -> None:
    """Raise WeightsUnavailableError for missing or truncated weights, or a LoRA that does not fit: the user's to mend
    now, not a FAILED record. Those that `sweep.reference_weights` names are named by that key.

    What a user should know of those that will be loaded is said on stderr.
    """
    checked: set[tuple[object, ...]] = set()
    for trial in trials:
        p = trial.pipeline
        what = *p.named_files, p.download
        if trial.hardware is None and trial.engine.loads_here and what not in checked:
            try:
                note = resolve_weights(p).note
            except WeightsUnavailableError as error:
                if p.lora is not None or p.weights != reference_weights:
                    raise
                raise WeightsUnavailableError(named_by_its_key(str(error))) from error
            if note is not None:
                talk(f"note: {note}")
            checked.add(what)


def _hold_writable(key: str, folder: Path) -> None:
    """Raise StoreError for a folder that is not there and could not be made; nothing is made."""
    try:
        nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        problem = "" if nearest.is_dir() else f"{nearest} is no folder"
        problem = problem or ("" if os.access(nearest, os.W_OK) else f"{nearest}: Permission denied")
    except (OSError, ValueError) as error:
        problem = getattr(error, "strerror", None) or str(error)
    if problem:
        raise StoreError(f"{key}={folder}: cannot be written to ({problem}); choose another")


def _check_reports(folder: Path) -> None:
    """A report that cannot be written is better known before the sweep than after it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        problem = "" if os.access(folder, os.W_OK) else "Permission denied"
    except OSError as error:
        problem = str(error.strerror)
    if problem:
        raise StoreError(f"cannot write the report to {folder}: {problem}; choose another with sweep.reports_dir=")
