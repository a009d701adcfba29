"""Measures what this machine's device reaches at the pipeline's own shapes; it imports torch only while it measures.

It refuses to compare its figures with a datasheet, and to invent one: what the device or this torch cannot do is null,
with the reason. On a GPU the shapes are Z-Image-Turbo's at 1024x1024, on a CPU the tiny pipeline's at 256x256.
"""

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from zbench.environment import DeviceLike, installed_version
from zbench.errors import HardwareError
from zbench.hardware.ceilings import SCHEMA_VERSION, device_name
from zbench.hardware.footprint import TEXT_TOKENS
from zbench.stats import median
from zbench.zimage.flops import padded_tokens
from zbench.zimage.geometry import Geometry
from zbench.zimage.layout import preset_folder

if TYPE_CHECKING:
    import torch

MIB = 2**20
PRESET = {"cuda": "zimage_turbo", "cpu": "zimage_tiny"}
SIDE_PIXELS = {"cuda": 1024, "cpu": 256}
COPY_BYTES = {"cuda": 1024 * MIB, "cpu": 256 * MIB}
"""Of each copy inside the device: far more than any of its caches hold."""

LINK_BYTES = 256 * MIB
GEMMS = ("projection", "ffn_in", "ffn_out")
TERA, GIGA = 1e12, 1e9
BACKENDS = {"flash": "FLASH_ATTENTION", "cudnn": "CUDNN_ATTENTION"}
"""Attention kernels asked for by name, as `torch.nn.attention.SDPBackend` calls them."""

NO_GPU = "no GPU"
Call = Callable[[], object]


@dataclass(frozen=True)
class Effort:
    """How long each figure is measured."""

    warm_up_s: float = 0.3
    sample_s: float = 0.05
    """Least length of a sample: as many calls as it takes, at least one."""
    samples: int = 15


@dataclass(frozen=True)
class Shapes:
    """What a transformer block of the pipeline multiplies."""

    preset: str
    tokens: int
    """Image and text tokens together, padding included."""
    dim: int
    ffn_dim: int
    n_heads: int
    head_dim: int

    @classmethod
    def of(cls, kind: str) -> "Shapes":
        """Those of the pipeline that runs on `kind`, cuda or cpu."""
        geometry = Geometry.from_folder(preset_folder(PRESET[kind]))
        t, side = geometry.transformer, SIDE_PIXELS[kind]
        tokens = padded_tokens(geometry.image_tokens(side, side)) + padded_tokens(TEXT_TOKENS)
        return cls(PRESET[kind], tokens, t.dim, t.ffn_dim, t.n_heads, t.head_dim)

    def gemm(self, name: str) -> tuple[int, int, int]:
        """Rows, inner and outer width of one of GEMMS."""
        widths = {"projection": (self.dim, self.dim), "ffn_in": (self.dim, self.ffn_dim)}
        return (self.tokens, *widths.get(name, (self.ffn_dim, self.dim)))

    @property
    def attention_flops(self) -> int:
        """Of one attention over all tokens and heads: QK' and PV."""
        return 4 * self.tokens**2 * self.n_heads * self.head_dim


GEMMS_A_BLOCK = {"projection": 4, "ffn_in": 2, "ffn_out": 1}
"""Times a block runs each of GEMMS: q, k, v and out; both halves of SwiGLU; the way back."""


@dataclass(frozen=True)
class Probe:
    """One figure: what is called, and how much work a call is."""

    figure: str
    """Ends in its unit, `_tflops` or `_gb_s`."""
    work: float
    """FLOPs or bytes of one call."""
    prepare: Callable[[], Call]
    """Allocates, and returns what is timed."""

    def rate(self, samples_s: Sequence[float]) -> float:
        """The figure, from seconds of a call."""
        return self.work / median(samples_s) / (TERA if self.figure.endswith("_tflops") else GIGA)


