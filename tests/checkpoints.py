"""The tiny transformer as people store it: scaled to FP8, in one file, under the original names, as GGUF."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from zbench.zimage.layout import preset_folder

TINY = preset_folder("zimage_tiny")
TRANSFORMER = "transformer/diffusion_pytorch_model.safetensors"
MOST_E4M3 = 448.0

ORIGINAL = {
    "all_final_layer.2-1.": "final_layer.",
    "all_x_embedder.2-1.": "x_embedder.",
    ".attention.to_out.0.": ".attention.out.",
    ".attention.norm_k.": ".attention.k_norm.",
    ".attention.norm_q.": ".attention.q_norm.",
}
"""Diffusers' names to those of the authors and ComfyUI."""


def tiny_copy(folder: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(TINY, folder))


def plain_weights() -> dict[str, Tensor]:
    """Of the tiny transformer, as diffusers names them."""
    return load_file(TINY / TRANSFORMER)


def is_linear(name: str, tensor: Any) -> bool:
    return name.endswith(".weight") and tensor.ndim == 2


def scaled(tensors: dict[str, Tensor], suffix: str = "weight_scale", scale_of: Any = None) -> dict[str, Tensor]:
    """Every matrix in FP8 with its scale beside it; `scale_of` makes a scale from a matrix, one number by default."""
    scale_of = scale_of or (lambda matrix: (matrix.abs().max() / MOST_E4M3).reshape(1))
    made = {}
    for name, tensor in tensors.items():
        if is_linear(name, tensor):
            scale = scale_of(tensor.float())
            made[name] = (tensor.float() / spread(scale, tensor.shape)).to(torch.float8_e4m3fn)
            made[f"{name.removesuffix('weight')}{suffix}"] = scale
        else:
            made[name] = tensor
    return made


def spread(scale: Tensor, shape: Any) -> Tensor:
    """`scale` as large as what it scales: one number, one a row, or one a 128 x 128 block."""
    rows, columns = shape
    if scale.numel() == 1:
        return scale.reshape(1, 1)
    if scale.numel() == rows and (scale.ndim == 1 or scale.shape[1] == 1):
        return scale.reshape(rows, 1)
    index = [torch.arange(n) // 128 for n in (rows, columns)]
    return scale[index[0]][:, index[1]]


def per_block(matrix: Tensor) -> Tensor:
    """The largest of each 128 x 128 block over what E4M3 can hold."""
    rows, columns = (-(-n // 128) for n in matrix.shape)
    blocks = [[matrix[128 * r : 128 * r + 128, 128 * c : 128 * c + 128] for c in range(columns)] for r in range(rows)]
    return torch.stack([torch.stack([block.abs().max() for block in row]) for row in blocks]) / MOST_E4M3


def original_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """As the authors and ComfyUI name them: queries, keys and values in one."""
    made = {}
    for name, tensor in tensors.items():
        if ".attention.to_q." in name:
            parts = [tensors[name.replace("to_q", part)] for part in ("to_q", "to_k", "to_v")]
            made[name.replace("to_q", "qkv")] = torch.cat(parts)
        elif ".attention.to_k." not in name and ".attention.to_v." not in name:
            for ours, theirs in ORIGINAL.items():
                name = name.replace(ours, theirs)
            made[name] = tensor
    return made


def save(tensors: dict[str, Tensor], path: Path, prefix: str = "") -> Path:
    """A safetensors file of them, each name behind `prefix`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({prefix + name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata={"format": "pt"})
    return path


def save_gguf(tensors: dict[str, Tensor], path: Path, kind: str = "Q8_0", others: str = "F32") -> Path:
    """Matrices as `kind`, all else as `others`; those whose rows no block fits are F16."""
    import gguf

    writer = gguf.GGUFWriter(path, "zimage")
    for name, tensor in tensors.items():
        wanted = gguf.GGMLQuantizationType[kind if is_linear(name, tensor) else others]
        if tensor.shape[-1] % gguf.GGML_QUANT_SIZES[wanted][0]:
            wanted = gguf.GGMLQuantizationType.F16
        data = gguf.quants.quantize(np.asarray(tensor.float()), wanted)
        writer.add_tensor(name, data, raw_dtype=wanted)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
