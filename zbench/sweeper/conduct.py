"""A sweep on this machine: holds the run folder, the executor, the progress display and the Ctrl-C handler."""

import os
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from rich.console import Console

from zbench.engines.weights import resolve_weights
from zbench.errors import StoreError, WeightsUnavailableError
from zbench.executors import Executor, load_executor
from zbench.plugins import check_permitted
from zbench.quality.judge_weights import check_judges
from zbench.search import load_search
from zbench.store import Store
from zbench.sweeper.plan import Plan
from zbench.sweeper.progress import SweepProgress
from zbench.sweeper.reference import named_by_its_key
from zbench.sweeper.sweep import Sweep, SweepResult
from zbench.trial import Trial


class Interrupt:
    """Ctrl-C: the first asks for a stop after the current round, the second ends the round too."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self.asked = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """The signal handler."""
        if self.asked:
            self._executor.abort()
            return
        self.asked = True
        # A handler may interrupt anything, printing through rich included: only a bare write is safe here.
        os.write(2, b"\nstopping after the current round; Ctrl-C again stops at once\n")


def conduct(plan: Plan, console: Console) -> SweepResult:
    """Run `plan` and return what came of it. Leaves a run folder that the same command goes on from."""
    search = load_search(plan.search, plan.space, allow_code=plan.allow_code)
    trials = search.space.placed  # as far as it knows; it may make more of its own
    check_weights((placed.trial for placed in trials), plan.sweep.reference_weights)
    check_judges(plan.measure)
    _check_reports(Path(plan.sweep.reports_dir))
    executor = load_executor(plan.executor, plan.run_folder / "logs", allow_code=plan.allow_code)
    with (
        SweepProgress(len(trials), console, executor.capacity) as progress,
        Store(plan.run_folder, progress.note) as store,
    ):
        interrupt = Interrupt(executor)
        with on_interrupt(interrupt):
            try:
                return Sweep(plan, store, executor, search, progress, lambda: interrupt.asked).run()
            finally:
                executor.close()


def check_executor(plan: Plan) -> None:
    """Raise ConfigError for an executor of zbench's own that is none, or that has no room here; one from outside is not
    asked."""
    if check_permitted("executor", "executor.target", plan.executor.target, allow_code=True).is_own:
        load_executor(plan.executor, plan.run_folder / "logs").close()


def check_weights(trials: Iterable[Trial], reference_weights: str | None = None) -> None:
    """Raise WeightsUnavailableError for missing or truncated weights, or a LoRA that does not fit: the user's to mend
    now, not a FAILED record. Those that `sweep.reference_weights` names are named by that key."""
    checked: set[tuple[object, ...]] = set()
    for trial in trials:
        p = trial.pipeline
        what = *p.named_files, p.download
        if trial.hardware is None and trial.engine.loads_weights and what not in checked:
            try:
                resolve_weights(p)
            except WeightsUnavailableError as error:
                if p.lora is not None or p.weights != reference_weights:
                    raise
                raise WeightsUnavailableError(named_by_its_key(str(error))) from error
            checked.add(what)


def _check_reports(folder: Path) -> None:
    """A report that cannot be written is better known before the sweep than after it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        problem = "" if os.access(folder, os.W_OK) else "Permission denied"
    except OSError as error:
        problem = str(error.strerror)
    if problem:
        raise StoreError(f"cannot write the report to {folder}: {problem}; choose another with sweep.reports_dir=")


@contextmanager
def on_interrupt(interrupt: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Have Ctrl-C call `interrupt` inside."""
    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