def measure_ceilings(
    devices: Sequence[DeviceLike], tell: Callable[[str], None], effort: Effort | None = None
) -> dict[str, Any]:
    """Measure the first of `devices`, or the CPU without one; `tell` hears what comes next. Under a minute.

    The result is JSON-ready: `device`, `kind` (cuda or cpu), `driver`, `torch`, `threads` (of a CPU), `measured_at`,
    `shapes`, `figures` (rates whose names end in their unit; null where there is none), `attention_backend` (by dtype,
    the fastest), `reasons` (why a figure is null) and `samples_s` (seconds of a call behind each figure).
    Raises HardwareError where there is a GPU that torch does not see.
    """
    import torch

    if devices and not torch.cuda.is_available():
        raise HardwareError(f"torch {torch.__version__} does not see the {devices[0].name}; zbench doctor says more")
    kind = "cuda" if devices else "cpu"
    shapes, effort = Shapes.of(kind), effort or Effort()
    samples: dict[str, list[float]] = {}
    rates: dict[str, float | None] = {}
    reasons = _not_of_a_cpu() if kind == "cpu" else {}
    for probe in _probes(shapes, kind):
        tell(f"measuring {probe.figure}")
        try:
            samples[probe.figure] = _sample(probe.prepare, kind, effort)
            rates[probe.figure] = probe.rate(samples[probe.figure])
        except (RuntimeError, AttributeError, TypeError, ValueError, AssertionError) as error:
            reasons[probe.figure] = " ".join(str(error).split())[:200] or type(error).__name__
        if kind == "cuda":
            torch.cuda.empty_cache()
    best = _best_attention(rates)
    for dtype in ("bf16", "float32", "fp8"):
        _whole(f"gemm_{dtype}_tflops", block_tflops(dtype, shapes, samples), rates, reasons)
        if dtype != "fp8":
            found = best.get(dtype)
            rate = None if found is None else rates[f"attention_{dtype}_{found}_tflops"]
            _whole(f"attention_{dtype}_tflops", rate, rates, reasons)
    return {
        "schema_version": SCHEMA_VERSION,
        "device": device_name(devices),
        "kind": kind,
        "driver": devices[0].driver if devices else None,
        "torch": installed_version("torch"),
        "threads": torch.get_num_threads() if kind == "cpu" else None,
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "shapes": asdict(shapes),
        "figures": {name: _rounded(value) for name, value in rates.items()}
        | dict.fromkeys(name for name in reasons if name not in rates),
        "attention_backend": best,
        "reasons": reasons,
        "samples_s": {name: [_rounded(s) for s in seconds] for name, seconds in samples.items()},
    }


def block_tflops(dtype: str, shapes: Shapes, samples_s: dict[str, list[float]]) -> float | None:
    """FLOPs of a block's GEMMs over the seconds they take one after another; None where one was not measured."""
    flops = seconds = 0.0
    for name, times in GEMMS_A_BLOCK.items():
        measured = samples_s.get(f"gemm_{dtype}_{name}_tflops")
        if measured is None:
            return None
        flops += times * _gemm_flops(shapes, name)
        seconds += times * median(measured)
    return flops / seconds / TERA


def _whole(name: str, rate: float | None, rates: dict[str, float | None], reasons: dict[str, str]) -> None:
    """Put in a figure made of others; where they could not be had, with the reason of the first of them."""
    if name in reasons:
        return
    rates[name] = rate
    if rate is None:
        prefix = name.removesuffix("tflops")
        reasons[name] = next((why for part, why in reasons.items() if part.startswith(prefix)), "not measured")


def _best_attention(rates: dict[str, float | None]) -> dict[str, str]:
    """By dtype, the backend with the highest rate."""
    best: dict[str, str] = {}
    for dtype in ("bf16", "float32"):
        named = {name: rates.get(f"attention_{dtype}_{name}_tflops") or 0.0 for name in ("default", *BACKENDS)}
        fastest = max(named, key=lambda name: named[name])
        if named[fastest] > 0:
            best[dtype] = fastest
    return best


def _not_of_a_cpu() -> dict[str, str]:
    lacking = dict.fromkeys(("host_to_device_pinned_gb_s", "host_to_device_pageable_gb_s"), NO_GPU)
    unused = f"{NO_GPU}: on a CPU the pipeline computes in float32"
    computed = dict.fromkeys(("gemm_bf16_tflops", "attention_bf16_tflops", "gemm_fp8_tflops"), unused)
    return {**computed, **lacking, "device_to_host_pinned_gb_s": NO_GPU}


def _probes(shapes: Shapes, kind: str) -> Iterator[Probe]:
    dtypes = ("bf16", "float32", "fp8") if kind == "cuda" else ("float32",)
    for dtype in dtypes:
        for name in GEMMS:
            prepare = _scaled_mm(shapes.gemm(name)) if dtype == "fp8" else _linear(shapes.gemm(name), dtype, kind)
            yield Probe(f"gemm_{dtype}_{name}_tflops", _gemm_flops(shapes, name), prepare)
    for dtype in dtypes:
        backends = ("default", *BACKENDS) if dtype == "bf16" else ("default",)
        for backend in backends if dtype != "fp8" else ():
            prepare = _attention(shapes, dtype, kind, backend)
            yield Probe(f"attention_{dtype}_{backend}_tflops", shapes.attention_flops, prepare)
    size = COPY_BYTES[kind]
    yield Probe("copy_gb_s", 2 * size, _copy(size, kind, kind))  # a byte is read and written
    if kind == "cuda":
        yield Probe("host_to_device_pinned_gb_s", LINK_BYTES, _copy(LINK_BYTES, "pinned", kind))
        yield Probe("host_to_device_pageable_gb_s", LINK_BYTES, _copy(LINK_BYTES, "cpu", kind))
        yield Probe("device_to_host_pinned_gb_s", LINK_BYTES, _copy(LINK_BYTES, kind, "pinned"))


