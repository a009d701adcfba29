"""What a roofline computed of a trial, from its proxy that was measured."""

from dataclasses import dataclass, field

from zbench.decode import Count, Seconds, Whole


@dataclass(frozen=True)
class ProjectedRound:
    """What one measured (proxy) request would take on the projected hardware."""

    prompt_id: str
    seed: Whole
    latency_s: Seconds
    low_s: Seconds | None = None  # it lies within these nine times in ten; None in older records
    high_s: Seconds | None = None


@dataclass(frozen=True)
class Projection:
    """A roofline's answer for hardware that is not here; `rounds` pair with the proxy's requests."""

    rounds: list[ProjectedRound]
    stages_s: dict[str, Seconds]  # text_encode, decode, offload_transfer, overhead; denoise is in the rounds
    computed_step_s: Seconds
    cached_step_s: Seconds
    peak_device_bytes: Count
    floor_s: Seconds  # least time physics allows: every efficiency factor 1, no skipped step
    assumptions: list[str]
    image_parts_s: dict[str, Seconds] = field(default_factory=dict)
    """What the first round goes to, by the fields of the profile's `efficiency.spread`; empty in older records."""
