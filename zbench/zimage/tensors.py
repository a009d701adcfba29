"""Tensors of weight files as their module names them: scales applied, original names turned into diffusers'.

The same steps run on tensors without data (`check_tensors`) and on the real ones (`read_tensors`), so what was checked
is what is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from diffusers.loaders.single_file_utils import convert_z_image_transformer_checkpoint_to_diffusers
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from zbench.zimage.layout import WeightsError, one_line
from zbench.zimage.on_disk import some
from zbench.zimage.scales import Inventory, Scaling
from zbench.zimage.storage import unasked_for
from zbench.zimage.stored import StoredTensor

ORIGINAL_NAME = "x_embedder.weight"
"""In files that name the transformer's weights as its authors and ComfyUI do."""

ORIGINAL_QKV = ".attention.qkv.weight"
"""Queries, keys and values in one; diffusers has them apart."""


def check_tensors(module: nn.Module, inventory: Inventory) -> None:
    """Compare stored weights with the module's by name and shape.

    Raises `WeightsError` naming the file and the first weight that is missing, of another shape, or of no use.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    empty = {name: torch.empty(stored.shape, device="meta") for name, stored in inventory.weights.items()}
    found = {name: tuple(tensor.shape) for name, tensor in in_diffusers_names(empty).items()}
    files = sorted({stored.file for stored in inventory.weights.values()})
    where = files[0] if len(files) == 1 else files[0].parent if files else "no file"
    missing = sorted(expected.keys() - found)
    unused = sorted(found.keys() - expected)
    if missing:
        hint = f" (it has {some(unused)} instead)" if unused else ""
        raise WeightsError(f"{where}: missing weights: {_first(missing)}{hint}")
    for name, shape in found.items():
        if name in expected and shape != expected[name]:
            file = inventory.weights[name].file if name in inventory.weights else where
            raise WeightsError(f"{file}: {name} has shape {shape}, the config asks for {expected[name]}")
    if unused:
        stored = inventory.weights.get(unused[0])
        raise WeightsError(f"{stored.file if stored else where}: {unasked_for(unused)}")


def is_converted(inventory: Inventory, module_names: Mapping[str, object]) -> bool:
    """Whether `read_tensors` has to make anything of what is stored: names or values."""
    return bool(inventory.scalings) or any(name not in module_names for name in inventory.weights)


def read_tensors(inventory: Inventory, dtype: torch.dtype) -> dict[str, Tensor]:
    """Weights in host memory by diffusers' names; those with a scale in `dtype`, others as they are stored.

    Raises `WeightsError` where a file cannot be read or a scale is no positive number.
    """
    by_file: dict[Path, list[tuple[str, StoredTensor]]] = {}
    for name, stored in inventory.weights.items():
        by_file.setdefault(stored.file, []).append((name, stored))
    tensors = {}
    for path, held in by_file.items():
        try:
            with safe_open(path, framework="pt") as file:
                for name, stored in held:
                    tensor = file.get_tensor(stored.name)
                    scaling = inventory.scalings.get(name)
                    tensors[name] = tensor if scaling is None else _scaled(tensor, scaling, dtype)
        except (SafetensorError, OSError) as error:
            raise WeightsError(f"{path}: not a whole safetensors file: {one_line(error)}") from error
    return in_diffusers_names(tensors)


def in_diffusers_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """`tensors` of a transformer as diffusers calls them, where they have the original names; others as they are."""
    is_original = ORIGINAL_NAME in tensors or any(name.endswith(ORIGINAL_QKV) for name in tensors)
    if not is_original:
        return tensors
    converted: dict[str, Tensor] = convert_z_image_transformer_checkpoint_to_diffusers(dict(tensors))
    return converted


def _scaled(tensor: Tensor, scaling: Scaling, dtype: torch.dtype) -> Tensor:
    """`tensor` times its scale, multiplied in float32."""
    with safe_open(scaling.stored.file, framework="pt") as file:
        scale = file.get_tensor(scaling.stored.name).float()
    if not bool(torch.isfinite(scale).all() and (scale > 0).all()):
        raise WeightsError(f"{scaling.stored.file}: {scaling.stored.name} is not all positive numbers")
    return (tensor.float() * _spread(scale, scaling.block, tensor.shape)).to(dtype)


def _spread(scale: Tensor, block: tuple[int, ...] | None, shape: torch.Size) -> Tensor:
    """`scale` in a shape that multiplies one of `shape`."""
    if block is None:
        return scale.reshape(())
    if block == (1, *shape[1:]):  # one number a row
        return scale.reshape(-1, *[1] * (len(shape) - 1))
    rows, columns = block
    return scale.repeat_interleave(rows, 0)[: shape[0]].repeat_interleave(columns, 1)[:, : shape[1]]


def _first(names: list[str]) -> str:
    return names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")
