"""One component's module from its config and its files, by diffusers' and transformers' own loaders.

What these would misread is made ready for them: scales are applied, original names turned into diffusers', GGUF goes
through diffusers' quantiser. A folder's code is never run.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from torch import nn

from zbench.zimage.layout import Checkpoint, WeightsError, component_folder, config_file, one_line
from zbench.zimage.scales import Inventory
from zbench.zimage.storage import inventory_of
from zbench.zimage.stored import GGUF_SUFFIX
from zbench.zimage.tensors import in_diffusers_names, is_converted, read_tensors
from zbench.zimage.weight_files import index_file, loaded_variant, official_name, weight_files

CLASSES = {
    "transformer": diffusers.ZImageTransformer2DModel,
    "text_encoder": transformers.Qwen3Model,
    "vae": diffusers.AutoencoderKL,
}

QUANTISED = "quantization_config"


def build_module(checkpoint: Checkpoint, component: str) -> nn.Module:
    """The component's module from its config alone, on the current default device and in the current default dtype.

    Its weights are whatever its class begins with. Raises `WeightsError` where the config is none of the component's.
    """
    module: nn.Module
    try:
        if component == "text_encoder":
            module = transformers.Qwen3Model(_encoder_config(checkpoint))
        else:
            config = CLASSES[component].load_config(component_folder(checkpoint, component), local_files_only=True)
            module = CLASSES[component].from_config({k: v for k, v in config.items() if k != QUANTISED})
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        where = config_file(checkpoint, component)
        raise WeightsError(f"{where}: no module can be built from it: {one_line(error)}") from error
    return module.eval()


def load_component(checkpoint: Checkpoint, component: str, dtype: torch.dtype) -> Any:
    """The component with its weights in `dtype`, in host memory; GGUF weights stay packed and compute in `dtype`."""
    files = weight_files(checkpoint, component)
    inventory = inventory_of(checkpoint, component, files)
    if inventory is None:
        return _unpacked_by_library(checkpoint, component, dtype)
    with torch.device("meta"):
        module = build_module(checkpoint, component)
    if files[0].suffix.lower() == GGUF_SUFFIX:
        return _from_gguf(checkpoint, files[0], inventory, module, dtype)
    official = _is_official(checkpoint, component, files)
    if official and not is_converted(inventory, module.state_dict()):
        return _from_pretrained(checkpoint, component, dtype)
    return _from_tensors(checkpoint, component, read_tensors(inventory, dtype), dtype)


def _is_official(checkpoint: Checkpoint, component: str, files: Sequence[Path]) -> bool:
    """Whether a library finds these files under the names that it looks for, and the config has nothing to add."""
    official = official_name(component, loaded_variant(checkpoint, component))
    named = index_file(checkpoint, component) is not None or files[0].name == official
    return named and QUANTISED not in json.loads(config_file(checkpoint, component).read_text(encoding="utf-8"))


def _from_pretrained(checkpoint: Checkpoint, component: str, dtype: torch.dtype, **more: bool) -> Any:
    return CLASSES[component].from_pretrained(
        str(component_folder(checkpoint, component)),
        variant=loaded_variant(checkpoint, component),
        dtype=dtype,
        use_safetensors=True,
        local_files_only=True,
        **more,
    )


def _from_tensors(checkpoint: Checkpoint, component: str, tensors: dict[str, Any], dtype: torch.dtype) -> Any:
    if component == "text_encoder":
        config = _encoder_config(checkpoint)
        return transformers.Qwen3Model.from_pretrained(None, config=config, state_dict=tensors, dtype=dtype)
    folder = str(component_folder(checkpoint, component))
    return CLASSES[component].from_single_file(tensors, config=folder, dtype=dtype, local_files_only=True)


def _from_gguf(checkpoint: Checkpoint, file: Path, inventory: Inventory, module: nn.Module, dtype: torch.dtype) -> Any:
    """Linear layers keep their packed weights; what else is packed, such as a norm, is unpacked here."""
    from diffusers.models.model_loading_utils import load_gguf_checkpoint
    from diffusers.quantizers.gguf.utils import GGUFParameter, dequantize_gguf_tensor

    packed = load_gguf_checkpoint(file)
    named = in_diffusers_names({name: packed[stored.name] for name, stored in inventory.weights.items()})
    linear = {f"{name}.weight" for name, part in module.named_modules() if isinstance(part, nn.Linear)}
    tensors = {
        name: dequantize_gguf_tensor(tensor).to(dtype)
        if isinstance(tensor, GGUFParameter) and name not in linear
        else tensor
        for name, tensor in named.items()
    }
    return diffusers.ZImageTransformer2DModel.from_single_file(
        tensors,
        config=str(component_folder(checkpoint, "transformer")),
        quantization_config=diffusers.GGUFQuantizationConfig(compute_dtype=dtype),
        dtype=dtype,
        local_files_only=True,
    )


def _unpacked_by_library(checkpoint: Checkpoint, component: str, dtype: torch.dtype) -> Any:
    """Raises `WeightsError` where the library did not use every tensor, or lacked one."""
    module, told = _from_pretrained(checkpoint, component, dtype, output_loading_info=True)
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if told.get(problem):
            where = component_folder(checkpoint, component)
            raise WeightsError(f"{where}: {problem.replace('_', ' ')}: {sorted(map(str, told[problem]))[0]}")
    return module


def _encoder_config(checkpoint: Checkpoint) -> Any:
    """Without what it says of packed weights: those that get here are unpacked."""
    config = transformers.Qwen3Config.from_pretrained(
        component_folder(checkpoint, "text_encoder"), local_files_only=True
    )
    if hasattr(config, QUANTISED):
        delattr(config, QUANTISED)
    return config
