"""LoRAs for tests: random matrices for layers of the tiny pipeline, in the kinds of names that people's files have."""

from collections.abc import Collection
from pathlib import Path

import numpy as np
from factories import TINY
from numpy.typing import NDArray
from safetensors.numpy import save_file

from zbench.trial import geometry_of
from zbench.zimage.lora import linear_layers

RANK = 4
ATTENTION = tuple(name for name in linear_layers(geometry_of(TINY).transformer) if ".attention.to_" in name)
Tensors = dict[str, NDArray[np.float32]]


def matrices(
    layers: Collection[str] = ATTENTION, strength: float = 0.5, seed: int = 0
) -> dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Layer to its two matrices, down (rank × inputs) and up (outputs × rank)."""
    draw, shapes = np.random.default_rng(seed), linear_layers(geometry_of(TINY).transformer)
    return {
        name: (
            draw.normal(0, 0.02, (RANK, shapes[name][1])).astype(np.float32),
            draw.normal(0, strength, (shapes[name][0], RANK)).astype(np.float32),
        )
        for name in layers
    }


def diffusers(layers: Collection[str] = ATTENTION, strength: float = 0.5, seed: int = 0) -> Tensors:
    """As diffusers' `save_lora_weights` names them."""
    made = matrices(layers, strength, seed)
    return {
        f"transformer.{name}.lora_{part}.weight": matrix
        for name, pair in made.items()
        for part, matrix in zip("AB", pair, strict=True)
    }


def comfy(layers: Collection[str] = ATTENTION, alpha: float = RANK) -> Tensors:
    """As ComfyUI names them, with the alpha of each layer."""
    named = {
        name.replace("transformer.", "diffusion_model.").replace("lora_A", "lora_down").replace("lora_B", "lora_up"): t
        for name, t in diffusers(layers).items()
    }
    return named | {f"diffusion_model.{name}.alpha": np.array(alpha, np.float32) for name in layers}


def kohya(layers: Collection[str] = ATTENTION, alpha: float = RANK) -> Tensors:
    """As kohya's trainers name them."""
    renamed = {}
    for name, tensor in comfy(layers, alpha).items():
        layer, part = next(
            (name[: -len(end)], end) for end in (".lora_down.weight", ".lora_up.weight", ".alpha") if name.endswith(end)
        )
        renamed["lora_unet_" + layer.removeprefix("diffusion_model.").replace(".", "_") + part] = tensor
    return renamed


def fused_qkv(block: str = "layers.0") -> Tensors:
    """One change of the three projections together, as original module trees have it."""
    draw = np.random.default_rng(0)
    dim = geometry_of(TINY).transformer.dim
    name = f"lora_unet_{block.replace('.', '_')}_attention_qkv"
    return {
        f"{name}.lora_down.weight": draw.normal(0, 0.02, (RANK, dim)).astype(np.float32),
        f"{name}.lora_up.weight": draw.normal(0, 0.5, (3 * dim, RANK)).astype(np.float32),
        f"{name}.alpha": np.array(RANK, np.float32),
    }


def lokr(layer: str = "layers.0.attention.to_q") -> Tensors:
    """A Kronecker product, its second factor of low rank."""
    draw, (outputs, inputs) = np.random.default_rng(0), linear_layers(geometry_of(TINY).transformer)[layer]
    shapes = {"lokr_w1": (4, 4), "lokr_w2_a": (outputs // 4, RANK), "lokr_w2_b": (RANK, inputs // 4)}
    made = {f"diffusion_model.{layer}.{n}": draw.normal(0, 0.2, s).astype(np.float32) for n, s in shapes.items()}
    return made | {f"diffusion_model.{layer}.alpha": np.array(RANK, np.float32)}


def saved(path: Path, tensors: Tensors) -> Path:
    """`path`, which holds the tensors."""
    save_file(tensors, path)
    return path
