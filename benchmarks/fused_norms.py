"""What fused norms are worth to a forward of Z-Image's transformer in FP8, and whether their kernels are right.

`python benchmarks/fused_norms.py`: first each kernel at Z-Image-Turbo's size (4,160 rows of 3,840): what share of its
values is another than plain torch's, its time and its rate of reading and writing, by warps. Then forwards with random
weights, 1024x1024, 64 prompt tokens, in FP8, with norms split and fused, under each attention kernel: as one of eight
in a row, then the error against float32, how far apart the images of split and fused are, and the longest kernels. At
the end all of them by turns, each forward a CUDA graph, so that the card's clock is the same for all. What fails says
why, and the rest goes on; then the exit code is 1. `--backends cudnn_fp8` is half of it, `--device cpu --preset tiny` a
rehearsal of what a CPU has: kernels in plain torch, and nothing in FP8.
"""

import argparse
import copy
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import diffusers
import torch
from fast_forward import PRESETS, Forward, longest

from zbench.engines.reference.graphed import GraphedForward
from zbench.methods.attention import CUDNN_FP8, of_diffusers
from zbench.methods.quantization import FP8, KEPT_ENDS
from zbench.probes.communication import mark, profiled_kernels
from zbench.zimage.fast.attention import fuse_attention
from zbench.zimage.fast.feed_forward import fuse_feed_forward
from zbench.zimage.fast.fused_norms import fuse_norms, in_torch, in_triton
from zbench.zimage.fast.quantization import quantize

ROWS = {"turbo": (4160, 3840), "tiny": (64, 96)}
"""Image tokens and text tokens, by width."""
BYTES = {"rounded": 3, "normed": 3, "added": 6, "added_and_normed": 7}
"""Read and written of each value: two where it is in bfloat16, one in FP8."""
ROW = 8
FAILED: list[str] = []


@contextmanager
def going_on(what: str) -> Iterator[None]:
    """Say why it failed, and go on."""
    try:
        yield
    except Exception as error:  # the rest is worth its time on a card
        FAILED.append(what)
        traceback.print_exc(limit=-6, file=sys.stdout)
        print(f"FAILED {what}: {type(error).__name__}: {str(error)[:600]}", flush=True)


