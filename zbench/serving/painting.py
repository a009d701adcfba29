"""Makes the images of one request, or of several in one call, with a loaded engine; it knows no queue.

A call that fails is told to its client. Where several shared it, each is made again alone, so that one that cannot be
made costs the others nothing but time.
"""

import json
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from zbench.engines import Batched, Engine, EngineDescription, Generation
from zbench.engines.failure import RankError, failure, is_sticky
from zbench.errors import Exit, ZbenchError
from zbench.methods.cache import method_of
from zbench.probes.memory import MemoryProbe
from zbench.record import MACHINE
from zbench.serving.line import QueuedRequest
from zbench.serving.orders import Order
from zbench.trial import Trial
from zbench.worker.request import spoilt_by

MIB = 2**20

FATAL = {MACHINE, "rank_lost", "rank_hung", "ranks_disagree"}
"""Codes of failures after which the engine is of no use."""


class CallFailed(Exception):
    """A request's images could not be made; `code` says of which kind that is, `__cause__` is what was raised."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class ServerFailed(ZbenchError):
    """The engine is gone, so the server ends."""

    exit_code = Exit.FAILED

    @classmethod
    def of(cls, failed: CallFailed, why: str = "no later call can succeed") -> "ServerFailed":
        """After a call that failed."""
        return cls(f"{failed.code}: {failed}; {why}; start the server anew")


@dataclass(frozen=True)
class Painted:
    """The images of one request, and how they came about. Times are seconds."""

    order: Order
    made: list[Generation]
    queue_s: float
    inference_s: float
    """Of all calls that made them; of a call that made another request's too, the whole."""
    batch: int
    """Images of the largest of these calls, other requests' among them."""
    peak_bytes: int | None
    """Most that torch took of the device; without one, most that the processes held in host memory."""
    id: str = field(default_factory=lambda: f"img-{uuid.uuid4().hex}")

    @property
    def peak_mb(self) -> float | None:
        """In 2²⁰ bytes, as SGLang says it."""
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
            "batch": self.batch,
            "compiled": any(made.compiled for made in self.made),
        }


@dataclass(eq=False)
class _Sheet:
    """One request while it is painted."""

    job: QueuedRequest
    queue_s: float
    made: list[Generation] = field(default_factory=list)
    inference_s: float = 0.0
    batch: int = 0
    peaks: list[int] = field(default_factory=list)
    is_over: bool = False

    def call(self, k: int) -> tuple[str, int, str]:
        """Prompt, seed and negative prompt of image k."""
        order = self.job.order
        return order.prompt, order.seed + k, order.negative_prompt

    def settle(self, outcome: object) -> None:
        """Tell its client, who hears of one outcome."""
        if not self.is_over:
            self.is_over = True
            self.job.settle(outcome)

    def keep(self, one: Generation) -> bool:
        """Its next image, and whether it is one; with the last one it is painted."""
        if faults := spoilt_by(one):
            said = f"{', '.join(faults)}: the pipeline made no image of this prompt and seed"
            self.settle(CallFailed("invalid_images", said))
            return False
        order = self.job.order
        self.made.append(replace(one, latents=None))
        if len(self.made) == order.n:
            peak = max(self.peaks, default=None)
            self.settle(Painted(order, self.made, self.queue_s, self.inference_s, self.batch, peak))
        return True


_Place = tuple[_Sheet, int]
"""A request, and which of its images."""


class Painter:
    """What one engine is asked for."""

    def __init__(self, engine: Engine, description: EngineDescription) -> None:
        """`engine` is launched."""
        self._engine, self._description = engine, description
        self._configured: str | None = None
        self.failed_in_a_row = 0
        """Calls since the latest that made an image."""

    def paint(self, jobs: Sequence[QueuedRequest], *, again: bool = True) -> None:
        """Settle every job: Painted, CallFailed, or None where its client left before all images were made.

        The jobs are of orders that share calls. Without `again` a call that fails is not tried image by image.
        Raises ServerFailed where the engine is of no use any more.
        """
        now, size = time.monotonic(), jobs[0].order.batching.max_size
        sheets = [_Sheet(job, now - job.came_s) for job in jobs]
        try:
            while places := _next_places(sheets, size):
                self._paint_places(places, again)
        except Exception as error:
            cause = error.__cause__
            told = (
                cause if isinstance(cause, CallFailed) else CallFailed("fault", "a fault of zbench; its log says more")
            )
            for sheet in sheets:
                sheet.settle(told)
            raise

    def _paint_places(self, places: Sequence[_Place], again: bool) -> None:
        """All in one call; where that fails, each alone."""
        failed = self._attempt(places)
        if failed is None:
            return
        for sheet, k in places:
            if len(places) == 1 or not again:
                sheet.settle(failed)
            elif not (sheet.is_over or sheet.job.left):
                self._paint_places([(sheet, k)], again)

    def _attempt(self, places: Sequence[_Place]) -> CallFailed | None:
        """One call for these images, and what it failed of. Raises ServerFailed from that where nothing can follow."""
        try:
            self._call(places)
        except Exception as error:
            self._configured = None
            self.failed_in_a_row += 1
            told = failure(error, "painting", self._engine)
            failed = CallFailed(told["code"], told["message"])
            failed.__cause__ = error
            if failed.code in FATAL or isinstance(error, RankError) or is_sticky(error):
                raise ServerFailed.of(failed) from failed
            return failed
        return None

    def _call(self, places: Sequence[_Place]) -> None:
        self._configure(places[0][0].job.order.trial)
        memory = MemoryProbe(self._engine.watch())
        memory.start()
        made = self._made([sheet.call(k) for sheet, k in places])
        peaks, _ = memory.stop()
        device, host = peaks["peak_reserved_bytes"], peaks["host_peak_rss_bytes"]
        for sheet in {id(sheet): sheet for sheet, _ in places}.values():
            sheet.inference_s += made[0].latency_s
            sheet.batch = max(sheet.batch, len(made))
            sheet.peaks += [peak for peak in (host if device is None else device,) if peak is not None]
        kept = [sheet.keep(one) for (sheet, _), one in zip(places, made, strict=True)]
        self.failed_in_a_row = 0 if any(kept) else self.failed_in_a_row + 1

    def _made(self, calls: Sequence[tuple[str, int, str]]) -> list[Generation]:
        if len(calls) > 1:
            assert isinstance(self._engine, Batched)  # `Menu` holds its description to it
            return self._engine.generate_batch(calls)
        ((prompt, seed, negative),) = calls
        return [self._engine.generate(prompt, seed, *([negative] if negative else []))]  # for engines that know none

    def _configure(self, trial: Trial) -> None:
        """Unless it is configured so already."""
        p = trial.pipeline
        asked = json.dumps([self._description.residency(trial).request, p.width, p.height, p.steps])
        if asked != self._configured:
            self._configured = None  # until it is done
            self._engine.configure(trial)
            self._configured = asked


def _next_places(sheets: Sequence[_Sheet], size: int) -> list[_Place]:
    """The next images to be made in one call, the oldest request's first; whose client left, needs none."""
    for sheet in sheets:
        if sheet.job.left:
            sheet.settle(None)
    lacking = [(sheet, k) for sheet in sheets if not sheet.is_over for k in range(len(sheet.made), sheet.job.order.n)]
    return lacking[:size]
