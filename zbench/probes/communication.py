"""How much of a device's time was communication, and how much of that nothing hid: from intervals of its kernels.

The intervals are a profiler's, of one untimed call; a profiler slows a call down, so no latency is taken from it. Where
the forwards begin and end is marked on the device's own time line, by a kernel of a microsecond that does nothing.
This module imports torch where a call is profiled, and nowhere else.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

COLLECTIVES = ("nccl", "nvshmem", "memcpy ptop", "wait_signal", "one_shot_all_", "two_shot_all_", "multimem_")
"""What names of communicating kernels hold, in lower case: NCCL's (ncclDevKernel_AllGather_RING_LL), copies between
peers (Memcpy PtoP), and those of torch's symmetric memory, waiting for a peer (wait_signal) among them."""

COPIES = ("memcpy", "memset")
"""How names of copies and fills begin. They compute nothing, so they hide no communication: a peer's memory may look
like the device's own (Memcpy DtoD)."""

COMPILED = "triton_"
"""How names of Inductor's kernels begin. They go on with the operators that were fused, collectives around included."""

MARK = "spin_kernel"
"""In the name of what `mark` starts."""


class KernelSpan(NamedTuple):
    """When one kernel, copy or fill ran on the device; seconds, from any one instant."""

    name: str
    start_s: float
    end_s: float

    @property
    def communicates(self) -> bool:
        """Whether it exchanges data with other devices."""
        name = self.name.lower()
        return not name.startswith(COMPILED) and any(part in name for part in COLLECTIVES)

    @property
    def computes(self) -> bool:
        """Whether the device computes meanwhile."""
        return not self.communicates and not self.name.lower().startswith(COPIES)


class CommunicationShare(NamedTuple):
    """Seconds of a stretch of kernels."""

    span_s: float  # from the first one's start to the last one's end
    communication_s: float  # in which at least one of them communicated
    exposed_s: float  # of that, in which none computed


def communication_share(kernels: Iterable[KernelSpan]) -> CommunicationShare:
    """Of kernels on one device, of all its streams, in any order. Without kernels all is 0."""
    kernels = list(kernels)
    if not kernels:
        return CommunicationShare(0.0, 0.0, 0.0)
    communicating = _union(kernel for kernel in kernels if kernel.communicates)
    others = _union(kernel for kernel in kernels if kernel.computes)
    span_s = max(kernel.end_s for kernel in kernels) - min(kernel.start_s for kernel in kernels)
    communication_s = sum(end - start for start, end in communicating)
    return CommunicationShare(span_s, communication_s, max(communication_s - _common_s(communicating, others), 0.0))


def between_marks(kernels: Iterable[KernelSpan]) -> list[KernelSpan]:
    """Kernels from the first mark to the last one, without marks, by their start; none where there are not two."""
    in_order = sorted(kernels, key=lambda kernel: kernel.start_s)
    marks = [place for place, kernel in enumerate(in_order) if MARK in kernel.name]
    if len(marks) < 2:
        return []
    return [kernel for kernel in in_order[marks[0] : marks[-1]] if MARK not in kernel.name]


def mark() -> None:
    """Mark this place on the current stream of the current CUDA device."""
    import torch

    sleep: Callable[[int], None] = torch.cuda._sleep  # torch's one kernel that does nothing and has a name of its own
    sleep(1)  # cycle


def profiled_kernels(call: Callable[[], object]) -> list[KernelSpan]:
    """Run `call`, and say which kernels ran between the first and the last `mark` that it made; none without marks.

    Only the device's activity is recorded: no operators, shapes or stacks. A torch that cannot record it makes no call.
    Raises what the call raises.
    """
    import torch

    supported: Callable[[], set[Any]] = torch.profiler.supported_activities
    device = torch.profiler.ProfilerActivity.CUDA
    if device not in supported():
        return []
    with torch.profiler.profile(activities=[device]) as profiler:
        call()
        torch.cuda.synchronize()
    return between_marks(kernels_of(profiler.events() or []))


def kernels_of(events: Sequence[Any]) -> list[KernelSpan]:
    """Of torch's `FunctionEvent`s those that ran on the device; their times are microseconds."""
    return [
        KernelSpan(event.name, event.time_range.start / 1e6, event.time_range.end / 1e6)
        for event in events
        if event.device_type.name == "CUDA" and not getattr(event, "is_user_annotation", False)
    ]


def _union(kernels: Iterable[KernelSpan]) -> list[tuple[float, float]]:
    """Stretches in which at least one of them ran, apart from one another and in order."""
    stretches: list[tuple[float, float]] = []
    for kernel in sorted(kernels, key=lambda kernel: kernel.start_s):
        if stretches and kernel.start_s <= stretches[-1][1]:
            start, end = stretches[-1]
            stretches[-1] = (start, max(end, kernel.end_s))
        else:
            stretches.append((kernel.start_s, kernel.end_s))
    return stretches


def _common_s(some: Sequence[tuple[float, float]], others: Sequence[tuple[float, float]]) -> float:
    """Seconds that lie in stretches of both; each are in order and apart from one another."""
    common_s, one, other = 0.0, 0, 0
    while one < len(some) and other < len(others):
        start, end = max(some[one][0], others[other][0]), min(some[one][1], others[other][1])
        common_s += max(end - start, 0.0)
        if some[one][1] <= others[other][1]:
            one += 1
        else:
            other += 1
    return common_s