def check_kernels(preset: str, device: str) -> None:
    """A line a kernel: what differs from plain torch, microseconds and TB/s by warps."""
    rows, width = ROWS[preset]
    dtype = torch.bfloat16
    draw = torch.Generator(device).manual_seed(0)
    x, y = (torch.randn(2, rows // 2, width, generator=draw, device=device).to(dtype) for _ in range(2))
    factors = torch.randn(2, 4, width, generator=draw, device=device)
    given = {"rounded": (x,), "normed": (x, factors, 0, 1e-5), "added": (x, y, factors, 3, 1e-5)}
    given["added_and_normed"] = (x, y, factors, 1, 1e-5)
    for name, arguments in given.items():
        with going_on(f"kernel {name}"):
            plain = parts_of(getattr(in_torch(), name)(*arguments))
            kernel = getattr(in_triton() if device == "cuda" else in_torch(), name)
            said = [differing(one, other) for one, other in zip(parts_of(kernel(*arguments)), plain, strict=True)]
            took = timed_by_warps(partial(kernel, *arguments), BYTES[name] * rows * width) if device == "cuda" else ""
            print(f"{name:17} {'; '.join(said)}  {took}", flush=True)


def parts_of(made: Any) -> tuple[torch.Tensor, ...]:
    """One tensor or several as several."""
    return (made,) if isinstance(made, torch.Tensor) else tuple(made)


def differing(made: torch.Tensor, plain: torch.Tensor) -> str:
    """The share of values that are others, and the largest difference over the value itself."""
    one, other = made.float(), plain.float()
    if one.shape != other.shape or not bool(torch.isfinite(one).all()):
        raise ValueError(f"{made.dtype}: of shape {tuple(one.shape)}, or not finite")
    share = float((one != other).float().mean())
    most = float(((one - other).abs() / other.abs().clamp(min=2.0**-6)).max())
    kind = str(made.dtype).removeprefix("torch.")
    if most > 0.15:  # two neighbours of e4m3 differ by an eighth at most
        raise ValueError(f"{kind}: {share:.2%} of the values differ, by up to {most:.3f} of themselves")
    return f"{kind} {share:.4%} differ, by ≤ {most:.1e}"


def timed_by_warps(call: Callable[[], Any], moved: int) -> str:
    """Medians of the kernel alone, as a profiler saw it, with nothing of its input in the cache; `moved`: bytes."""
    from zbench.zimage.fast import normed_rows

    other = torch.empty(2**28, dtype=torch.int8, device="cuda")

    def again() -> None:
        mark()
        for _ in range(20):
            other.zero_()
            call()
        mark()

    kept, said = normed_rows.WARPS, []
    try:
        for warps in (4, 8, 16):
            normed_rows.WARPS = warps
            call()  # which compiles it
            kernels = [each for each in profiled_kernels(again) if each.name.startswith("_")]
            s = statistics.median(each.end_s - each.start_s for each in kernels)
            said.append(f"{warps}{'*' * (warps == kept)} warps {s * 1e6:.1f} us {moved / s / 1e12:.2f} TB/s")
    finally:
        normed_rows.WARPS = kept
    return ", ".join(said)


def made_faster(net: Any, backend: str, *, fused: bool, on_gpu: bool) -> Any:
    """A copy as `compute=fp8` has it, with norms fused or not; on a CPU nothing is in FP8."""
    net = copy.deepcopy(net)
    net.set_attention_backend(of_diffusers(backend) if on_gpu else "native")
    fuse_attention(net, qkv=True, rope=True, in_fp8=backend == CUDNN_FP8 and on_gpu)
    fuse_feed_forward(net)
    if on_gpu:
        quantize(net, FP8, "both", KEPT_ENDS)
        if fused:
            print(f"{fuse_norms(net)} blocks have fused norms")
    torch.compiler.reset()
    net.compile_repeated_blocks(fullgraph=True, backend="inductor" if on_gpu else "eager")
    return net


class Side:
    """One way to run a forward."""

    def __init__(self, forward: Forward, backend: str, *, fused: bool) -> None:
        self.name = f"{backend} {'fused' if fused else 'split'}"
        self._forward = copy.copy(forward)
        self._forward.net = made_faster(forward.net, backend, fused=fused, on_gpu=forward.device == "cuda")

    def row_ms(self) -> float:
        """Of one of eight in a row."""
        self._forward.synchronize()
        began = time.perf_counter()
        for _ in range(ROW):
            self._forward()
        self._forward.synchronize()
        return (time.perf_counter() - began) * 1e3 / ROW

    def told(self, rows: int, twin: torch.Tensor | None, listed: int) -> torch.Tensor:
        """Print what there is to say of it; returns what it makes. `twin`: what it makes with norms split."""
        began = time.perf_counter()
        self._made = made = self._forward().float()
        first_s = time.perf_counter() - began
        exact = self._forward.exact
        error = float((made - exact).norm() / exact.norm())
        self.row_ms()
        ms = statistics.median(self.row_ms() for _ in range(rows))
        apart = "" if twin is None else f", {float((made - twin).norm() / twin.norm()):.4f} from split"
        kernels = self._forward.kernels()
        spent = "  ".join(f"{kind} {each:.2f}" for kind, each in self._forward.kinds_ms(kernels).items())
        print(f"{self.name:22} {ms:7.2f} ms in a row, error {error:.4f}{apart}, first {first_s:.1f} s  {spent}")
        print("\n".join(longest(kernels, listed)), flush=True)
        return made

    def check_still(self) -> None:
        """Raise ValueError where a graph is farther from float32 than what was made before, more than rounding does."""
        exact = self._forward.exact
        before, now = (float((made - exact).norm()) for made in (self._made, self._forward().float()))
        if not now < 1.2 * before:
            raise ValueError(f"{self.name} errs more as a graph: {now / before:.2f} times as far from float32")

    def captured(self) -> None:
        """Be a CUDA graph from now on, in memory of its own."""
        GraphedForward(self._forward.net, torch.cuda.graph_pool_handle())
        self.row_ms()


def by_turns(sides: list[Side], rounds: int) -> None:
    """All of them, again and again, the first another one each time; the median of each, and fused less split."""
    ms: dict[str, list[float]] = {side.name: [] for side in sides}
    for side in sides:
        side.check_still()
    for number in range(rounds):
        first = number % len(sides)
        for side in (*sides[first:], *sides[:first]):
            ms[side.name].append(side.row_ms())
    print("\nby turns, each a CUDA graph")
    for name, taken in ms.items():
        print(f"{name:22} {statistics.median(taken):7.2f} ms, {min(taken):.2f} to {max(taken):.2f}")
        split = ms.get(name.replace("fused", "split"))
        if split is not None and split is not taken:
            less = [one - other for one, other in zip(taken, split, strict=True)]
            print(f"{'':22} {statistics.median(less):+7.2f} ms over split, {min(less):+.2f} to {max(less):+.2f}")


def main() -> int:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--preset", choices=tuple(PRESETS), default="turbo")
    parser.add_argument("--backends", default=f"_native_cudnn,{CUDNN_FP8}", help="attention kernels, with commas")
    parser.add_argument("--rounds", type=int, default=6, help="of all by turns; 0 for none")
    parser.add_argument("--kernels", type=int, default=14, help="how many of each one's longest are listed")
    options = parser.parse_args()
    on_gpu = options.device == "cuda"
    if on_gpu and not torch.cuda.is_available():
        parser.error("--device=cuda: torch sees no GPU; --device cpu --preset tiny tries the command")
    diffusers.utils.logging.set_verbosity_error()
    print(f"{torch.cuda.get_device_name() if on_gpu else 'cpu'}, torch {torch.__version__}", flush=True)
    check_kernels(options.preset, options.device)
    forward = Forward(options.preset, options.device)
    sides: list[Side] = []
    for backend in options.backends.split(","):
        twin: torch.Tensor | None = None
        for fused in (False, True):
            with going_on(f"{backend} {'fused' if fused else 'split'}"):
                side = Side(forward, backend, fused=fused)
                twin = side.told(3 if on_gpu else 1, twin, options.kernels)
                if on_gpu and options.rounds:
                    side.captured()
                    sides.append(side)
    if sides:
        with going_on("turns"):
            by_turns(sides, options.rounds)
    print(f"failed: {', '.join(FAILED)}" if FAILED else "all done")
    return 1 if FAILED else 0


if __name__ == "__main__":
    sys.exit(main())
