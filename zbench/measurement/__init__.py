"""What was measured on one trial: raw samples, never statistics.

Times are seconds, sizes bytes. A value that cannot be had is None and `Measurement.reasons` says
why under the value's path (`energy`: `no_gpu`).
"""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import Annotated, Literal

import msgspec

from zbench.decode import Count, Figure, Positive, Seconds, Whole
from zbench.measurement.drawn import Energy, Memory
from zbench.measurement.effective import CONTENT, Effective, ServerView
from zbench.measurement.lone import LoneRequest, waited_s
from zbench.measurement.projection import ProjectedRound, Projection
from zbench.measurement.ranks import Communication, RankView
from zbench.measurement.telemetry import OWN_LIMIT, ClockCheck, MemoryCheck, Share, Telemetry
from zbench.measurement.turn import DeviceTurn

__all__ = [
    "CALLED",
    "CONTENT",
    "INVALID_IMAGES",
    "LEAST_S",
    "METRICS",
    "OTHER_REFERENCE",
    "OWN_LIMIT",
    "QUALITY_ONLY",
    "RANDOM_WEIGHTS",
    "REFERENCE_INVALID",
    "SLOWING",
    "SOURCES",
    "SPOILS_IMAGES",
    "SUSPENDED",
    "UNJUDGED",
    "UNTIMED",
    "Arrivals",
    "ClockCheck",
    "Cold",
    "Communication",
    "Decibels",
    "DeviceTurn",
    "Effective",
    "Energy",
    "FailedRequest",
    "ImageQuality",
    "Likeness",
    "LoneRequest",
    "Measurement",
    "Memory",
    "MemoryCheck",
    "Offset",
    "ProjectedRound",
    "Projection",
    "PromptFidelity",
    "RankView",
    "Request",
    "Role",
    "ServerView",
    "Share",
    "Source",
    "SpoiltWarmUp",
    "Step",
    "StepName",
    "Telemetry",
    "TrialId",
    "Window",
]

Source = Literal["measured", "proxy", "projected", "published"]
SOURCES: tuple[Source, ...] = ("measured", "proxy", "projected", "published")  # strongest first
METRICS = ("latency", "memory", "cached_steps", "quality")

SUSPENDED = "suspended"
"""Of a request: its process was stopped and continued (Ctrl-Z), or the whole machine slept; it is made again."""

RANDOM_WEIGHTS = "random_weights"
"""The reason why nothing is said of images: with random weights they mean nothing, a reference's included."""

CALLED = {"weights": "weights", "configs": "configs", "lora": "LoRA"}
"""What sentences call each of them."""

OTHER_REFERENCE = {kind: f"reference_of_other_{kind}" for kind in CONTENT}
"""The reasons why a trial was not judged against the reference's images: another content made them."""

REFERENCE_INVALID = "reference_invalid"
"""The reason why a trial was not judged against a reference that FAILED for its own images."""

QUALITY_ONLY = "quality_only"
"""Of a request and of a measurement: its images alone were asked for, so it came once and without warm-up, and its time
says nothing."""

UNTIMED = ("latency", "throughput", "energy", "cold.load_s", "cold.first_latency_s", "cold.compile_s")
"""Values of a measurement that such a one has not."""

UNJUDGED = ("no_reference", REFERENCE_INVALID, *OTHER_REFERENCE.values())
"""The reasons why a trial has no likeness to a reference that may be there by now."""

SPOILS_IMAGES = ("non_finite_latents", "non_finite_image", "black_image")
"""Of the reasons why a request is invalid those that say its images are none; the others say that its time is none."""

INVALID_IMAGES = "invalid_images"
"""Why a trial FAILED of which one call, warm-ups included, made such images; nothing is said of their likeness."""

SLOWING = ("garbage_collection", "page_faults", "other_load", "stolen_time")
"""Of a request's disturbances those that make it slower; a set clock does not, and a lower frequency may only mean that
cores were idle."""


Offset = Annotated[float, msgspec.Meta(ge=-1e9, le=1e9)]
"""Seconds after a window's start."""
Likeness = Annotated[float, msgspec.Meta(ge=-1.001, le=1.001)]
"""1 for equal images; rounding may lie a little beyond."""
Decibels = Annotated[float, msgspec.Meta(ge=-300, le=1000)]
Step = Annotated[int, msgspec.Meta(ge=0, le=100_000)]
"""An index of a denoising step, or how many there are."""
StepName = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,6}\Z")]
"""A step's index as a key of JSON."""
TrialId = Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Za-z_][0-9A-Za-z_-]{0,63}\Z")]
"""Names a folder: so it holds no path."""

