"""How far the loading of a pipeline is: a bar on a terminal, at most one line a load elsewhere; it times no trial."""

import time
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from zbench.sanitize import printable

LONG_S = 5.0
"""A load that takes longer is worth a line where there is no bar."""

GB = 1e9


class LoadingBar:
    """Fed with every event of a worker; bytes count once as checked and once as loaded."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives seconds."""
        self._console, self._clock = console, clock
        self._began = 0.0
        self._said = False
        self._doing = ""
        self.progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=console,
            get_time=clock,
        )

    @property
    def shown(self) -> bool:
        """Whether something is loading whose size is known."""
        return bool(self.progress.tasks)

    def event(self, label: str, event: dict[str, Any]) -> None:
        """Take an event of the trial `label`; any but `loading` ends the bar."""
        if event.get("event") != "loading":
            self.end()
        elif "stage" not in event:
            self.end()
            self._began, self._said, self._doing = self._clock(), False, ""
        else:
            self._update(label, event)

    def end(self) -> None:
        """Take the bar away."""
        for task in self.progress.task_ids:
            self.progress.remove_task(task)

    def _wait(self, label: str, doing: str) -> None:
        """For what has no size, such as a server's start: a line each time that it waits for another thing."""
        if doing != self._doing and self._clock() - self._began > LONG_S:
            self._doing = doing
            text = f"{printable(label)}: {printable(doing)}"
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _update(self, label: str, event: dict[str, Any]) -> None:
        done, total = event["done_bytes"], event["total_bytes"]
        if not total:
            self._wait(label, "checking weights" if event["stage"] == "checking" else event["stage"])
            return
        label, doing = printable(label), printable(f"{event['stage']} weights")
        if not self.shown:
            self.progress.add_task(doing, total=total)
        self.progress.update(self.progress.task_ids[0], description=doing, completed=done, total=total)
        if not self._said and not self._console.is_terminal and self._clock() - self._began > LONG_S:
            self._said = True
            text = f"{label}: {doing}, {done / GB:.3g} of {total / GB:.3g} GB, each file checked and then loaded"
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)
