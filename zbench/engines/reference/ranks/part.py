"""One rank's part of a call, as it is told to rank 0 in one line of JSON; rank 0 tells itself in the same words."""

import base64
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from zbench.engines import Generation, Profiled
from zbench.engines.reference.ranks import Member
from zbench.measurement import Communication, RankView
from zbench.probes.memory import own_peak_rss_bytes
from zbench.probes.watched import Allocator
from zbench.quality.validity import image_faults

if TYPE_CHECKING:
    from numpy.typing import NDArray

SAMPLES = 1024
"""Numbers of the latents that ranks compare, evenly spread."""


@dataclass(frozen=True)
class RankPart:
    """What a rank saw of a call, and what the ranks of a replica must agree on."""

    began_s: float  # when its clock started, by `time.perf_counter`, which all processes of a machine share
    ended_s: float
    latency_s: float
    stages_s: dict[str, float]
    steps_s: list[float]
    cached_steps: list[int]
    text_tokens: list[int]
    latents: str | None  # a sample of them, float32 in base64; None where the member hides them
    images: int
    device: str
    device_s: float | None = None
    compiled: bool = False
    compile_s: float | None = None
    invalid_reasons: list[str] = field(default_factory=list)
    peak_allocated_bytes: int | None = None
    peak_reserved_bytes: int | None = None
    host_peak_rss_bytes: int | None = None

    def view(self, rank: int) -> RankView:
        """As a request keeps it."""
        return RankView(
            rank=rank,
            latency_s=self.latency_s,
            stages_s=self.stages_s,
            device=self.device,
            steps_s=self.steps_s,
            peak_allocated_bytes=self.peak_allocated_bytes,
            peak_reserved_bytes=self.peak_reserved_bytes,
            host_peak_rss_bytes=self.host_peak_rss_bytes,
        )

    def sample(self) -> "NDArray[np.float32] | None":
        """Of the latents."""
        return None if self.latents is None else np.frombuffer(base64.b64decode(self.latents), np.float32)


def take_part(member: Member, allocator: Allocator | None, call: tuple[str, int, str]) -> tuple[Generation, RankPart]:
    """Make one call of `member`, whose allocator is given; its peaks are of this call alone."""
    if allocator is not None:
        allocator.reset_peaks()
    made = member.generate(*call)
    began_s, ended_s = member.span_s
    return made, RankPart(
        began_s=began_s,
        ended_s=ended_s,
        latency_s=made.latency_s,
        stages_s=made.stages_s,
        steps_s=made.steps_s,
        cached_steps=made.cached_steps,
        text_tokens=made.text_tokens,
        latents=None if made.latents is None else _sampled(made.latents),
        images=made.images,
        device=member.device,
        device_s=made.device_s,
        compiled=made.compiled,
        compile_s=made.compile_s,
        invalid_reasons=[*made.invalid_reasons, *image_faults([made.image], made.latents)],
        peak_allocated_bytes=None if allocator is None else allocator.peak_allocated_bytes(),
        peak_reserved_bytes=None if allocator is None else allocator.peak_reserved_bytes(),
        host_peak_rss_bytes=own_peak_rss_bytes(),
    )


def profiled(member: Member, call: tuple[str, int, str]) -> list[Communication]:
    """What of one call more was communication, where the member can say; it is called either way, or by no rank."""
    return member.communication(*call) if isinstance(member, Profiled) else []


def _sampled(latents: "NDArray[np.float32]") -> str:
    """Every so many numbers, none left out of a small one."""
    flat = np.ascontiguousarray(latents, np.float32).reshape(-1)
    return base64.b64encode(flat[:: math.ceil(max(flat.size, 1) / SAMPLES)].tobytes()).decode()
