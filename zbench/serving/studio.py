"""The thread that holds the engine: it loads, warms up with one request of its own, and then paints one job at a time.

A call that fails is told to its client and the next one is served. What no later call could survive (a lost rank, a
machine that fails, a load that failed) ends the server.
"""

import gc
import json
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from zbench.engines import Engine, EngineDescription, Generation, Grouped, LostRank
from zbench.engines.failure import CodedError, RankError, failure
from zbench.errors import Exit, ZbenchError
from zbench.methods.cache import method_of
from zbench.probes.memory import MemoryProbe
from zbench.record import MACHINE
from zbench.serving.line import Line, QueueClosed, QueuedRequest
from zbench.serving.orders import Menu, Order
from zbench.trial import Trial
from zbench.worker.request import spoilt_by

LOADING = ("starting", "loading", "warming up")
"""States before it is `ready`; the last one is `failed`."""

MIB = 2**20

TELL_S = 2.0
"""Least seconds between two lines about a load."""

FATAL = {MACHINE, "rank_lost", "rank_hung", "ranks_disagree"}
"""Codes of failures after which the engine is of no use."""


class ServerFailed(ZbenchError):
    """The engine is gone, so the server ends."""

    exit_code = Exit.FAILED


class _ImageSpoilt(CodedError):
    """A call made images that are none."""

    code = "invalid_images"


class CallFailed(Exception):
    """A request's images could not be made; `code` says of which kind that is."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Painted:
    """The images of one job, and how they came about. Times are seconds."""

    order: Order
    made: list[Generation]
    queue_s: float
    peak_bytes: int | None
    """Most that torch took of the device; without one, most that the processes held in host memory."""
    id: str = field(default_factory=lambda: f"img-{uuid.uuid4().hex}")

    @property
    def inference_s(self) -> float:
        """Of all its calls."""
        return sum(made.latency_s for made in self.made)

    @property
    def peak_mb(self) -> float | None:
        """In 2**20 bytes, as SGLang says it."""
        return None if self.peak_bytes is None else self.peak_bytes / MIB

    @property
    def told(self) -> dict[str, object]:
        """What took effect, beside the fields that other servers have too."""
        trial = self.order.trial
        return {
            "seed": self.order.seed,
            "steps": trial.pipeline.steps,
            "cache": method_of(trial.cache).label,
            "cached_steps": [made.cached_steps for made in self.made],
            "stages_s": [made.stages_s for made in self.made],
            "queue_s": self.queue_s,
            "compiled": any(made.compiled for made in self.made),
        }


class Studio:
    """See the module. `start` begins, `ended` is set when the engine is closed."""

    def __init__(
        self,
        menu: Menu,
        description: EngineDescription,
        line: Line,
        *,
        talk: Callable[[str], None] = lambda text: None,
        on_ready: Callable[[], None] = lambda: None,
        on_failed: Callable[[], None] = lambda: None,
    ) -> None:
        """The callbacks are called by the engine's thread, `on_failed` perhaps by another one."""
        self._menu, self._description, self._line = menu, description, line
        self._talk, self._on_ready, self._on_failed = talk, on_ready, on_failed
        self._engine: Engine | None = None
        self._configured: str | None = None
        self._told_s = 0.0
        self.state = "starting"
        self.error: ZbenchError | None = None
        self.serving: QueuedRequest | None = None  # the one that is painted now
        self.latest_s = 1.0  # of the latest request, for who asks when to come again
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
        engine = self._engine = self._description.engine()
        if isinstance(engine, Grouped):
            engine.on_lost = self._lost
            engine.call_together(trial)
        engine.launch(trial, self._tell_load)
        loaded_s = time.monotonic() - began
        self.state = "warming up"
        self._talk(f"loaded in {loaded_s:.1f} s; warming up with one request")
        if self._line.is_closed:
            return
        self._paint(engine, QueuedRequest(self._menu.own_order(), lambda painted: None))
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

    def _serve(self, job: QueuedRequest) -> None:
        engine = self._engine
        assert engine is not None
        self.serving = job
        try:
            painted = self._paint(engine, job)
            if painted is not None:
                self.latest_s = max(painted.inference_s, 0.001)
            job.settle(painted)
        except Exception as error:
            said = failure(error, "painting", engine)
            self._configured = None
            job.settle(CallFailed(said["code"], said["message"]))
            if said["code"] in FATAL or isinstance(error, RankError):
                raise ServerFailed(f"{said['code']}: {said['message']}; start the server anew") from error
        finally:
            self.serving = None

    def _paint(self, engine: Engine, job: QueuedRequest) -> Painted | None:
        """One call for each image; None where its client left before all were made."""
        order, queue_s = job.order, time.monotonic() - job.came_s
        self._configure(engine, order.trial)
        memory = MemoryProbe(engine.watch())
        memory.start()
        made: list[Generation] = []
        for k in range(order.n):
            if job.left:
                return None
            negative = (order.negative_prompt,) if order.negative_prompt else ()  # for engines that know none
            one = engine.generate(order.prompt, order.seed + k, *negative)
            if faults := spoilt_by(one):
                raise _ImageSpoilt(f"{', '.join(faults)}: the pipeline made no image of this prompt and seed")
            made.append(replace(one, latents=None))
        peaks, _ = memory.stop()
        peak = peaks["peak_reserved_bytes"]
        return Painted(order, made, queue_s, peaks["host_peak_rss_bytes"] if peak is None else peak)

    def _configure(self, engine: Engine, trial: Trial) -> None:
        """Unless it is configured so already."""
        p = trial.pipeline
        asked = json.dumps([self._description.residency(trial).request, p.width, p.height, p.steps])
        if asked != self._configured:
            self._configured = None  # until it is done
            engine.configure(trial)
            self._configured = asked

    def _lost(self, lost: LostRank) -> None:
        """Of another thread, while the engine's may wait for ever."""
        job = self.serving
        if job is not None:
            job.settle(CallFailed(lost.code, lost.message))
        self._fail(ServerFailed(f"{lost.code}: {lost.message}; start the server anew"))

    def _fail(self, error: ZbenchError) -> None:
        self.error, self.state = error, "failed"
        for job in self._line.close():
            job.settle(QueueClosed())
        self._on_failed()