LEAST_S = 1e-9
"""No clock tells less apart."""

Role = Literal["baseline", "trial"]
"""`baseline`: its trial is what speed-ups are over, or what the trial whose record it is in took turns with. `trial`:
one held to others."""


@dataclass(frozen=True)
class Request:
    """One call of a pipeline. Comparisons pair requests by (`prompt_id`, `seed`).

    `due_s`, `sent_s`, `begun_s` and `done_s` are seconds after the window's start. One after another, a request is due
    when it is sent and begins at once. A server tells how long it took, and not when it began (`Window.queued_s`).
    """

    index: Count  # its place in the order of the window
    trial_id: TrialId
    role: Role
    prompt_id: str
    seed: Whole
    due_s: Offset
    sent_s: Offset
    begun_s: Offset | None  # None of a server; older records hold its `done_s` less its `server_s`
    done_s: Offset
    latency_s: Seconds  # wall clock of the whole call, device synchronised
    stages_s: dict[str, Seconds]  # text_encode, denoise, decode
    steps_s: list[Seconds]  # one transformer forward each, in order
    cached_steps: list[Step]  # indices of steps whose middle blocks were skipped
    residual_diffs: dict[StepName, Figure]  # step index (JSON keys are strings) to residual difference
    image_sha256: str | None = None  # of the RGB bytes
    images: Count = 1  # made by the call; `latency_s` is that of all of them
    text_tokens: list[Positive] = field(default_factory=list)  # prompt tokens of each sample in a transformer forward
    valid: bool = True  # statistics leave out what is not
    invalid_reasons: list[str] = field(default_factory=list)  # SPOILS_IMAGES, throttled:sw_thermal, compiled
    disturbances: list[str] = field(default_factory=list)  # by the host, as `probes.disturbance` names them
    server_s: Seconds | None = None  # what a server says that it took; None without one
    server_peak_bytes: Count | None = None  # what a server says that it held of its device at most
    compile_s: Seconds | None = None  # of it, in which code was compiled or captured; None: nobody says
    ranks: list[RankView] = field(default_factory=list)  # of several devices; empty on one

    def __post_init__(self) -> None:
        """Raise ValueError for a time that is no clock's: rates over it would be endless."""
        for name, times_s in (("latency_s", (self.latency_s,)), ("stages_s", self.stages_s.values())):
            if any(0 < time_s < LEAST_S for time_s in times_s):
                raise ValueError(f"{name}={list(times_s)}: must be 0 or at least {LEAST_S:g} s")

    @property
    def shows_steps(self) -> bool:
        """Whether its steps count: as its time does, or where that alone says nothing."""
        return self.valid or (QUALITY_ONLY in self.invalid_reasons and not self.has_spoilt_images)

    @property
    def has_spoilt_images(self) -> bool:
        """Whether its images are none, whatever time it took."""
        return not set(self.invalid_reasons).isdisjoint(SPOILS_IMAGES)


@dataclass(frozen=True)
class SpoiltWarmUp:
    """A call before the window whose images are none."""

    prompt_id: str
    seed: Whole
    invalid_reasons: list[str]


@dataclass(frozen=True)
class Cold:
    """The price of starting: loading, the first generation, and what was compiled before the window.

    `load_s` and `first_latency_s` are None where the pipeline was already resident; the trial that it was launched for
    paid them. A trial may compile on a resident pipeline too, so `compile_s` is its own.
    """

    load_s: Seconds | None = None  # checksums left out
    first_latency_s: Seconds | None = None
    compile_s: Seconds | None = None  # of its warm-up calls, CUDA graphs included; those of the window say their own
    compiled_calls: Count | None = None  # warm-up calls in which something was compiled or captured
    launched_for: TrialId | None = None  # the trial for which the resident pipeline was launched
    parts_s: dict[str, Seconds] = field(default_factory=dict)  # of it, or beside it: imports, checksums


