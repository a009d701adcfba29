"""A LoRA: what a trial's label says of it, where it cannot work, and what SGLang is told; it reads no file.

Fused, its change is added to the weights when they are loaded, and a step costs what it costs without. Not fused, it is
computed beside each layer that it changes.
"""

from collections.abc import Iterable
from dataclasses import replace

from zbench.config import PipelineConfig
from zbench.errors import ConfigError
from zbench.methods.sglang import SGLangPart

QUANTISED = ".gguf"
"""Files whose weights are kept as they are stored, so that nothing can be added to them."""

PROJECTED = "the LoRA is fused, so a step costs what it costs without; the tiny pipeline ran without it"
"""What a projection of a trial with one rests on."""


def settled(pipeline: PipelineConfig) -> PipelineConfig:
    """`pipeline`; without a LoRA, with nothing said of how it is used, so that one thing has one identity."""
    return without(pipeline) if pipeline.lora is None else pipeline


def without(pipeline: PipelineConfig) -> PipelineConfig:
    """`pipeline` with the weights alone."""
    plain = PipelineConfig()
    return replace(pipeline, lora=None, lora_scale=plain.lora_scale, lora_fused=plain.lora_fused)


def check_used(pipelines: Iterable[PipelineConfig]) -> None:
    """Raise ConfigError where it is said how a LoRA is used, and none of `pipelines` has one."""
    every = list(pipelines)
    if any(pipeline.lora is not None for pipeline in every):
        return
    for pipeline in every:
        for key in ("lora_scale", "lora_fused"):
            if getattr(pipeline, key) != getattr(without(pipeline), key):
                problem = "there is no LoRA for it; name one with pipeline.lora=<file.safetensors>"
                raise ConfigError(f"pipeline.{key}", str(getattr(pipeline, key)).lower(), problem)


def native(pipeline: PipelineConfig) -> PipelineConfig:
    """`pipeline` with its LoRA fused, where that can be: the way in which it costs nothing."""
    return pipeline if pipeline.lora is None else replace(pipeline, lora_fused=can_be_fused(pipeline))


def can_be_fused(pipeline: PipelineConfig) -> bool:
    """Whether something can be added to the weights."""
    return not pipeline.weights.lower().endswith(QUANTISED)


def label(pipeline: PipelineConfig) -> str | None:
    """What a trial's label says of it, such as `lora:unfused×0.8`; None without one."""
    if pipeline.lora is None:
        return None
    scale = "" if pipeline.lora_scale == 1 else f"×{pipeline.lora_scale:g}"
    return f"lora:{'fused' if pipeline.lora_fused else 'unfused'}{scale}"


def problem(pipeline: PipelineConfig, *, projected: bool) -> str | None:
    """Why it cannot work, or None."""
    if pipeline.lora is None:
        return None
    if projected and not pipeline.lora_fused:
        return (
            "pipeline.lora_fused=false is not projected: what it costs beside each layer is not in the model; "
            "pipeline.lora_fused=true costs nothing"
        )
    if pipeline.lora_fused and not can_be_fused(pipeline):
        return f"pipeline.lora_fused=true: {QUANTISED[1:]} weights are kept quantised; use pipeline.lora_fused=false"
    return None


def sglang_part(pipeline: PipelineConfig) -> SGLangPart:
    """SGLang loads it with the model; fused, it is merged into the weights, and else computed beside them."""
    if pipeline.lora is None:
        return SGLangPart()
    merged = "merge" if pipeline.lora_fused else "dynamic"
    scale = repr(float(pipeline.lora_scale))
    return SGLangPart(
        flags=("--lora-path", pipeline.lora, "--lora-scale", scale, "--lora-merge-mode", merged),
        carries=("pipeline.lora", "pipeline.lora_scale", "pipeline.lora_fused"),
    )
