"""One forward of Z-Image-Turbo's transformer on one device and gathered over several, side by side.

`python benchmarks/sharded_forward.py [RANKS]`: random weights, 1024x1024, 64 prompt tokens, bf16, cuDNN attention; one
process a GPU. Prints one JSON line a variant from rank 0: the median of 12 forwards, for how long of it the host was
busy, the ratio to one compiled device, the error against one eager one, and what the profiler saw of one forward.
On CPUs it is a small transformer in float32, to try the command.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from diffusers import ZImageTransformer2DModel
from ranks import run_ranks

from zbench.engines.reference.graphed import GraphedForward
from zbench.engines.reference.ranks import RankWorld
from zbench.engines.reference.sharded import KEEP_ORDER
from zbench.engines.reference.sharded.copies import PeerCopies
from zbench.engines.reference.sharded.gather import ShardedSequence
from zbench.engines.reference.sharded.mesh import join
from zbench.methods.parallel import ParallelDims
from zbench.probes.communication import communication_share, mark, profiled_kernels

FORWARDS, WARM_UP = 12, 4
SMALL = {"dim": 256, "n_layers": 3, "n_heads": 4, "n_kv_heads": 4, "cap_feat_dim": 128, "axes_dims": [16, 24, 24]}
LONGEST = 4096 + 512 + 64
"""Image and text tokens, and what shares are rounded up by."""


class Bench:
    """One rank: a transformer, its inputs, and what was measured of it."""

    def __init__(self, rank: int, device: torch.device) -> None:
        """Weights and inputs are equal on all ranks."""
        self.rank, self.on_gpu = rank, device.type == "cuda"
        self.dtype = torch.bfloat16 if self.on_gpu else torch.float32
        torch.manual_seed(0)
        torch.set_default_dtype(self.dtype)
        with device:
            made = ZImageTransformer2DModel(**({} if self.on_gpu else SMALL))
        torch.set_default_dtype(torch.float32)
        self.net: Any = made.eval().requires_grad_(False)
        self.net.set_attention_backend("_native_cudnn" if self.on_gpu else "native")
        side, drawn = (128 if self.on_gpu else 32), torch.Generator("cpu").manual_seed(1)
        self._x = torch.randn(16, 1, side, side, generator=drawn).to(device, self.dtype)
        self._text = torch.randn(64, self.net.config.cap_feat_dim, generator=drawn).to(device, self.dtype)
        self._t = torch.tensor([0.5], device=device, dtype=self.dtype)
        self.exact = self.forward().float()
        self._compiled_ms: float | None = None

    @torch.no_grad()
    def forward(self) -> torch.Tensor:
        """Of one image."""
        made: torch.Tensor = self.net([self._x], self._t, [self._text], return_dict=False)[0][0]
        return made

    def compile(self, options: dict[str, Any] | None = None) -> None:
        """The blocks; what was compiled before is forgotten."""
        torch.compiler.reset()
        self.net.compile_repeated_blocks(fullgraph=True, options=options)

    def tell(self, variant: str) -> None:
        """Measure, and print a line."""
        made = self.forward().float()
        for _ in range(WARM_UP):
            self.forward()
        self._meet()
        taken_ms, host_ms = [], []
        for _ in range(FORWARDS):
            began = time.perf_counter()
            self.forward()
            host_ms.append((time.perf_counter() - began) * 1e3)
            self._synchronize()
            taken_ms.append((time.perf_counter() - began) * 1e3)
        median = statistics.median(taken_ms)
        if variant == "one device, compiled":
            self._compiled_ms = median
        said: dict[str, Any] = {"variant": variant, "ms": round(median, 2), "host_ms": statistics.median(host_ms)}
        said["over_one_compiled"] = None if self._compiled_ms is None else round(self._compiled_ms / median, 3)
        said["error"] = float((made - self.exact).norm() / self.exact.norm())
        said["profiled_s"] = self._profiled()
        if self.rank == 0:
            print(json.dumps(said), flush=True)

    def _profiled(self) -> dict[str, float] | None:
        """What of a forward is communication, and how long all its other kernels ran."""
        if not self.on_gpu:
            return None

        def marked() -> None:
            mark()
            self.forward()
            mark()

        self._meet()
        kernels = profiled_kernels(marked)
        if not kernels:
            return None
        names = ("forward_s", "communication_s", "exposed_s")
        return dict(zip(names, communication_share(kernels), strict=True))

    def _meet(self) -> None:
        self._synchronize()
        dist.barrier()
        self._synchronize()

    def _synchronize(self) -> None:
        if self.on_gpu:
            torch.cuda.synchronize()


def variants(bench: Bench, gather: Any) -> None:
    """One device, then gathered by collectives and by copies; eager, compiled, and as one launch."""
    bench.tell("one device, eager")
    bench.compile()
    bench.tell("one device, compiled")
    ways: list[tuple[str, Callable[[ShardedSequence], None]]] = [("collectives", lambda sequence: None)]
    if bench.on_gpu:
        elements = LONGEST * bench.net.config.dim
        ways.append(("copies", lambda sequence: sequence.carry(PeerCopies(gather, elements, bench.dtype))))
    for way, carry in ways:
        sequence = ShardedSequence(bench.net, gather, None)
        carry(sequence)
        bench.compile(KEEP_ORDER)
        bench.tell(f"gathered by {way}, compiled")
        if bench.on_gpu:
            graphed = GraphedForward(bench.net, torch.cuda.graph_pool_handle())
            bench.tell(f"gathered by {way}, compiled, one launch")
            graphed.close()
        sequence.close()


def run(rank: int, ranks: int, folder: str) -> None:
    """One rank."""
    device = torch.device("cuda", rank) if torch.cuda.device_count() >= ranks else torch.device("cpu")
    torch.set_num_threads(1 if device.type == "cpu" else torch.get_num_threads())
    mesh = join(RankWorld(rank, ParallelDims(gather=ranks), Path(folder)), str(device))
    variants(Bench(rank, device), mesh.gather)
    mesh.leave()


if __name__ == "__main__":
    asked = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    raise SystemExit(run_ranks(run, asked, asked))