@dataclass(frozen=True)
class ImageQuality:
    """Likeness of one image to the reference's image of the same prompt and seed.

    `psnr_db` is None for an identical image (it would be infinite), and `identical` is then True.
    """

    prompt_id: str
    seed: Whole
    identical: bool
    psnr_db: Decibels | None
    ssim: Likeness
    latent_rel_error: Figure | None  # ‖latent − reference‖ / ‖reference‖
    ms_ssim: Likeness | None = None  # None under 161 pixels a side
    lpips: Figure | None = None  # None without measure.lpips_weights


@dataclass(frozen=True)
class PromptFidelity:
    """How much of what one prompt asks for is in its image; needs no reference."""

    prompt_id: str
    seed: Whole
    share_right: Share | None  # of a scene's attributes, 0 to 1; None for a prompt without a scene
    wrong: list[str] = field(default_factory=list)  # kinds of attributes that are not right
    clip_score: Figure | None = None  # 0 to 100; None without measure.clip_weights


@dataclass(frozen=True)
class Arrivals:
    """How a window's requests arrived."""

    kind: Literal["sequential", "concurrent", "poisson", "replay"] = "sequential"  # each when the former was done
    concurrency: Count | None = 1  # at most so many at once; None: no bound
    rate_per_s: Figure | None = None  # poisson: mean requests a second
    objective_s: Seconds | None = None  # what a request is to take at most, from due to done
    at_once: Count | None = 1  # how many calls the engine took at one time; None: no bound
    warmed_up: bool = True  # whether calls came before the window, or it began with whatever the pipeline was


@dataclass(frozen=True)
class FailedRequest:
    """A request of a load that brought no image; its trial went on. Seconds after the window's start."""

    index: Count  # its place in the order in which requests were due
    prompt_id: str
    seed: Whole
    due_s: Offset
    sent_s: Offset
    done_s: Offset  # when it was known to have failed
    code: str  # one of engines.FAILURES_OF_ONE_REQUEST
    message: str


@dataclass(frozen=True)
class Window:
    """A timed block of requests, of one trial or of several of one residency with their baseline.

    A sequential window's requests are what is called rounds. Peaks, energy and telemetry are the whole window's.
    """

    requests: list[Request]
    stop_reason: str  # interval, max_rounds, budget, quality_only, invalid_images at the fewest rounds; load: all_sent
    left_out: Count = 0  # requests of other trials, which their own records keep
    started_at: str | None = None  # ISO 8601, UTC
    wall_s: Seconds | None = None  # from its start to the end of its last request; None in records of schema 1
    arrivals: Arrivals = field(default_factory=Arrivals)
    failures: list[FailedRequest] = field(default_factory=list)  # of a load: requests that brought no image
    lone: list[LoneRequest] = field(default_factory=list)  # of a load on a server: untimed, with nothing beside them
    memory: Memory = field(default_factory=Memory)
    energy: Energy | None = None
    telemetry: Telemetry = field(default_factory=Telemetry)
    turn: DeviceTurn | None = None  # None: nobody took turns, as before there were any

    def __post_init__(self) -> None:
        """Raise ValueError for a start that is no time of day."""
        if self.started_at is not None and not 1970 <= datetime.fromisoformat(self.started_at).year < 9000:
            raise ValueError(f"started_at={self.started_at}: must lie after 1970")

    def at(self, offset_s: float) -> str:
        """The time of day, ISO 8601 in UTC, so many seconds after its start; empty where that is not known."""
        if self.started_at is None:
            return ""
        moment = datetime.fromisoformat(self.started_at) + timedelta(seconds=offset_s)
        return moment.isoformat(timespec="milliseconds")

    def queued_s(self, request: Request) -> float | None:
        """Seconds from when it was due until it began; None where that cannot be told.

        One after another none waits. Of a server it is taken from what lone requests needed (`lone.waited_s`).
        """
        if self.arrivals.kind == "sequential":
            return 0.0
        if self.arrivals.at_once is not None and request.begun_s is not None:
            return request.begun_s - request.due_s
        waited = waited_s(request, self.lone)
        return None if waited is None else request.sent_s - request.due_s + waited

    def wall_s_of(self, some: Collection[Request]) -> float | None:
        """The part of its wall time that went to `some` of its requests; None where the wall time is not known.

        One after another, that is from when each was due until the next one was, zbench's own work between them
        included; until it was done, where requests are left out. Where requests overlap, it is all.
        """
        if self.wall_s is None or self.arrivals.kind != "sequential":
            return self.wall_s
        if self.left_out:
            return sum(r.done_s - r.due_s for r in some)
        due_s = {r.index: r.due_s for r in self.requests}
        last = max(due_s, default=0)
        ends_s = {last: self.wall_s} | {index - 1: at_s for index, at_s in due_s.items()}
        return sum(ends_s.get(r.index, r.done_s) - r.due_s for r in some)


