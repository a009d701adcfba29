"""One forward of Z-Image's transformer with each knob of the fast path alone, left out, and with all of them.

`python benchmarks/fast_forward.py`: random bf16 weights in Z-Image-Turbo's geometry, 1024x1024, 64 prompt tokens, on a
GPU. Prints a JSON line a variant and then tables: the median of a forward, alone and as one of eight in a row, for how
long the host was busy, the ratio in a row to the time that the forward's matrix products and attention take at the
rates measured before and after in the same run, the error against float32 over that of eager, where the GPU's time
goes, and what each knob does alone and left out. FP8 comes last. `--only compiled+rope+qkv+ffn --kernels 12` measures
one variant and lists its longest kernels. `--device cpu --preset tiny` is a rehearsal in float32, where blocks are
traced and no code is generated.
"""

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch

from zbench.hardware.ceiling_bench import Effort, measure_ceilings
from zbench.hardware.detect import present_devices
from zbench.methods.quantization import FP8, KEPT_ENDS
from zbench.probes.communication import mark, profiled_kernels
from zbench.zimage.components import build_module
from zbench.zimage.fast.attention import fuse_attention
from zbench.zimage.fast.feed_forward import fuse_feed_forward
from zbench.zimage.fast.quantization import quantize
from zbench.zimage.flops import step_flops
from zbench.zimage.geometry import Geometry
from zbench.zimage.layout import Checkpoint, preset_folder
from zbench.zimage.random_weights import fill_transformer

KNOBS = ("rope", "qkv", "ffn")
PRESETS = {"turbo": ("zimage_turbo", 1024), "tiny": ("zimage_tiny", 256)}
TEXT_TOKENS = 64
ROW = 8
"""Forwards in a row, as a request has."""
KINDS = {
    "attention": ("fmha", "flash", "sdpa", "attention"),
    "GEMM": ("gemm", "nvjet", "cutlass", "xmma", "splitk", "gemv"),
}
"""What a kernel's name holds, by what it is; all others are the rest."""


@dataclass(frozen=True)
class Variant:
    """How the transformer runs."""

    backend: str
    compiled: bool = True
    knobs: tuple[str, ...] = ()
    quantized: bool = False  # for good

    @property
    def name(self) -> str:
        """Such as `compiled+rope`."""
        return "+".join(("compiled" if self.compiled else "eager", *self.knobs, *([FP8] if self.quantized else [])))


def variants(backends: list[str], on_gpu: bool) -> Iterator[Variant]:
    """Of the last backend all, of the others those that add a knob to the one before; the first compiled one twice.

    FP8, which a GPU alone has, is the last, for there is no way back from it.
    """
    for backend in backends:
        yield Variant(backend, compiled=False)
        yield from (Variant(backend, knobs=KNOBS[:count]) for count in range(len(KNOBS) + 1))
    for knob in KNOBS[1:]:
        yield Variant(backends[-1], knobs=(knob,))
    for knob in KNOBS[:-1]:
        yield Variant(backends[-1], knobs=left_out(knob))
    yield Variant(backends[-1], compiled=False, knobs=KNOBS)
    yield Variant(backends[-1])
    if on_gpu:
        yield Variant(backends[-1], knobs=KNOBS, quantized=True)


def left_out(knob: str) -> tuple[str, ...]:
    """All knobs but this."""
    return tuple(other for other in KNOBS if other != knob)


@torch.no_grad()
def called(net: Any, inputs: list[torch.Tensor]) -> torch.Tensor:
    """One image through a transformer; `inputs`: latents, text, time."""
    x, text, time_ = inputs
    made: torch.Tensor = net([x], time_, [text], return_dict=False)[0][0]
    return made


