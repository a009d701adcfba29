"""What was measured on one trial: raw samples, never statistics.

Times are seconds, sizes bytes. A value that cannot be had is None and `Measurement.reasons` says
why under the value's path (`energy`: `no_gpu`).
"""

from dataclasses import dataclass, field
from typing import Any, Literal

Source = Literal["measured", "proxy", "projected", "published"]
SOURCES: tuple[Source, ...] = ("measured", "proxy", "projected", "published")  # strongest first
METRICS = ("latency", "memory", "cached_steps", "quality")


@dataclass(frozen=True)
class Round:
    """One pipeline call. Comparisons pair rounds by (`prompt_id`, `seed`)."""

    index: int
    prompt_id: str
    seed: int
    started_at: str  # ISO 8601, UTC
    latency_s: float  # wall clock of the whole call, device synchronised
    stages_s: dict[str, float]  # text_encode, denoise, decode
    steps_s: list[float]  # one transformer forward each, in order
    cached_steps: list[int]  # indices of steps whose middle blocks were skipped
    residual_diffs: dict[str, float]  # step index (JSON keys are strings) to residual difference
    image_sha256: str | None = None  # of the RGB bytes
    ranks: list[dict[str, Any]] = field(default_factory=list)  # {rank, latency_s, peaks} with several ranks
    queue_s: float | None = None
    server_s: float | None = None
    images: int = 1  # made by the call; `latency_s` is that of all of them
    text_tokens: list[int] = field(default_factory=list)  # prompt tokens of each sample in a transformer forward
    valid: bool = True  # statistics leave out what is not
    invalid_reasons: list[str] = field(default_factory=list)  # such as non_finite_latents, throttled:sw_thermal
    disturbances: list[str] = field(default_factory=list)  # by the host, as `probes.disturbance` names them


@dataclass(frozen=True)
class Cold:
    """The price of starting: loading and the first generation. None where the pipeline was already resident."""

    load_s: float | None = None
    compile_s: float | None = None
    first_latency_s: float | None = None


@dataclass(frozen=True)
class Memory:
    """Peaks over the timed rounds. Device figures are torch's allocator and NVML's view of this process."""

    peak_allocated_bytes: int | None = None
    peak_reserved_bytes: int | None = None
    peak_device_bytes: int | None = None
    host_peak_rss_bytes: int | None = None


@dataclass(frozen=True)
class Energy:
    """Energy of the whole timed block; null for blocks under 10 s."""

    joules: float
    rounds: int
    method: str  # counter, or integrated power


@dataclass(frozen=True)
class ImageQuality:
    """Likeness of one image to the baseline's image of the same prompt and seed.

    `psnr_db` is None for an identical image (it would be infinite), and `identical` is then True.
    """

    prompt_id: str
    seed: int
    identical: bool
    psnr_db: float | None
    ssim: float
    latent_rel_error: float | None  # ‖latent − baseline‖ / ‖baseline‖
    ms_ssim: float | None = None  # None under 161 pixels a side
    lpips: float | None = None  # None without measure.lpips_weights


@dataclass(frozen=True)
class PromptFidelity:
    """How much of what one prompt asks for is in its image; needs no baseline."""

    prompt_id: str
    seed: int
    share_right: float | None  # of a scene's attributes, 0 to 1; None for a prompt without a scene
    wrong: list[str] = field(default_factory=list)  # kinds of attributes that are not right
    clip_score: float | None = None  # 0 to 100; None without measure.clip_weights


@dataclass(frozen=True)
class ProjectedRound:
    """What one measured (proxy) round would take on the projected hardware."""

    prompt_id: str
    seed: int
    latency_s: float


@dataclass(frozen=True)
class Projection:
    """A roofline's answer for hardware that is not here; `rounds` pair with the proxy's rounds."""

    rounds: list[ProjectedRound]
    stages_s: dict[str, float]  # text_encode, decode, offload_transfer, overhead; denoise is in the rounds
    computed_step_s: float
    cached_step_s: float
    peak_device_bytes: int
    floor_s: float  # least time physics allows: every efficiency factor 1, no skipped step
    assumptions: list[str]


@dataclass(frozen=True)
class Measurement:
    """Everything known about one completed trial."""

    rounds: list[Round]
    stop_reason: str  # interval, max_rounds or budget
    warmup_latencies_s: list[float]  # in time order
    cold: Cold
    memory: Memory
    sources: dict[str, Source]  # of each of METRICS
    warmup_end: str = ""  # settled, max_rounds or budget
    quality: list[ImageQuality] | None = None  # likeness to the baseline's images
    prompt_fidelity: list[PromptFidelity] | None = None
    noise_floor: list[ImageQuality] | None = None  # a baseline's images against its own made once more
    energy: Energy | None = None
    projection: Projection | None = None
    effective: dict[str, Any] = field(default_factory=dict)  # what took effect: device, dtype, weights, cache, …
    telemetry: dict[str, Any] = field(default_factory=dict)
    validity: list[str] = field(default_factory=list)  # why this measurement should not be trusted
    reasons: dict[str, str] = field(default_factory=dict)  # why a value is None

    @property
    def paired_latencies_s(self) -> list[tuple[tuple[str, int], float]]:
        """(prompt_id, seed) and seconds of each valid round, or of each projected one."""
        if self.projection is not None:
            return [((r.prompt_id, r.seed), r.latency_s) for r in self.projection.rounds]
        return [((r.prompt_id, r.seed), r.latency_s) for r in self.rounds if r.valid]

    @property
    def source(self) -> Source:
        """The weakest of the metrics' sources."""
        return max(self.sources.values(), key=SOURCES.index)