@dataclass(frozen=True)
class Measurement:
    """Everything known about one trial that was measured to its end."""

    trial_id: TrialId  # of what ran: itself, or the proxy of a projected trial (in records of schema 1: itself)
    window: Window
    warmup_latencies_s: list[Seconds]  # in time order
    cold: Cold
    sources: dict[str, Source]  # of each of METRICS
    warmup_end: str = ""  # settled, max_rounds, budget or left_out
    spoilt_warmups: list[SpoiltWarmUp] = field(default_factory=list)
    quality: list[ImageQuality] | None = None  # likeness to the reference's images
    prompt_fidelity: list[PromptFidelity] | None = None
    noise_floor: list[ImageQuality] | None = None  # a reference's images against its own made once more
    projection: Projection | None = None
    effective: Effective = field(default_factory=Effective)
    communication: list[Communication] = field(default_factory=list)  # of each rank; empty: not profiled
    reference_sha256: dict[str, str] = field(default_factory=dict)
    """Content of the reference (one of CONTENT to its digest), where that is of other weights on purpose."""
    judges_sha256: dict[str, str] = field(default_factory=dict)  # weights that judged: key of `measure` to their digest
    validity: list[str] = field(default_factory=list)  # why this measurement should not be trusted
    reasons: dict[str, str] = field(default_factory=dict)  # why a value is None; those of `window` without its name

    @cached_property
    def requests(self) -> list[Request]:
        """Its own, in time order; the window may hold those of others."""
        return [r for r in self.window.requests if r.trial_id == self.trial_id]

    @property
    def quality_only(self) -> bool:
        """Whether its images and steps alone say something, and no time does."""
        return self.reasons.get("latency") == QUALITY_ONLY

    @property
    def image_fault(self) -> str | None:
        """How many of its calls made images that are none, why, and which was the first; None where all are good."""
        requests = [r for r in self.requests if r.has_spoilt_images]
        lone = [each for each in self.window.lone if each.invalid_reasons]
        spoilt: list[SpoiltWarmUp | LoneRequest | Request] = [*self.spoilt_warmups, *lone, *requests]
        if not spoilt:
            return None
        counts = [(len(self.spoilt_warmups), len(self.warmup_latencies_s), "warm-up calls")]
        counts += [(len(lone), len(self.window.lone), "lone requests"), (len(requests), len(self.requests), "requests")]
        told = " and ".join(f"{some} of {every} {what}" for some, every, what in counts if some)
        causes = Counter(cause for call in spoilt for cause in call.invalid_reasons if cause in SPOILS_IMAGES)
        why = ", ".join(f"{cause} {count}" for cause, count in causes.most_common())
        return f"images of {told} are not valid ({why}), first {spoilt[0].prompt_id} with seed {spoilt[0].seed}"

    @property
    def memory(self) -> Memory:
        """Of its window."""
        return self.window.memory

    @property
    def compile_s(self) -> float | None:
        """Seconds in which its calls compiled or captured, warm-up and window; None where that is not known."""
        told = [self.cold.compile_s, *(r.compile_s for r in self.requests)]
        known = [seconds for seconds in told if seconds is not None]
        return sum(known) if len(known) == len(told) else None

    @property
    def energy(self) -> Energy | None:
        """Of its window."""
        return self.window.energy

    @property
    def telemetry(self) -> Telemetry:
        """Of its window."""
        return self.window.telemetry

    @cached_property
    def paired_latencies_s(self) -> list[tuple[tuple[str, int], float]]:
        """(prompt_id, seed) and seconds of each valid request, or of each projected one."""
        if self.projection is not None:
            return [((r.prompt_id, r.seed), r.latency_s) for r in self.projection.rounds]
        return [((r.prompt_id, r.seed), r.latency_s) for r in self.requests if r.valid]

    @property
    def source(self) -> Source:
        """The weakest of the metrics' sources."""
        return max(self.sources.values(), key=SOURCES.index)
