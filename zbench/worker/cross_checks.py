"""Two instruments on one thing: the device's clock beside the host's, NVML's memory beside torch's, what a server was
asked for beside its images.

Where they differ by more than instruments may, the measurement gets a sentence of doubt; neither figure is mended.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from zbench.engines import Generation
from zbench.measurement import ClockCheck, Effective, ImageQuality, MemoryCheck
from zbench.methods.cache import method_of
from zbench.trial import Trial

Both = TypeVar("Both", ClockCheck, MemoryCheck)

CLOCK_TOLERANCE = 0.01
MEMORY_TOLERANCE = 0.03


@dataclass(frozen=True)
class Check(Generic[Both]):
    """What both said, for `Measurement.telemetry`; without it the reason why, and the doubt it raises if it does."""

    telemetry: Both | None = None
    reason: str | None = None
    doubt: str | None = None


def clock_check(made: Generation) -> Check[ClockCheck]:
    """Of one generation."""
    if made.device_s is None:
        return Check(reason="no_device_clock")
    difference = _rel_difference(made.device_s, made.latency_s)
    if difference is None:
        return Check(reason="no_time_passed")
    doubt = (
        f"the device's clock and the host's are {abs(difference):.1%} apart on the first timed round "
        f"({made.device_s:.4f} s and {made.latency_s:.4f} s)"
    )
    return Check(
        telemetry=ClockCheck(made.latency_s, made.device_s, difference),
        doubt=doubt if abs(difference) > CLOCK_TOLERANCE else None,
    )


def memory_check(
    torch_reserved_bytes: int | None, nvml_process_bytes: int | None, context_bytes: int | None, method: str | None
) -> Check[MemoryCheck]:
    """Of peaks over a block.

    What NVML sees of this process is what torch reserved and its context, which torch does not see: `context_bytes` is
    what was NVML's alone before anything was loaded, so the difference is what has grown outside torch since. `method`
    is how NVML saw the process: process or device_difference.
    """
    if torch_reserved_bytes is None:
        return Check(reason="no_allocator")
    if nvml_process_bytes is None:
        return Check(reason="pid_hidden")
    if context_bytes is None:
        return Check(reason="context_unknown")
    difference = _rel_difference(nvml_process_bytes - context_bytes, torch_reserved_bytes)
    if difference is None:
        return Check(reason="nothing_reserved")
    doubt = f"NVML's peak memory less the context is {abs(difference):.1%} off what torch reserved (NVML by {method})"
    if difference < 0:
        doubt += "; NVML, which is sampled, may miss what lasts less than its interval"
    return Check(
        telemetry=MemoryCheck(torch_reserved_bytes, nvml_process_bytes, context_bytes, difference, method),
        doubt=doubt if abs(difference) > MEMORY_TOLERANCE else None,
    )


def cache_doubt(trial: Trial, effective: Effective, quality: Sequence[ImageQuality] | None) -> str | None:
    """Of a server that does not say which steps it skipped: that its images are the uncached ones to the last byte.

    Accepted is no proof. SGLang 0.5.15.post1 takes a request's cache setting and does nothing with it.
    """
    method = method_of(trial.cache)
    unlike = not quality or not all(one.identical for one in quality)
    if unlike or not method.skips or effective.tells_cached_steps is not False:
        return None
    return (
        f"the server was asked for {method.label}, and each of {len(quality or ())} images is the uncached one to the "
        "last byte: it ignored the setting, or skipped no step by it"
    )


def _rel_difference(figure: float, reference: float) -> float | None:
    """Positive where `figure` is the larger; None without a reference."""
    return figure / reference - 1 if reference > 0 else None
