"""What a sweep says while it runs, on stderr: a live table and an ETA on a terminal, a line a trial elsewhere."""

import time
from types import TracebackType
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from zbench.analysis.view import view_of
from zbench.record import Record
from zbench.space import Placed
from zbench.sweeper.loading_bar import LoadingBar
from zbench.trial import Trial

ROWS = 16  # of the live table; the oldest scroll away


class Eta:
    """Seconds left, from the wall time of the trials that were run here."""

    def __init__(self, trials: int) -> None:
        self.left = trials
        self._spent: list[float] = []

    def add(self, wall_s: float | None) -> None:
        """One trial less; `wall_s` is None for one that was taken from the journal."""
        self.left -= 1
        if wall_s is not None:
            self._spent.append(wall_s)

    @property
    def seconds(self) -> float | None:
        """None until a trial was run."""
        return self.left * sum(self._spent) / len(self._spent) if self._spent else None

    def __str__(self) -> str:
        if self.left == 0:
            return "done"
        return "ETA after the first trial" if self.seconds is None else f"ETA {duration(self.seconds)}"


class SweepProgress:
    """A `sweep.SweepListener` that shows a sweep of `trials` trials on a rich console."""

    def __init__(self, trials: int, console: Console) -> None:
        self.console = console
        self.eta = Eta(trials)
        self.total = trials
        self._rows: list[tuple[str, ...]] = []
        self._compared_with: dict[str, Record] = {}  # references and baselines so far
        self._now = ""
        self._started = 0.0
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[eta]}"),
            console=console,
        )
        self._loading = LoadingBar(console)
        self._task = self._bar.add_task("trials", total=self.total, eta=str(self.eta))
        self._live = Live(console=console, get_renderable=self._render, refresh_per_second=4, transient=True)

    def note(self, text: str) -> None:
        """Print a sentence above the table."""
        self.console.print(f"note: {text}", markup=False, highlight=False, soft_wrap=True)

    def reused(self, placed: Placed, record: Record) -> None:
        """Count a trial from the journal."""
        self._add(record, None, "from the journal")

    def started(self, placed: Placed) -> None:
        """Show which trial runs."""
        self._started = time.monotonic()
        self._now = f"{placed.trial.label}: starting"

    def event(self, placed: Placed, event: dict[str, Any]) -> None:
        """Show what the running trial does."""
        self._loading.event(placed.trial.label, event)
        self._now = f"{placed.trial.label}: {describe(event)}"

    def finished(self, placed: Placed, record: Record) -> None:
        """Show the trial's figures."""
        self._add(record, time.monotonic() - self._started, "")

    def added(self, placed: Placed, trial: Trial) -> None:
        """Count one more trial."""
        self.eta.left += 1
        self.total += 1
        self._bar.update(self._task, total=self.total)
        self.note(f"{placed.trial.label} ran out of memory; {trial.label} is tried in its place")

    def _add(self, record: Record, wall_s: float | None, remark: str) -> None:
        self.eta.add(wall_s)
        self._now = ""
        self._loading.end()
        row = self._row(record, remark)
        self._rows.append(row)
        self._bar.update(self._task, completed=self.total - self.eta.left, eta=str(self.eta))
        if not self.console.is_terminal:
            done = f"[{self.total - self.eta.left}/{self.total}]"
            self.console.print(
                " ".join([done, *filter(None, row), *([] if wall_s is None else [f"({self.eta})"])]),
                markup=False,
                highlight=False,
                soft_wrap=True,
            )

    def _row(self, record: Record, remark: str) -> tuple[str, ...]:
        """As the table will have it, caveats included; what is compared with is what was shown before."""
        if record.is_reference or record.is_baseline:
            self._compared_with[record.trial_id] = record
        others = [self._compared_with[i] for i in (record.reference_id, record.baseline_id) if i in self._compared_with]
        figures = next(row for row in view_of([*others, record]).trials if row.trial_id == record.trial_id)
        if record.measurement is None:
            return record.label, record.state, "", "", f"{figures.reason_code}: {figures.reason}"
        about = "~" if record.measurement.projection else ""
        doubt = f"(!) {'; '.join(figures.caveats)}" if figures.caveats else ""
        latency = "no valid round" if figures.latency_median_s is None else f"{about}{figures.latency_median_s:.3f} s"
        speed_up = "" if figures.speedup is None else f"{about}{figures.speedup:.2f}x"
        skipped = "" if figures.cached_steps is None else f"{figures.cached_steps:.1f} steps skipped"
        return record.label, latency, speed_up, skipped, "; ".join(filter(None, [remark, doubt]))

    def _render(self) -> Group:
        table = Table(box=None, pad_edge=False)
        for title in ("trial", "latency", "speed-up", "cached", ""):
            table.add_column(title, no_wrap=True)
        for row in self._rows[-ROWS:]:
            table.add_row(*(Text(cell) for cell in row))
        loading = [self._loading.progress] if self._loading.shown else []
        return Group(table, Text(self._now), *loading, self._bar)

    def __enter__(self) -> "SweepProgress":
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()


def describe(event: dict[str, Any]) -> str:
    """An event of the worker in words."""
    kind = event.get("event")
    if kind == "round":
        return f"{event['phase']} round {event['index'] + 1}, {event['latency_s']:.3f} s"
    return f"{event['stage']} weights" if "stage" in event else str(kind)


def duration(seconds: float) -> str:
    """`45 s`, `3 min 05 s`, `2 h 10 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