class Forward:
    """A transformer and the inputs of one forward."""

    def __init__(self, preset: str, device: str) -> None:
        folder_name, side = PRESETS[preset]
        folder = preset_folder(folder_name)
        self.device, self.dtype = device, torch.bfloat16 if device == "cuda" else torch.float32
        self.compiler = "inductor" if device == "cuda" else "eager"  # a rehearsal generates no code
        self.net: Any = self._filled(folder)
        geometry = Geometry.from_folder(folder)
        self.flops = step_flops(geometry, geometry.image_tokens(side, side), TEXT_TOKENS)
        latent, drawn = side // geometry.vae.scale_factor, torch.Generator().manual_seed(1)
        x = torch.randn(geometry.transformer.in_channels, 1, latent, latent, generator=drawn)
        text = torch.randn(TEXT_TOKENS, geometry.transformer.cap_feat_dim, generator=drawn)
        self._inputs = [tensor.to(device, self.dtype) for tensor in (x, text, torch.tensor([0.5]))]
        self.exact = self._exact()

    def _filled(self, folder: Path) -> Any:
        before = torch.get_default_dtype()
        torch.set_default_dtype(self.dtype)
        try:
            with torch.device(self.device):
                net = build_module(Checkpoint(folder, "random"), "transformer")
        finally:
            torch.set_default_dtype(before)
        fill_transformer(net, torch.Generator(self.device).manual_seed(0))
        return net.requires_grad_(False)

    def __call__(self) -> torch.Tensor:
        """What the transformer gives for one image."""
        return called(self.net, self._inputs)

    def _exact(self) -> torch.Tensor:
        """In float32 of the same weights and inputs, by layers as diffusers makes them."""
        net = copy.deepcopy(self.net).float()
        net.set_attention_backend("native")
        return called(net, [tensor.float() for tensor in self._inputs])

    def error(self) -> float:
        """Relative, against float32."""
        return float((self().float() - self.exact).norm() / self.exact.norm())

    @contextmanager
    def set_up(self, variant: Variant) -> Iterator[None]:
        """Run as the variant says; as diffusers made it afterwards."""
        self.net.set_attention_backend(variant.backend)
        attention = {knob: knob in variant.knobs for knob in ("qkv", "rope")}
        undoes: list[Callable[[], None]] = []
        if any(attention.values()):
            undoes.append(fuse_attention(self.net, **attention))
        if "ffn" in variant.knobs:
            undoes.append(fuse_feed_forward(self.net))
        if variant.quantized:
            quantize(self.net, FP8, "both", KEPT_ENDS)
            undoes.clear()
        torch.compiler.reset()
        if variant.compiled:
            self.net.compile_repeated_blocks(fullgraph=True, backend=self.compiler)
        self.synchronize()
        try:
            yield
        finally:
            for block in self.net.modules():
                block._compiled_call_impl = None
            while undoes:
                undoes.pop()()
            if self.device == "cuda":
                torch.cuda.empty_cache()

    def synchronize(self) -> None:
        """Wait for the device."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    def kernels(self) -> list[Any]:
        """What the GPU ran in one forward, as a profiler saw it; nothing on a CPU."""
        if self.device != "cuda":
            return []

        def marked() -> None:
            mark()
            self()
            mark()

        return list(profiled_kernels(marked))

    @staticmethod
    def kinds_ms(kernels: list[Any]) -> dict[str, float]:
        """The GPU's milliseconds by kind of kernel, and in which it was idle; empty on a CPU."""
        if not kernels:
            return {}
        spent = dict.fromkeys((*KINDS, "rest"), 0.0)
        for kernel in kernels:
            spent[kind_of(kernel.name.lower())] += (kernel.end_s - kernel.start_s) * 1e3
        whole = max(kernel.end_s for kernel in kernels) - min(kernel.start_s for kernel in kernels)
        spent["idle"] = whole * 1e3 - sum(spent.values())
        return {kind: round(ms, 2) for kind, ms in spent.items()}


def kind_of(kernel: str) -> str:
    """By its name; the compiler's own are named after all that they were made of."""
    if kernel.startswith("triton"):
        return "rest"
    return next((kind for kind, parts in KINDS.items() if any(part in kernel for part in parts)), "rest")


def longest(kernels: list[Any], number: int) -> list[str]:
    """The kernels that take most of a forward: milliseconds, how many of them, and the name."""
    spent_ms: dict[str, list[float]] = {}
    for kernel in kernels:
        spent_ms.setdefault(kernel.name, []).append((kernel.end_s - kernel.start_s) * 1e3)
    by_time = sorted(spent_ms.items(), key=lambda item: -sum(item[1]))[:number]
    return [f"{sum(each):7.2f} ms {len(each):4d} x {name[:150]}" for name, each in by_time]


