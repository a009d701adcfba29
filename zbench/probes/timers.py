"""Stage and step times from marks around the calls of a pipeline; it never synchronises a device inside a round.

A mark costs about a microsecond: on a CPU it reads the clock, on CUDA it records an event that is resolved once the
round is over. Nothing here imports torch; modules, devices and events are used by their methods alone.
"""

import time
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar

M = TypeVar("M")


class Timer(Protocol[M]):
    """Takes marks and says how far apart they are."""

    def mark(self) -> M:
        """The instant at which the work issued so far is done."""
        ...

    def synchronize(self) -> None:
        """Wait until all work issued so far is done; `seconds` may be asked only after it."""
        ...

    def seconds(self, begin: M, end: M) -> float:
        """Seconds from one mark to another."""
        ...


class HostTimer:
    """Marks on a device that works while it is called: a CPU."""

    def mark(self) -> float:
        """Seconds of a monotonic clock."""
        return time.perf_counter()

    def synchronize(self) -> None:
        """Nothing to wait for."""

    def seconds(self, begin: float, end: float) -> float:
        """Difference of two marks."""
        return end - begin


class CudaTimer:
    """Marks on the device's own time line: events, recorded on the current stream and read after the round."""

    def __init__(self, cuda: Any) -> None:
        """`cuda` is `torch.cuda`, or a fake with `Event(enable_timing=…)` and `synchronize()`."""
        self._cuda = cuda

    def mark(self) -> Any:
        """An event that has been recorded and not waited for."""
        event = self._cuda.Event(enable_timing=True)
        event.record()
        return event

    def synchronize(self) -> None:
        """Wait for the device."""
        self._cuda.synchronize()

    def seconds(self, begin: Any, end: Any) -> float:
        """`elapsed_time` is in milliseconds."""
        return float(begin.elapsed_time(end)) / 1e3


class StageClock(Generic[M]):
    """Spans of named stages, taken by wrapping methods and hooking modules; `close` takes every wrapper off again."""

    def __init__(self, timer: Timer[M], on_mark: Callable[[str], None] = lambda stage: None) -> None:
        """`on_mark` is told of a stage whenever it begins or ends; it stands inside timed calls, and must be quick."""
        self.timer = timer
        self._on_mark = on_mark
        self.latest: str | None = None  # stage that began last
        self._spans: dict[str, list[tuple[M, M]]] = {}
        self._open: dict[str, M] = {}
        self._undo = ExitStack()

    def reset(self) -> None:
        """Forget every span; called before each round."""
        self.latest = None
        self._spans.clear()
        self._open.clear()

    def begin(self, stage: str) -> None:
        """Mark a beginning."""
        self.latest = stage
        self._open[stage] = self.timer.mark()
        self._on_mark(stage)

    def end(self, stage: str) -> None:
        """Mark the end of what `begin` began."""
        self._spans.setdefault(stage, []).append((self._open.pop(stage), self.timer.mark()))
        self._on_mark(stage)

    def spans_s(self, stage: str) -> list[float]:
        """Seconds of every span of a stage, in order. Ask after the timer has been synchronised."""
        return [self.timer.seconds(begin, end) for begin, end in self._spans.get(stage, [])]

    def gap_s(self, before: str, after: str) -> float | None:
        """Seconds from the last end of one stage to the first beginning of another; None without either."""
        if not self._spans.get(before) or not self._spans.get(after):
            return None
        return self.timer.seconds(self._spans[before][-1][1], self._spans[after][0][0])

    def watch_method(self, owner: Any, name: str, stage: str) -> None:
        """Time calls of `owner.name` by an attribute of the instance; the class is left alone."""
        method: Callable[..., Any] = getattr(owner, name)
        had_own = name in vars(owner)

        def timed(*args: Any, **kwargs: Any) -> Any:
            self.begin(stage)
            try:
                return method(*args, **kwargs)
            finally:
                self.end(stage)

        setattr(owner, name, timed)
        self._undo.callback(setattr, owner, name, method) if had_own else self._undo.callback(delattr, owner, name)

    def watch_module(self, module: Any, stage: str) -> None:
        """Time a torch module's forwards by hooks, which survive those who replace its `forward` (cache-dit does)."""
        before = module.register_forward_pre_hook(lambda *_: self.begin(stage), prepend=True)
        after = module.register_forward_hook(lambda *_: self.end(stage), always_call=True)
        self._undo.callback(before.remove)
        self._undo.callback(after.remove)

    def close(self) -> None:
        """Put everything back as it was."""
        self._undo.close()

    def __enter__(self) -> "StageClock[M]":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
