"""How long a host needs to start one forward that several GPUs share, where that is longer than they compute.

Kernel by kernel (not as one CUDA graph), each exchange costs the host time that nothing hides, and a ring's merging
costs more than its exchange. Fitted on hosts of 2 and 4 H200, which differed by 40 %; another host has other times:

| forward at 1024x1024, ms | measured | here |
|---|---|---|
| eager ulysses 2 | 133, 136.8 | 134 |
| eager tp 2 | 156, 220 | 188 |
| eager tp 2 × ulysses 2 | 310 | 228 |
| eager ring 2, 4; ulysses 2 × ring 2 | 106 and 118.7, 250; 136 | 109, 244; 134 |
| compiled ulysses 2, gather 2 | 57.6, 60.8 and 80.9; 59.4 to 63.0 | 62, 55 |
| compiled ring 2, 4; ulysses 2 × ring 2 | 94, 226; 166 | 95, 230; 122 |

Eager gather was not measured on GPUs; an exchange of its is taken to cost what one of Ulysses' does.
"""

from zbench.config import ComputeConfig
from zbench.methods.parallel import ParallelDims

BLOCKS = 34
"""Blocks of the forward that was measured."""

ONE_S = (0.095, 0.035)
"""What one device's forward takes the host; here and below: eager, compiled."""

EXCHANGE_S, SUM_S = (0.29e-3, 0.2e-3), (1.37e-3, 0.0)
"""One exchange of tokens, and one of tensor parallelism's sums, which go through DTensor where the block is eager."""

RING_S, ROTATION_S = (0.042, 0.028), 0.0672
"""Of a forward with a ring, and of each rotation in it: torch.compile leaves the merging as it is."""


def start_s(dims: ParallelDims, compute: ComputeConfig, blocks: int) -> float:
    """Seconds of one forward of so many blocks; 0 where the host is not known to hold the devices up.

    A block exchanges queries, keys, values and outputs (Ulysses), or keys and values (gather), and has two sums (tp).
    """
    if compute.cuda_graph or dims.ranks == 1:
        return 0.0
    how = int(compute.compile)
    exchanges = 4 * (dims.ulysses > 1) + 2 * (dims.gather > 1)
    exchange_s = BLOCKS * (exchanges * EXCHANGE_S[how] + 2 * (dims.tp > 1) * SUM_S[how])
    ring_s = (dims.ring > 1) * RING_S[how] + (dims.ring - 1) * ROTATION_S
    whole_s = ring_s + exchange_s if ring_s and compute.compile else max(ONE_S[how] + exchange_s, ring_s)
    return whole_s * blocks / BLOCKS
