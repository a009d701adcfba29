"""How long a host needs to start one forward that several GPUs share, where that is longer than they compute.

Kernel by kernel (not as one CUDA graph), each exchange costs the host time that nothing hides, and a ring's merging
costs more than its exchange. Fitted on 2 and 4 H200 whose CPUs are of 2026; another host has other times:

| forward at 1024x1024, ms | measured | here |
|---|---|---|
| eager ulysses 2 | 133, 136.8 | 135 |
| eager tp 2 | 156, 220 | 188 |
| eager tp 2 × ulysses 2 | 310 | 228 |
| eager ring 2, 4; ulysses 2 × ring 2 | 106 and 118.7, 250; 136 | 109, 244; 134 |
| compiled ring 2, 4; ulysses 2 × ring 2 | 94, 226; 166 | 95, 230; 95 |

Eager gather was not measured on GPUs; an exchange of its is taken to cost what one of Ulysses' does.
"""

from zbench.config import ComputeConfig
from zbench.methods.parallel import ParallelDims

BLOCKS = 34
"""Blocks of the forward that was measured."""

EAGER_S = 0.095
"""What one device's eager forward takes the host."""

ULYSSES_S, GATHER_S, TP_S = 4 * 0.29e-3, 2 * 0.29e-3, 2 * 1.37e-3
"""The exchanges of one eager block: four of queries, keys, values and outputs; two of keys and values; two sums, which
go through DTensor."""

RING_S, RING_ROTATION_S = (0.042, 0.028), 0.0672
"""Of a forward, eager and compiled, and of each rotation: torch.compile leaves the merging as it is."""


def start_s(dims: ParallelDims, compute: ComputeConfig, blocks: int) -> float:
    """Seconds of one forward of so many blocks; 0 where the host is not known to hold the devices up."""
    if compute.cuda_graph or dims.ranks == 1:
        return 0.0
    eager = not compute.compile
    rotations = dims.ring - 1
    ring_s = RING_S[compute.compile] + rotations * RING_ROTATION_S if rotations else 0.0
    if not eager:
        return ring_s * blocks / BLOCKS
    exchanges_s = (dims.ulysses > 1) * ULYSSES_S + (dims.gather > 1) * GATHER_S + (dims.tp > 1) * TP_S
    return max(EAGER_S + BLOCKS * exchanges_s, ring_s) * blocks / BLOCKS
