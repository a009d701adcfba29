"""One untimed call under the profiler: what of its forwards is communication, on this rank."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zbench.measurement import Communication
from zbench.probes.communication import communication_share, mark, profiled_kernels


def measure_communication(transformer: Any, call: Callable[[], object], rank: int) -> Communication | None:
    """Run `call`, which runs `transformer` once a step, on CUDA; None where the profiler saw no two of its forwards.

    From the end of the first forward to that of the last: in the first, ranks also wait for the one whose text encoding
    took longest, which is no communication of theirs. Every rank makes the same call at the same time. Nothing of it is
    a result: the profiler slows it down. Raises what the call raises; the hook is off then too.
    """
    hook = transformer.register_forward_hook(lambda *_: mark(), always_call=True)
    try:
        kernels = profiled_kernels(call)
    finally:
        hook.remove()
    if not kernels:
        return None
    return Communication(rank, *communication_share(kernels))
