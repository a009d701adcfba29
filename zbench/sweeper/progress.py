"""What a sweep says while it runs, on stderr: a live table and an ETA on a terminal, a line a trial elsewhere."""

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from zbench.analysis.figures import TrialFigures
from zbench.record import Record
from zbench.sanitize import printable
from zbench.search import Foresight
from zbench.space import Placed
from zbench.sweeper.loading_bar import LoadingBar
from zbench.trial import Trial

ROWS = 16  # of the live table; the oldest scroll away

QUIET_S = 15.0
"""After so long without a line a trial says what it does, where there is no live table; then after twice as long."""


class Eta:
    """Seconds left, from the wall time of the trials that were run here, so many at once."""

    def __init__(self, trials: int, side_by_side: int = 1) -> None:
        self.left = trials
        self._side_by_side = side_by_side
        self._spent: list[float] = []

    def add(self, wall_s: float | None) -> None:
        """One trial less; `wall_s` is None for one that was taken from the journal."""
        self.left -= 1
        if wall_s is not None:
            self._spent.append(wall_s)

    @property
    def seconds(self) -> float | None:
        """None until a trial was run."""
        turns = -(-self.left // self._side_by_side)
        return turns * sum(self._spent) / len(self._spent) if self._spent else None

    def __str__(self) -> str:
        if self.left == 0:
            return "done"
        return "ETA after the first trial" if self.seconds is None else f"ETA {duration(self.seconds)}"


@dataclass
class _Shown:
    """A trial that runs."""

    label: str
    began: float
    doing: str
    told_at: float  # its last line, where there is no live table
    of: int = 1  # so many that take turns
    quiet_s: float = QUIET_S
    slowed: str = ""  # by what
    node: str = ""  # the machine of a cluster

    def __str__(self) -> str:
        on = f" on {self.node}" if self.node else ""
        return f"{self.label}{on}: {'; '.join(filter(None, [self.doing, self.slowed]))}"


class SweepProgress:
    """A `SweepListener` that shows a sweep on a rich console; with an ETA where it is known how many trials it has."""

    def __init__(
        self,
        foresight: Foresight,
        console: Console,
        side_by_side: int = 1,
        clock: Callable[[], float] = time.monotonic,
        labels: Mapping[str, str] | None = None,
    ) -> None:
        """`foresight` is the search's, `side_by_side` how many run at once; `clock` gives seconds. `labels`, by trial
        id, are what trials are called that share a label with others."""
        self.console, self._clock = console, clock
        self._labels = labels or {}
        self._is_exact, self._done = foresight.is_exact, 0
        self.total = foresight.most  # None: nobody knows
        self.eta = Eta(foresight.most or 0, side_by_side)
        self._rows: deque[tuple[str, ...]] = deque(maxlen=ROWS)
        self._running: dict[str, _Shown] = {}  # by trial id
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[count]}"),
            TextColumn("{task.fields[eta]}"),
            console=console,
        )
        self._loading = LoadingBar(console, clock)
        self._task = self._bar.add_task("trials", total=None)
        self._show_count()
        self._live = Live(console=console, get_renderable=self._render, refresh_per_second=4, transient=True)

    def note(self, text: str) -> None:
        """Print a sentence above the table."""
        self._line(f"note: {printable(text)}")

    def reused(self, placed: Placed, record: Record, figures: TrialFigures) -> None:
        """Count a trial from the journal."""
        self._add(placed, record, figures, None, "from the journal")

    def started(self, placed: Placed, of: int = 1) -> None:
        """Show which trial runs, one `of` so many that take turns."""
        now = self._clock()
        self._running[placed.trial.trial_id] = _Shown(printable(self._label(placed.trial)), now, "starting", now, of)

    def event(self, placed: Placed, event: dict[str, Any]) -> None:
        """Show what the running trial does."""
        shown, kind, now = self._running[placed.trial.trial_id], event.get("event"), self._clock()
        shown.node = printable(event.get("node", ""))
        if kind == "slowed":
            shown.slowed = printable(event["text"] or "")
        else:
            self._loading.event(self._label(placed.trial), event)
            shown.doing = printable(describe(event))
        has_bar = kind == "loading"  # which has a line of its own
        if self.console.is_terminal or has_bar or (kind != "waiting" and now - shown.told_at < shown.quiet_s):
            return
        shown.quiet_s *= 1 if kind == "waiting" else 2
        shown.told_at = now
        self._line(str(shown))

    def finished(self, placed: Placed, record: Record, figures: TrialFigures) -> None:
        """Show the trial's figures."""
        shown = self._running.pop(placed.trial.trial_id, None)  # one that cannot work was never started
        wall_s = None if shown is None else (self._clock() - shown.began) / shown.of
        self._add(placed, record, figures, wall_s, "")

    def added(self, trial: Trial, instead_of: Trial | None) -> None:
        """Count one more trial, but one that a bound has counted."""
        if self.total is not None and (self._is_exact or instead_of is not None):
            self.eta.left += 1
            self.total += 1
            self._show_count()
        if instead_of is not None:
            self.note(f"{self._label(instead_of)} ran out of memory; {self._label(trial)} is tried in its place")

    def _label(self, trial: Trial) -> str:
        return self._labels.get(trial.trial_id, trial.label)

    def _add(self, placed: Placed, record: Record, figures: TrialFigures, wall_s: float | None, remark: str) -> None:
        self.eta.add(wall_s)
        self._done += 1
        self._loading.end()
        row = tuple(map(printable, (self._label(placed.trial), *_row(record, figures, remark))))
        self._rows.append(row)
        self._show_count()
        if not self.console.is_terminal:
            left = [f"({self.eta})"] if self._is_exact and wall_s is not None else []
            self._line(" ".join([f"[{self._count}]", *filter(None, row), *left]))

    @property
    def _count(self) -> str:
        """`3/8`; `3 of 32 at most` and `3` where a search decides on the way how many there are."""
        if self._is_exact:
            return f"{self._done}/{self.total}"
        return f"{self._done}" if self.total is None else f"{self._done} of {max(self.total, self._done)} at most"

    def _show_count(self) -> None:
        eta = str(self.eta) if self._is_exact else ""
        total = self.total if self._is_exact else None
        self._bar.update(self._task, total=total, completed=self._done, count=self._count, eta=eta)

    def _line(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _render(self) -> Group:
        table = Table(box=None, pad_edge=False)
        for title in ("trial", "latency", "speed-up", "cached", ""):
            table.add_column(title, no_wrap=True)
        for row in self._rows:
            table.add_row(*(Text(cell) for cell in row))
        loading = [self._loading.progress] if self._loading.shown else []
        now = [Text(str(shown)) for shown in self._running.values()] or [Text("")]
        return Group(table, *now, *loading, self._bar)

    def __enter__(self) -> "SweepProgress":
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()


def _row(record: Record, figures: TrialFigures, remark: str) -> tuple[str, ...]:
    """After the label, as the table will have it, caveats included; what is compared with is what was shown before."""
    if record.valid_measurement is None:
        return record.state, "", "", f"{figures.reason_code}: {figures.reason}"
    about = "~" if record.valid_measurement.projection else ""
    doubt = f"(!) {'; '.join(figures.caveats)}" if figures.caveats else ""
    absent = "not timed" if record.valid_measurement.quality_only else "no valid round"
    latency = absent if figures.latency_median_s is None else f"{about}{figures.latency_median_s:.3f} s"
    speed_up = "" if figures.speedup is None else f"{about}{figures.speedup:.2f}x"
    if figures.speedup_way is not None and figures.speedup_low is not None:
        speed_up += f" [{figures.speedup_low:.2f}, {figures.speedup_high:.2f}]"
    skipped = "" if figures.cached_steps is None else f"{figures.cached_steps:.1f} steps skipped"
    return latency, speed_up, skipped, "; ".join(filter(None, [remark, _cold(figures), doubt]))


def _cold(figures: TrialFigures) -> str:
    """What starting cost, where this trial paid it: `cold: loaded in 2.1 s, first request 38 s, 36 s compiling`."""
    paid = [(figures.load_s, "loaded in {}"), (figures.first_request_s, "first request {}")]
    said = [form.format(f"{seconds:.2g} s") for seconds, form in paid if seconds is not None]
    said += [f"{figures.compile_s:.2g} s compiling"] if figures.compile_s else []
    return f"cold: {', '.join(said)}" if said else ""


def describe(event: dict[str, Any]) -> str:
    """An event of the worker in words."""
    kind = event.get("event")
    if kind == "round":
        return f"{event['phase']} round {event['index'] + 1}, {event['latency_s']:.3f} s"
    if kind in ("loading", "loaded"):
        what = "loaded, warming up" if kind == "loaded" else "loading"
        return f"{event['stage']} weights" if "stage" in event else what
    return str(event.get("text", kind))


def duration(seconds: float) -> str:
    """`45 s`, `3 min 05 s`, `2 h 10 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
