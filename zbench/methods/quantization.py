"""Quantised matmuls of the transformer: what is quantised, what goes with it, and its label. No torch, no trial.

Only its main blocks are, and of these neither the first nor the last: they stand next to what goes in and comes out,
where errors are the usual worry, and two blocks of Z-Image-Turbo's thirty cost a fifteenth of the gain. The refiners,
the embedders and what modulates are small.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from importlib import metadata

from zbench.config import ComputeConfig, HardwareConfig, OffloadConfig, ParallelConfig, PipelineConfig
from zbench.errors import ConfigError
from zbench.methods import lora
from zbench.methods.offload import BY_NAME
from zbench.methods.parallel.dims import ParallelDims
from zbench.zimage.fast.limits import MULTIPLE
from zbench.zimage.geometry import TransformerGeometry

KEY = "compute.quantization"
NONE, FP8 = "none", "fp8"

WEIGHT_BYTES = 1
"""Of a quantised weight; the scale of each row weighs nothing beside it."""

PROJECTED = "what FP8 does to images is not in these: the tiny pipeline ran without it"
"""What a projection of a quantised trial rests on."""

KEPT_ENDS = 1
"""Main blocks at each end that are left as they are."""

LEAST_TORCHAO = (0, 15)
PACKAGE = "pip install 'zbench[torchao]'"

NORMS, FUSED, AUTO = "compute.norms", "fused", "auto"
READERS = {"qkv": "fused", "ffn": "fused", "scope": "both"}
"""What fused norms need: they round once for one layer that reads it, in attention and in the feed-forward."""

PEAK = "peak_fp8_tflops"
"""Key of a hardware profile with its dense FP8 matmul rate."""


def settled(compute: ComputeConfig, transformer: Callable[[], TransformerGeometry]) -> ComputeConfig:
    """`compute` with what `norms=auto` stands for on such a transformer, which is asked for where that decides.

    Without quantisation nothing is said of its scope and norms, so that one thing has one identity.
    """
    plain = ComputeConfig()
    if compute.quantization == NONE:
        return replace(compute, scope=plain.scope, norms=plain.norms)
    if compute.norms == AUTO:
        fused = not _lacking(compute) and all_quantised(transformer())
        return replace(compute, norms=FUSED if fused else plain.norms)
    return compute


def check_used(computes: Iterable[ComputeConfig]) -> None:
    """Raise ConfigError where a scope or fused norms are named, and none of `computes` quantises."""
    every = list(computes)
    if any(compute.quantization != NONE for compute in every):
        return
    plain = ComputeConfig()
    for compute in every:
        if compute.scope != plain.scope:
            raise ConfigError("compute.scope", compute.scope, f"nothing is quantised; add {KEY}={FP8}")
        if compute.norms == FUSED:
            raise ConfigError(NORMS, FUSED, f"nothing is quantised; add {KEY}={FP8}")


def problem(
    compute: ComputeConfig, pipeline: PipelineConfig, parallel: ParallelConfig, offload: OffloadConfig
) -> str | None:
    """Why it cannot work with these, or None."""
    if compute.quantization == NONE:
        return None
    named = f"{KEY}={compute.quantization}"
    if compute.device == "cpu":
        return f"{named}: torchao computes in FP8 on GPUs alone, and this trial runs on the CPU; use {KEY}={NONE}"
    if compute.dtype == "float32":
        return f"{named}: its scaled matmuls give bfloat16, and compute.dtype=float32; leave that out"
    if (tp := ParallelDims.of(parallel).tp) > 1:
        return (
            f"{named}: parallel.tp_size={tp} splits plain weights, and quantised ones have their scales beside them; "
            "shard by parallel.gather_size or parallel.ulysses_size"
        )
    mode = BY_NAME[offload.mode]
    if "transformer" in mode.waiting:
        return (
            f"{named}: offload.mode={mode.name} moves the transformer's weights as plain ones, and quantised ones are "
            "tensors of torchao's; use offload.mode=text_encoder"
        )
    if pipeline.lora is not None and not pipeline.lora_fused:
        return f"{named}: pipeline.lora_fused=false puts a LoRA beside the layers; use pipeline.lora_fused=true"
    if pipeline.weights.lower().endswith(lora.QUANTISED):
        return f"{named}: {lora.QUANTISED[1:]} weights are quantised as they are stored; use {KEY}={NONE}"
    if compute.norms == FUSED and (lacking := _lacking(compute)):
        return f"{NORMS}={FUSED}: rounds what one layer reads in FP8; add {', '.join(lacking)}"
    return None


def _lacking(compute: ComputeConfig) -> list[str]:
    """What norms would need to be fused, as it is typed."""
    return [f"compute.{knob}={value}" for knob, value in READERS.items() if getattr(compute, knob) != value]


def lacks_package(compute: ComputeConfig) -> str | None:
    """Why it cannot be measured with what is installed, or None. Nothing is imported."""
    if compute.quantization == NONE:
        return None
    try:
        version = metadata.version("torchao")
    except metadata.PackageNotFoundError:
        return f"{KEY}={compute.quantization}: needs the package torchao: {PACKAGE}"
    if _numbers(version) < LEAST_TORCHAO:
        least = ".".join(map(str, LEAST_TORCHAO))
        return f"{KEY}={compute.quantization}: needs torchao {least} or newer, and {version} is here: {PACKAGE}"
    return None


def problem_on_hardware(compute: ComputeConfig, hardware: HardwareConfig | None) -> str | None:
    """Why it is not projected, or None; None of hardware that is here."""
    if compute.quantization == NONE or hardware is None or getattr(hardware, PEAK) is not None:
        return None
    return f"{KEY}={compute.quantization}: hardware={hardware.name} has no FP8 rate; use {KEY}={NONE}"


def quantised_blocks(compute: ComputeConfig, blocks: int) -> int:
    """Of so many main blocks, how many are quantised."""
    return 0 if compute.quantization == NONE else max(0, blocks - 2 * KEPT_ENDS)


def block_parameters(compute: ComputeConfig, t: TransformerGeometry) -> int:
    """Weights of a quantised block that are quantised: queries, keys, values and output; SwiGLU's three."""
    of = {"attention": 4 * t.dim**2, "ffn": 3 * t.dim * t.ffn_dim}
    return sum(of.values()) if compute.scope == "both" else of[compute.scope]


def all_quantised(t: TransformerGeometry) -> bool:
    """Whether every layer of a quantised block can be: matmuls of FP8 take no others, and the rest stays as it is."""
    return t.dim % MULTIPLE == 0 and t.ffn_dim % MULTIPLE == 0


def told(compute: ComputeConfig) -> dict[str, str]:
    """What quantised it: the package with its version, of which the environment says nothing; empty without."""
    return {} if compute.quantization == NONE else {"torchao": metadata.version("torchao")}


def label(compute: ComputeConfig) -> str | None:
    """What a trial's label says of it, such as `fp8`, `fp8:ffn` or `fp8 norms:fused`; None without."""
    if compute.quantization == NONE:
        return None
    whole = compute.scope == ComputeConfig().scope
    kind = compute.quantization if whole else f"{compute.quantization}:{compute.scope}"
    return kind if compute.norms == ComputeConfig().norms else f"{kind} norms:{compute.norms}"


def _numbers(version: str) -> tuple[int, ...]:
    """The first two numbers of a version, 0 for what is none."""
    parts = version.split(".")[:2]
    return tuple(int(part) if part.isdigit() else 0 for part in parts)