def measured(forward: Forward, variant: Variant, warm_up_s: float, forwards: int, listed: int) -> dict[str, Any]:
    """Milliseconds of a forward and what goes with them; the GPU is warm, and at its power limit if that is low."""
    with forward.set_up(variant):
        began = time.perf_counter()
        error = forward.error()
        first_s = time.perf_counter() - began
        until = time.perf_counter() + warm_up_s
        while time.perf_counter() < until:
            forward()
            forward.synchronize()
        taken_ms, host_ms = [], []
        for _ in range(forwards):
            began = time.perf_counter()
            forward()
            host_ms.append((time.perf_counter() - began) * 1e3)
            forward.synchronize()
            taken_ms.append((time.perf_counter() - began) * 1e3)
        rows_ms = []
        for _ in range(-(-forwards // ROW)):
            began = time.perf_counter()
            for _ in range(ROW):
                forward()
            forward.synchronize()
            rows_ms.append((time.perf_counter() - began) * 1e3 / ROW)
        kernels = forward.kernels()
    for line in longest(kernels, listed):
        print(line)
    return {
        "variant": variant.name,
        "backend": variant.backend,
        "ms": round(statistics.median(taken_ms), 3),
        "least_ms": round(min(taken_ms), 3),
        "in_row_ms": round(statistics.median(rows_ms), 3),
        "host_ms": round(statistics.median(host_ms), 3),
        "first_s": round(first_s, 2),
        "error": error,
        "kernels_ms": forward.kinds_ms(kernels),
    }


def floor_ms(forward: Forward, effort: Effort) -> float:
    """What the forward's products and attention would take at this device's own rates, as they are now."""
    devices = present_devices() if forward.device == "cuda" else []
    figures = measure_ceilings(devices, lambda _said: None, effort)["figures"]
    dtype = "bf16" if forward.device == "cuda" else "float32"
    gemm, attention = (figures[f"{kind}_{dtype}_tflops"] * 1e12 for kind in ("gemm", "attention"))
    return float((forward.flops.gemm / gemm + forward.flops.attention / attention) * 1e3)


def table(rows: list[dict[str, Any]], floor: float) -> str:
    """A line a variant, side by side."""
    eager = next(row["error"] for row in rows)
    heads = f"{'variant':26} {'backend':16} {'ms':>9} {'in a row':>9} {'x floor':>8} {'host ms':>8} {'error/eager':>11}"
    lines = [f"{heads}  kernels, ms"]
    for row in rows:
        error = row["error"] / eager if eager else 0.0
        spent = "  ".join(f"{kind} {ms:.1f}" for kind, ms in row["kernels_ms"].items())
        ratio = row["in_row_ms"] / floor
        lines.append(
            f"{row['variant']:26} {row['backend']:16} {row['ms']:9.2f} {row['in_row_ms']:9.2f} {ratio:8.3f} "
            f"{row['host_ms']:8.2f} {error:11.3f}  {spent}"
        )
    return "\n".join(lines)


def effects(rows: list[dict[str, Any]], backend: str) -> str:
    """By how much each knob changes a forward in a row, added to none of the others and to all of them."""
    ms = {row["variant"]: row["in_row_ms"] for row in rows if row["backend"] == backend}
    none, every = ms[Variant(backend).name], ms[Variant(backend, knobs=KNOBS).name]
    lines = [f"{'knob, ' + backend:24} {'alone, ms':>10} {'left out, ms':>13}"]
    for knob in KNOBS:
        alone = ms[Variant(backend, knobs=(knob,)).name] - none
        without = every - ms[Variant(backend, knobs=left_out(knob)).name]
        lines.append(f"{knob:24} {alone:+10.2f} {without:+13.2f}")
    lines.append(f"{'all':24} {every - none:+10.2f}")
    quantized = Variant(backend, knobs=KNOBS, quantized=True).name
    return "\n".join([*lines, *([f"{FP8:24} {'':10} {ms[quantized] - every:+13.2f}"] if quantized in ms else [])])


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--preset", choices=tuple(PRESETS), default="turbo")
    parser.add_argument("--backends", help="of attention, with commas; the last one with every variant")
    parser.add_argument("--forwards", type=int, default=24, help="measured of each variant")
    parser.add_argument("--only", nargs="+", help="variants by name, eager first for the ratio of errors")
    parser.add_argument("--kernels", type=int, default=0, help="how many of each variant's longest are listed")
    options = parser.parse_args()
    on_gpu = options.device == "cuda"
    if on_gpu and not torch.cuda.is_available():
        parser.error("--device=cuda: torch sees no GPU; --device cpu --preset tiny tries the command")
    if not on_gpu:
        torch.set_num_threads(1)  # two that wait for each other on a busy machine take far longer
    diffusers.utils.logging.set_verbosity_error()
    backends = (options.backends or ("native,_native_cudnn" if on_gpu else "native")).split(",")
    warm_up_s, forwards = (2.0, options.forwards) if on_gpu else (0.0, 1)
    effort = Effort(warm_up_s=1.0) if on_gpu else Effort(0.01, 0.01, 3)
    forward = Forward(options.preset, options.device)
    floors, rows = [floor_ms(forward, effort)], []
    for variant in variants(backends, on_gpu):
        if options.only and variant.name not in options.only:
            continue
        rows.append(measured(forward, variant, warm_up_s, forwards, options.kernels))
        print(json.dumps(rows[-1]), flush=True)
    floors.append(floor_ms(forward, effort))
    floor = statistics.mean(floors)
    where = torch.cuda.get_device_name() if on_gpu else "cpu"
    print(f"\n{where}, torch {torch.__version__}; floor {floors[0]:.2f} ms before, {floors[1]:.2f} after\n")
    print(table(rows, floor))
    if not options.only:
        print("\n" + effects(rows, backends[-1]))


if __name__ == "__main__":
    main()
