"""The bounded queue between the server and its engine: first come, first served; who left is never served.

One that may share a call with the first goes with it, past those that may not.

Any thread may call any method.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from zbench.serving.orders import Order


@dataclass(eq=False)
class QueuedRequest:
    """One request in the queue."""

    order: Order
    settle: Callable[[Any], None]
    """Called once with what came of it, an exception perhaps, by the thread that knows it."""
    came_s: float = field(default_factory=time.monotonic)
    left: bool = False  # whether nobody waits for it any more


class QueueFull(Exception):
    """No room; `ahead` requests wait."""

    def __init__(self, ahead: int) -> None:
        super().__init__(f"{ahead} requests wait")
        self.ahead = ahead


class QueueClosed(Exception):
    """Nothing is taken any more."""


class Line:
    """Requests that wait."""

    def __init__(self, most: int) -> None:
        """At most `most` wait; the one that is served is not among them."""
        self._most = most
        self._waiting: deque[QueuedRequest] = deque()
        self._changed = threading.Condition()
        self._closed = False

    def __len__(self) -> int:
        """How many wait."""
        with self._changed:
            return len(self._waiting)

    @property
    def is_closed(self) -> bool:
        """Whether nothing is taken any more."""
        return self._closed

    def put(self, job: QueuedRequest) -> None:
        """Raises QueueFull or QueueClosed."""
        with self._changed:
            if self._closed:
                raise QueueClosed
            if len(self._waiting) >= self._most:
                raise QueueFull(len(self._waiting))
            self._waiting.append(job)
            self._changed.notify_all()

    def take(self) -> QueuedRequest | None:
        """The next one, waited for; None once the queue is closed."""
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            return self._waiting.popleft() if self._waiting else None

    def fellows(self, head: QueuedRequest, until_s: float) -> list[QueuedRequest]:
        """Those that may be painted in one call with `head`, which was taken, oldest first.

        Where there are not enough to fill the call, more are waited for until then, by `time.monotonic`.
        """
        order, found = head.order, list[QueuedRequest]()
        room = order.batching.max_size - order.n
        with self._changed:
            while True:
                for job in list(self._waiting):
                    if job.order.n <= room and job.order.shares_call(order):
                        self._waiting.remove(job)
                        found.append(job)
                        room -= job.order.n
                left_s = until_s - time.monotonic()
                if room <= 0 or left_s <= 0 or self._closed or head.left:
                    return found
                self._changed.wait(left_s)

    def leave(self, job: QueuedRequest) -> bool:
        """Its client is gone: it is taken out, or, where it is served already, marked. Whether it still waited."""
        with self._changed:
            job.left = True
            self._changed.notify_all()  # who waits for fellows of it need not
            if job in self._waiting:
                self._waiting.remove(job)
                return True
            return False

    def close(self) -> list[QueuedRequest]:
        """Take nothing any more, and give those that waited."""
        with self._changed:
            self._closed = True
            waited = list(self._waiting)
            self._waiting.clear()
            self._changed.notify_all()
            return waited
