"""What a worker says while an engine loads, a few times a second at most, and how long files were checked; no more."""

import time
from collections.abc import Callable
from typing import Any

TELL_S = 0.2
"""Least seconds between two events."""


class LoadingTalk:
    """An `engines.OnProgress` that turns progress into `loading` events."""

    def __init__(self, tell: Callable[[dict[str, Any]], None], clock: Callable[[], float] = time.perf_counter) -> None:
        """`tell` sends an event; `clock` gives seconds."""
        self._tell, self._clock = tell, clock
        self._told: float | None = None
        self._checking_since: float | None = None
        self.checking_s = 0.0  # spent on checksums, which zbench takes and a pipeline's start does not need

    def __call__(self, stage: str, done_bytes: int, total_bytes: int) -> None:
        """Send an event, unless one was sent a moment ago."""
        now = self._clock()
        if stage == "checking" and self._checking_since is None:
            self._checking_since = now
        elif stage != "checking" and self._checking_since is not None:
            self.checking_s += now - self._checking_since
            self._checking_since = None
        if self._told is not None and now - self._told < TELL_S:
            return
        self._told = now
        self._tell({"event": "loading", "stage": stage, "done_bytes": done_bytes, "total_bytes": total_bytes})