def _gemm_flops(shapes: Shapes, name: str) -> int:
    rows, inner, outer = shapes.gemm(name)
    return 2 * rows * inner * outer


def _linear(sizes: tuple[int, int, int], dtype: str, device: str) -> Callable[[], Call]:
    """As nn.Linear runs it: the weight is stored outer x inner."""

    def prepare() -> Call:
        import torch

        rows, inner, outer = sizes
        x = torch.randn(rows, inner, device=device, dtype=_dtype(dtype))
        weight = torch.randn(outer, inner, device=device, dtype=_dtype(dtype))
        return lambda: torch.nn.functional.linear(x, weight)

    return prepare


def _scaled_mm(sizes: tuple[int, int, int]) -> Callable[[], Call]:
    """A row of either factor has its own scale; the product is bf16."""

    def prepare() -> Call:
        import torch

        rows, inner, outer = sizes
        x = torch.randn(rows, inner, device="cuda").to(torch.float8_e4m3fn)
        weight = torch.randn(outer, inner, device="cuda").to(torch.float8_e4m3fn)
        scale_x, scale_w = torch.ones(rows, 1, device="cuda"), torch.ones(1, outer, device="cuda")
        return lambda: torch._scaled_mm(
            x, weight.t(), scale_a=scale_x, scale_b=scale_w, out_dtype=torch.bfloat16, use_fast_accum=True
        )

    return prepare


def _attention(shapes: Shapes, dtype: str, device: str, backend: str) -> Callable[[], Call]:
    """`default` leaves the choice to torch; a named backend fails where it cannot run."""

    def prepare() -> Call:
        import torch
        from torch.nn.attention import SDPBackend, sdpa_kernel

        size = (1, shapes.n_heads, shapes.tokens, shapes.head_dim)
        q, k, v = (torch.randn(size, device=device, dtype=_dtype(dtype)) for _ in range(3))
        attend = torch.nn.functional.scaled_dot_product_attention
        if backend == "default":
            return lambda: attend(q, k, v)
        chosen = getattr(SDPBackend, BACKENDS[backend])

        def call() -> object:
            with sdpa_kernel(chosen):
                return attend(q, k, v)

        return call

    return prepare


def _copy(size: int, source: str, target: str) -> Callable[[], Call]:
    """`pinned` is page-locked host memory, `cpu` ordinary host memory."""

    def memory(place: str) -> "torch.Tensor":
        import torch

        if place == "pinned":
            return torch.ones(size, dtype=torch.uint8, pin_memory=True)
        return torch.ones(size, dtype=torch.uint8, device=place)

    def prepare() -> Call:
        read, written = memory(source), memory(target)
        return lambda: written.copy_(read, non_blocking=True)

    return prepare


def _dtype(name: str) -> "torch.dtype":
    import torch

    return {"bf16": torch.bfloat16, "float32": torch.float32}[name]


def _sample(prepare: Callable[[], Call], kind: str, effort: Effort) -> list[float]:
    """Seconds of a call, once a sample, after a warm-up that also says how many calls a sample takes."""
    import torch

    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says there why a backend cannot run, and then raises
        call = prepare()
        spent_s, call_s = 0.0, _timed(call, 1, kind)  # the very first call also loads libraries
        while spent_s < effort.warm_up_s:
            calls = _calls(call_s, effort.warm_up_s / 4)
            call_s = _timed(call, calls, kind)
            spent_s += calls * call_s
        calls = _calls(call_s, effort.sample_s)
        return [_timed(call, calls, kind) for _ in range(effort.samples)]


def _calls(call_s: float, sample_s: float) -> int:
    return max(1, round(sample_s / max(call_s, 1e-7)))


def _timed(call: Call, calls: int, kind: str) -> float:
    """Seconds of one of `calls` calls in a row, on the device's own clock where it has one."""
    if kind == "cpu":
        began = time.perf_counter()
        for _ in range(calls):
            call()
        return (time.perf_counter() - began) / calls
    import torch

    cuda: Any = torch.cuda
    begin, end = cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)
    begin.record()
    for _ in range(calls):
        call()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1e3 / calls


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")
