"""Loads a LoRA into a pipeline with diffusers and PEFT, fused or beside the layers; it reads safetensors alone.

What diffusers would only warn of is an error here: every layer that the file is for must have taken it up.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from zbench.config import PipelineConfig
from zbench.errors import ConfigError, WeightsUnavailableError
from zbench.trial import geometry_of
from zbench.zimage.digests import files_sha256
from zbench.zimage.layout import WeightsError, one_line
from zbench.zimage.lora import check_lora

ADAPTER = "zbench"
PLAIN = (torch.float32, torch.bfloat16, torch.float16)
"""Dtypes of weights that something can be added to."""


def load_lora(pipe: Any, path: Path, pipeline: PipelineConfig) -> str:
    """Change the transformer of `pipe`, a diffusers `ZImagePipeline`, as `path` and `pipeline` say; before it is
    offloaded, compiled or cached.

    Returns the sha256 of the file. Raises WeightsUnavailableError for a file that diffusers cannot load or that
    changes meanwhile, ConfigError for weights that it cannot be fused with.
    """
    named = f"pipeline.lora={pipeline.lora}"
    transformer = pipe.transformer
    digest = files_sha256([path])[0]
    try:
        layers = check_lora(path, geometry_of(pipeline).transformer)
        pipe.load_lora_weights(
            str(path.parent), weight_name=path.name, adapter_name=ADAPTER, use_safetensors=True, local_files_only=True
        )
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except WeightsError as error:
        raise WeightsUnavailableError(f"{named}: {error}") from error
    except Exception as error:  # of diffusers, of PEFT and of torch: none of them says which kinds
        raise WeightsUnavailableError(f"{named}: {path}: diffusers cannot load it: {one_line(error)}") from error
    changed = {name: module for name, module in transformer.named_modules() if hasattr(module, "base_layer")}
    if changed.keys() != layers:
        other = min(changed.keys() ^ layers)
        raise WeightsUnavailableError(f"{named}: {path}: diffusers did not take up {other} as the file has it")
    unfilled = [n for module in changed.values() for n, tensor in module.named_parameters() if tensor.is_meta]
    if unfilled:
        raise WeightsUnavailableError(f"{named}: {path}: PEFT asks for {unfilled[0]}, which the file does not hold")
    if pipeline.lora_fused:
        _fuse(pipe, changed, pipeline)
    else:
        _keep_beside(pipe, changed, pipeline.lora_scale)
    if files_sha256([path])[0] != digest:
        raise WeightsUnavailableError(f"{named}: {path}: it changed while it was loaded; load it again")
    return digest


def _fuse(pipe: Any, changed: dict[str, nn.Module], pipeline: PipelineConfig) -> None:
    """Add the change to the weights, and take off what PEFT put around the layers."""
    for name, module in changed.items():
        layer: Any = module.base_layer
        weight = layer.weight
        if weight.dtype not in PLAIN or type(weight) is not nn.Parameter:
            stored = f"{type(weight).__name__} of {weight.dtype}".replace("torch.", "")
            problem = f"{name} is stored as {stored}, to which nothing can be added; use pipeline.lora_fused=false"
            raise ConfigError("pipeline.lora_fused", "true", problem)
    try:
        pipe.fuse_lora(lora_scale=pipeline.lora_scale, safe_fusing=True, adapter_names=[ADAPTER])
    except ValueError as error:  # what is not finite
        raise WeightsUnavailableError(f"pipeline.lora={pipeline.lora}: cannot be fused: {one_line(error)}") from error
    pipe.unload_lora_weights()


def _keep_beside(pipe: Any, changed: dict[str, nn.Module], scale: float) -> None:
    """Leave the matrices beside the layers, in the layers' own dtype, as diffusers' own loading of a pipeline does."""
    pipe.set_adapters([ADAPTER], [scale])
    for module in changed.values():
        layer: Any = module.base_layer
        for name, parameter in module.named_parameters():
            if not name.startswith("base_layer."):
                dtype = layer.weight.dtype if layer.weight.dtype in PLAIN else parameter.dtype
                parameter.data = parameter.data.to(device=layer.weight.device, dtype=dtype)
                parameter.requires_grad_(False)
