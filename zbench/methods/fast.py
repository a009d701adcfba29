"""The lossless pieces of the fast path: what each knob's plain value is, what goes with what, and what a label says.

No torch, no trial. The pieces themselves are `zimage.fast`'s, and `engines.reference.speeding` applies them.
"""

from dataclasses import replace
from typing import Any

from zbench.config import ComputeConfig, ParallelConfig, PipelineConfig
from zbench.methods import graphs, lora
from zbench.zimage.fast import limits

KNOBS = ("qkv", "rope", "ffn", "text", "decode")
"""The knobs of ComputeConfig that this is about."""

FAST = {"qkv": "fused", "rope": "real", "ffn": "split", "text": "compiled", "decode": "compiled"}
"""What `compute=fast` comes to on one device. Joined feed-forwards buy nothing in bf16 and take 1.0 GiB more on an H100
(reports/h100/fast/joined)."""

FP8 = {**FAST, "ffn": "fused"}
"""What `compute=fp8` comes to: what is quantised is quantised once for both halves."""

AUTO = "auto"
LEFT_OPEN = {"qkv": AUTO, "rope": AUTO}
"""Those of them that it leaves to how attention is shared among devices."""

OPEN = (*LEFT_OPEN, "norms", "attention_backend")
"""All that `compute=fast` and `fp8` leave to that, other owners' knobs among them."""

ON_ONE_DEVICE = "the fast path was measured on one device alone: on several each of its pieces counts as it does there"
"""What a projection of a trial with some of them rests on, where devices share an image."""

NOT_COMPILED = "pieces of the fast path in blocks that are not compiled count for nothing: they were not measured so"
"""What it rests on where torch.compile makes nothing of the transformer's pieces."""

COMPILED = ("compile", "text", "decode")
"""The knobs whose `true` or `compiled` is torch.compile's."""


def asked(compute: ComputeConfig) -> dict[str, str]:
    """The knobs that are not as PyTorch and diffusers have it, each with its value."""
    plain = ComputeConfig()
    return {knob: value for knob in KNOBS if (value := getattr(compute, knob)) != getattr(plain, knob)}


def settled(compute: ComputeConfig, parallel: ParallelConfig) -> ComputeConfig:
    """`compute` with what `auto` stands for: fused and real, but where ranks send what these would make one."""
    asynchronous = parallel.ulysses_async
    qkv = "split" if parallel.gather_size > 1 or asynchronous else FAST["qkv"]
    rope = "complex" if asynchronous else FAST["rope"]
    return replace(
        compute,
        qkv=qkv if compute.qkv == AUTO else compute.qkv,
        rope=rope if compute.rope == AUTO else compute.rope,
    )


def joins_rotations(compute: ComputeConfig) -> bool:
    """Whether a compiler has real rotations to join with what is around them.

    It is what of the pieces makes a forward shorter: joined layers buy nothing (reports/h100/fast/left_out).
    """
    return compute.compile and compute.rope == FAST["rope"]


def reads_real_tokens(compute: ComputeConfig) -> bool:
    """Whether the text encoder reads a prompt's own tokens alone, without its last layer, and nothing waits for it."""
    return compute.text != ComputeConfig().text


def projected(compute: ComputeConfig, ranks: int) -> str | None:
    """What a projection onto `ranks` devices an image rests on besides what was measured; None: nothing."""
    pieces = asked(compute)
    if pieces and ranks > 1:
        return ON_ONE_DEVICE
    return NOT_COMPILED if not compute.compile and pieces.keys() & {"qkv", "rope", "ffn"} else None


def compiled(compute: ComputeConfig) -> dict[str, str]:
    """The knobs by which torch.compile makes code, as they are typed; empty where it makes none."""
    values = {knob: getattr(compute, knob) for knob in COMPILED}
    return {knob: str(value).lower() for knob, value in values.items() if value in (True, "compiled")}


def problem(compute: ComputeConfig, pipeline: PipelineConfig, parallel: ParallelConfig) -> str | None:
    """Why a piece cannot work with these on any engine, or None."""
    return _joined(compute, pipeline) or _sharded(compute, parallel)


def _joined(compute: ComputeConfig, pipeline: PipelineConfig) -> str | None:
    """Why layers cannot be one, or None."""
    fused = [knob for knob in ("qkv", "ffn") if getattr(compute, knob) == "fused"]
    if not fused:
        return None
    named = f"compute.{fused[0]}=fused"
    if pipeline.lora is not None and not pipeline.lora_fused:
        return f"{named}: {limits.ADAPTER_BESIDE}"
    if pipeline.weights.lower().endswith(lora.QUANTISED):
        return f"{named}: {limits.PACKED.format(kind=lora.QUANTISED[1:])}"
    return None


def _sharded(compute: ComputeConfig, parallel: ParallelConfig) -> str | None:
    """Why what ranks send of attention does not go with it, or None."""
    if compute.qkv == "fused" and parallel.gather_size > 1:
        return f"compute.qkv=fused: {limits.GATHER_SENDS_EACH}"
    if parallel.ulysses_async and (compute.qkv == "fused" or compute.rope == "real"):
        knob = "qkv=fused" if compute.qkv == "fused" else "rope=real"
        return f"compute.{knob}: {limits.ASYNC_SENDS_EACH}"
    return None


def is_fast(compute: ComputeConfig, parallel: ParallelConfig) -> bool:
    """Whether it is all that `compute=fast` or `fp8` comes to with this sharding, but for the attention kernel and for
    whether feed-forwards are joined."""
    values: dict[str, Any] = {**FAST, **LEFT_OPEN, "ffn": compute.ffn}
    choice = settled(replace(compute, **values), parallel)
    return compute.compile and compute.graphs == graphs.AUTO and asked(settled(compute, parallel)) == asked(choice)


def labels(compute: ComputeConfig, parallel: ParallelConfig) -> tuple[str, ...]:
    """What a trial's label says of it: `fast` for all of it, else such as `compiled`, `graph`, `qkv:fused`.

    Feed-forwards that are not as the choice has them are named beside it: `fast ffn:fused`.
    """
    if is_fast(compute, parallel):
        usual = (FAST if compute.quantization == ComputeConfig().quantization else FP8)["ffn"]
        return ("fast",) if compute.ffn == usual else ("fast", f"ffn:{compute.ffn}")
    captured = graphs.label(compute.graphs)
    return (
        *(("compiled",) if compute.compile else ()),
        *((captured,) if captured is not None else ()),
        *(f"{knob}:{value}" for knob, value in asked(compute).items()),
    )
