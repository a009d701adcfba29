"""The thread that holds the engine: it loads, warms up with requests of its own, then paints one call after another.

A call that fails is told to its client and the next one is served. What no later call could survive ends the server: a
lost rank, a machine that fails, an error that CUDA keeps, a load that failed. So does what nobody has thought of, if
calls fail one after another and the server's own request, which it could make at first, fails too.
"""

import gc
import threading
import time
from collections.abc import Callable

from zbench.engines import Engine, Grouped, LostRank
from zbench.engines.failure import failure
from zbench.errors import ZbenchError
from zbench.serving.line import Line, QueueClosed, QueuedRequest
from zbench.serving.orders import Menu
from zbench.serving.painting import CallFailed, Painter, ServerFailed

LOADING = ("starting", "loading", "warming up")
"""States before it is `ready`; the last one is `failed`."""

TELL_S = 2.0
"""Least seconds between two lines about a load."""

FAILED_IN_A_ROW = 3
"""Calls that fail one after another before the server tries whether its own request still succeeds."""


class Studio:
    """See the module. `start` begins, `ended` is set when the engine is closed."""

    def __init__(
        self,
        menu: Menu,
        line: Line,
        *,
        talk: Callable[[str], None] = lambda text: None,
        on_ready: Callable[[], None] = lambda: None,
        on_failed: Callable[[], None] = lambda: None,
    ) -> None:
        """The callbacks are called by the engine's thread, `on_failed` perhaps by another one."""
        self._menu, self._line = menu, line
        self._talk, self._on_ready, self._on_failed = talk, on_ready, on_failed
        self._engine: Engine | None = None
        self._told_s = 0.0
        self.state = "starting"
        self.error: ZbenchError | None = None
        self.serving: tuple[QueuedRequest, ...] = ()  # those that are painted now
        self.latest_s = 1.0  # a request of the latest call, for who asks when to come again
        self.ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="zbench-engine", daemon=True)

    def start(self) -> None:
        """Load, in the engine's own thread."""
        self._thread.start()

    def join(self, wait_s: float | None = None) -> bool:
        """Wait for the end of the thread; whether it came."""
        self._thread.join(wait_s)
        return not self._thread.is_alive()

    @property
    def is_loading(self) -> bool:
        """Whether nothing was served yet."""
        return self.state in LOADING

    def _run(self) -> None:
        try:
            self._load()
            while (job := self._line.take()) is not None:
                self._serve(job)
        except ZbenchError as error:
            self._fail(error)
        except Exception as error:
            said = failure(error, self.state, self._engine)
            self._fail(ServerFailed(f"{said['code']}: {said['message']}"))
        finally:
            if self._engine is not None and self.error is None:
                self._engine.close()
            self.ended.set()

    def _load(self) -> None:
        began = time.monotonic()
        trial = self._menu.trial
        self.state = "loading"
        self._talk(f"loading {trial.pipeline.name} ({trial.label})")
        engine = self._engine = self._menu.description.engine()
        if isinstance(engine, Grouped):
            engine.on_lost = self._lost
            engine.call_together(trial)
        engine.launch(trial, self._tell_load)
        loaded_s = time.monotonic() - began
        self.state = "warming up"
        most = self._menu.batching.max_size
        more = f" and one of {most} images" if most > 1 else ""
        self._talk(f"loaded in {loaded_s:.1f} s; warming up with one request{more}")
        if self._line.is_closed:
            return
        self._painter = Painter(engine, self._menu.description)
        self._warm_up()
        gc.collect()
        gc.freeze()  # what is resident stays out of collections
        self._talk(f"warmed up in {time.monotonic() - began - loaded_s:.1f} s")
        if not self._line.is_closed:
            self.state = "ready"
            self._on_ready()

    def _tell_load(self, stage: str, done_bytes: int, total_bytes: int) -> None:
        now = time.monotonic()
        if now - self._told_s >= TELL_S:
            self._told_s = now
            self._talk(f"{stage} weights: {done_bytes / 1e9:.3g} of {total_bytes / 1e9:.3g} GB")

    def _serve(self, head: QueuedRequest) -> None:
        """The head of the queue, and those behind it that share its call."""
        self.serving = (head,)  # from now on a stop waits for it
        try:
            fellows = self._line.fellows(head, time.monotonic() + head.order.batching.delay_s)
            self.serving = (head, *fellows)
            began = time.monotonic()
            self._painter.paint(self.serving)
            self.latest_s = max((time.monotonic() - began) / len(self.serving), 0.001)
        finally:
            self.serving = ()
        if self._painter.failed_in_a_row >= FAILED_IN_A_ROW:
            failed = self._own(1)
            if failed is not None:
                raise ServerFailed.of(failed, f"{FAILED_IN_A_ROW} calls failed, and the server's own request did too")

    def _own(self, n: int) -> CallFailed | None:
        """What the server's own request failed of, for so many images in one call."""
        outcomes: list[object] = []
        self._painter.paint([QueuedRequest(self._menu.own_order(n), outcomes.append)], again=False)
        return next((outcome for outcome in outcomes if isinstance(outcome, CallFailed)), None)

    def _warm_up(self) -> None:
        """One image, and as many as a call may make: what does not fit is to be known before a client comes."""
        most = self._menu.batching.max_size
        for n in dict.fromkeys((1, most)):
            failed = self._own(n)
            if failed is not None and isinstance(failed.__cause__, ZbenchError):
                raise failed.__cause__
            if failed is not None:
                flag = "" if n == 1 else f"--batching-max-size {most}: "
                raise ServerFailed(f"{flag}{failed.code}: {failed}") from failed

    def _lost(self, lost: LostRank) -> None:
        """Of another thread, while the engine's may wait for ever."""
        for job in self.serving:
            job.settle(CallFailed(lost.code, lost.message))
        self._fail(ServerFailed(f"{lost.code}: {lost.message}; start the server anew"))

    def _fail(self, error: ZbenchError) -> None:
        self.error, self.state = error, "failed"
        for job in self._line.close():
            job.settle(QueueClosed())
        self._on_failed()
