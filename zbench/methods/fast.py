"""The lossless pieces of the fast path: what each knob's plain value is, what goes with what, and what a label says.

No torch, no trial. The pieces themselves are `zimage.fast`'s, and `engines.reference.speeding` applies them.
"""

from zbench.config import ComputeConfig, OffloadConfig, ParallelConfig, PipelineConfig
from zbench.methods import graphs, lora
from zbench.methods.offload import BY_NAME

KNOBS = ("qkv", "rope", "ffn", "text", "decode")
"""The knobs of ComputeConfig that this is about."""

FAST = {"qkv": "fused", "rope": "real", "ffn": "fused", "text": "compiled", "decode": "compiled"}
"""What `compute=fast` sets of them."""

PROJECTED = "the fast path's pieces are not in these figures: it is projected as its blocks are compiled, or are not"
"""What a projection of a trial with some of them rests on."""

COMPILED = ("compile", "text", "decode")
"""The knobs whose `true` or `compiled` is torch.compile's."""


def asked(compute: ComputeConfig) -> dict[str, str]:
    """The knobs that are not as PyTorch and diffusers have it, each with its value."""
    plain = ComputeConfig()
    return {knob: value for knob in KNOBS if (value := getattr(compute, knob)) != getattr(plain, knob)}


def compiles(compute: ComputeConfig) -> bool:
    """Whether torch.compile makes anything of it."""
    return any(getattr(compute, knob) in (True, "compiled") for knob in COMPILED)


def problem(
    compute: ComputeConfig, pipeline: PipelineConfig, parallel: ParallelConfig, offload: OffloadConfig
) -> str | None:
    """Why a piece cannot work with these on any engine, or None."""
    return _joined(compute, pipeline) or _sharded(compute, parallel) or _compiled_text(compute, parallel, offload)


def _joined(compute: ComputeConfig, pipeline: PipelineConfig) -> str | None:
    """Why layers cannot be one, or None."""
    fused = [knob for knob in ("qkv", "ffn") if getattr(compute, knob) == "fused"]
    if not fused:
        return None
    named = f"compute.{fused[0]}=fused"
    if pipeline.lora is not None and not pipeline.lora_fused:
        return f"{named}: pipeline.lora_fused=false puts a LoRA beside the layers; use pipeline.lora_fused=true"
    if pipeline.weights.lower().endswith(lora.QUANTISED):
        return f"{named}: {lora.QUANTISED[1:]} weights are packed, and packed ones cannot be joined; use split"
    return None


def _sharded(compute: ComputeConfig, parallel: ParallelConfig) -> str | None:
    """Why what ranks send of attention does not go with it, or None."""
    if compute.qkv == "fused" and parallel.gather_size > 1:
        return (
            f"compute.qkv=fused: parallel.gather_size={parallel.gather_size} sends the values while the keys are "
            "computed, and the keys while the queries are; use compute.qkv=split"
        )
    if parallel.ulysses_async and (compute.qkv == "fused" or compute.rope == "real"):
        knob = "qkv=fused" if compute.qkv == "fused" else "rope=real"
        return (
            f"compute.{knob}: parallel.ulysses_async=true computes attention in cache-dit's own way, with complex "
            "rotations; leave it out, or use compute.qkv=split with compute.rope=complex"
        )
    return None


def _compiled_text(compute: ComputeConfig, parallel: ParallelConfig, offload: OffloadConfig) -> str | None:
    """Why the text encoder cannot be compiled, or None."""
    if compute.text != "compiled":
        return None
    if "text_encoder" in BY_NAME[offload.mode].waiting:
        return (
            f"compute.text=compiled: offload.mode={offload.mode} brings the text encoder's layers one by one, inside "
            "what would be compiled; use compute.text=short"
        )
    if parallel.text_encoder == "tp":
        return "compute.text=compiled: parallel.text_encoder=tp splits what would be compiled; use compute.text=short"
    return None


def is_fast(compute: ComputeConfig) -> bool:
    """Whether it is all that `compute=fast` sets, but for the attention kernel."""
    return compute.compile and compute.graphs == graphs.AUTO and asked(compute) == FAST


def labels(compute: ComputeConfig) -> tuple[str, ...]:
    """What a trial's label says of it: `fast` for all of it, else such as `compiled`, `graph`, `qkv:fused`."""
    if is_fast(compute):
        return ("fast",)
    captured = graphs.label(compute.graphs)
    return (
        *(("compiled",) if compute.compile else ()),
        *((captured,) if captured is not None else ()),
        *(f"{knob}:{value}" for knob, value in asked(compute).items()),
    )
