"""Weights that are stored with scales beside them, and tensors that no module asks for: by name, dtype and shape alone.

A weight stored as FP8 with a scale is `stored * scale`; read without it, it is garbage of the right shape. So every
tensor is a weight, its scale, or on the list of those known to be harmless; all others are refused by name.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from zbench.zimage.layout import WeightsError
from zbench.zimage.stored import GGUF_SUFFIX, Header, StoredTensor

SCALE_SUFFIXES = (".weight_scale", ".weight_scale_inv", ".scale_weight")
"""Of compressed-tensors, modelopt and newer ComfyUI; of DeepSeek and transformers (a factor too); of ComfyUI."""

ACTIVATION_SUFFIXES = (".input_scale", ".scale_input", ".activation_scale", ".output_scale")
"""Scales of what goes through a layer in FP8; where weights are dequantised nothing does."""

MARKER = "scaled_fp8"
"""ComfyUI's tensor without a meaning of its own: that the file has `scale_weight`."""

COMFY_SUFFIX = ".comfy_quant"
COMFY_FORMATS = ("float8_e4m3fn", "float8_e5m2")
COMFY_KEYS = {"format", "full_precision_matrix_mult"}
"""ComfyUI's JSON beside a weight: formats and keys that leave the weight `stored * scale`."""

HARMLESS = {
    "text_encoder": ("lm_head.weight",),
    "transformer": ("norm_final.weight",),
    "vae": (),
}
"""Weights that no pipeline computes with: a language model's head, a norm of the original checkpoint without use."""

HARMLESS_SUFFIXES = ("rotary_emb.inv_freq", ".num_batches_tracked")
"""Buffers that a module computes for itself, or that only training counts."""

PACKED = {
    "bitsandbytes": (".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map", ".SCB", ".weight_format"),
    "GPTQ or AWQ": (".qweight", ".qzeros", ".g_idx", ".scales"),
    "compressed-tensors": (".weight_packed", ".weight_zero_point", ".weight_shape"),
    "NVFP4": (".weight_scale_2", ".weight_global_scale"),
    "SVDQuant": (".wscales", ".wtscale", ".smooth_factor", ".smooth"),
    "quanto": (".weight._data", ".weight._scale", ".weight._shift"),
    "LoRA": (".lora_A.weight", ".lora_B.weight", ".lora_down.weight", ".lora_up.weight", ".lokr_w1", ".hada_w1_a"),
}
"""How tensors are named that are no weights of a module, by what made them."""

FLOATS = ("float64", "float32", "float16", "bfloat16")
FP8 = ("float8_e4m3fn", "float8_e5m2")

WAY_OUT = "take plain, FP8 or GGUF weights of it"

BLOCK = 128
BLOCKS = (BLOCK, 64, 32, 256, 16, 512)
"""Sides of the square blocks that may share a scale, the usual one first; not more than one fits a shape."""


@dataclass(frozen=True, slots=True)
class Scaling:
    """How one weight is made from what is stored."""

    stored: StoredTensor
    """What it is multiplied by."""
    block: tuple[int, ...] | None
    """How many values along each side share one number of the scale; None: one number for all."""


@dataclass(frozen=True, slots=True)
class Inventory:
    """The tensors of a component's files, told apart."""

    weights: dict[str, StoredTensor]
    scalings: dict[str, Scaling]
    """Name of a weight to how it is scaled."""

    @property
    def dtypes(self) -> list[str]:
        """How weights are stored, sorted: `bfloat16`, and `float8_e4m3fn scaled` of those with a scale."""
        return sorted({f"{w.dtype} scaled" if n in self.scalings else w.dtype for n, w in self.weights.items()})


def take_inventory(header: Header, component: str, block: tuple[int, int] | None = None) -> Inventory:
    """Tell weights, scales and harmless extras apart; `block` is the config's word on blocks that share a scale.

    Raises `WeightsError` naming file and tensor of what is none of these, or does not fit its weight.
    """
    _refuse_packed(header)
    scales = {name: weight for name in header if (weight := _scaled_weight(name)) is not None}
    extras = {name for name in header if name not in scales and _harmless(name, header, component)}
    weights = {name: stored for name, stored in header.items() if name not in scales and name not in extras}
    scalings: dict[str, Scaling] = {}
    for name, weight in scales.items():
        if weight in extras:
            continue
        if weight not in weights:
            raise WeightsError(f"{header[name].file}: {name} is a scale without its weight {weight}")
        if weight in scalings:
            raise WeightsError(
                f"{header[name].file}: {weight} has two scales, {scalings[weight].stored.name} and {name}"
            )
        scalings[weight] = Scaling(header[name], _block_of(name, header, weights[weight], block))
    for name, stored in weights.items():
        _check_dtype(name, stored, scalings, marked=any(_last(extra) == MARKER for extra in extras))
    return Inventory(weights, scalings)


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _scaled_weight(name: str) -> str | None:
    """The weight whose scale `name` is; None for what is no scale."""
    suffix = next((suffix for suffix in SCALE_SUFFIXES if name.endswith(suffix)), None)
    return None if suffix is None else f"{name.removesuffix(suffix)}.weight"


def _refuse_packed(header: Header) -> None:
    for name, stored in header.items():
        for maker, suffixes in PACKED.items():
            if name.endswith(suffixes) or (maker == "bitsandbytes" and ".quant_state." in name):
                what = "no whole weights, but a LoRA" if maker == "LoRA" else f"packed as {maker} does it"
                way = "give it beside whole weights" if maker == "LoRA" else WAY_OUT
                raise WeightsError(f"{stored.file}: tensor {name}: {what}; {way}")


def _harmless(name: str, header: Header, component: str) -> bool:
    if name in HARMLESS[component] or name.endswith(HARMLESS_SUFFIXES) or _last(name) == MARKER:
        return True
    if name.endswith(ACTIVATION_SUFFIXES):
        return f"{name.rpartition('.')[0]}.weight" in header
    if name.endswith(COMFY_SUFFIX):
        _check_comfy(header[name])
        return True
    return False


def _check_comfy(stored: StoredTensor) -> None:
    """Raise `WeightsError` where ComfyUI's note on a weight says that it is more than `stored * scale`."""
    from safetensors import safe_open

    with safe_open(stored.file, framework="np") as tensors:
        written = bytes(tensors.get_tensor(stored.name).tobytes())
    try:
        note = json.loads(written.rstrip(b"\0"))
    except (ValueError, RecursionError):
        note = None
    if not isinstance(note, dict) or note.get("format") not in COMFY_FORMATS or set(note) - COMFY_KEYS:
        says = f"tensor {stored.name}: {written[:80]!r} is no format that zbench reads"
        raise WeightsError(f"{stored.file}: {says}; {WAY_OUT}")


def _block_of(name: str, header: Header, weight: StoredTensor, block: tuple[int, int] | None) -> tuple[int, ...] | None:
    """How many values of `weight` along each side share a number of its scale; None: all of them share one."""
    scale = header[name]
    if weight.dtype not in FP8 or scale.dtype not in FLOATS:
        raise WeightsError(
            f"{scale.file}: {name} ({scale.dtype}) scales a weight that is stored as {weight.dtype}; "
            f"zbench applies float scales to FP8 weights; {WAY_OUT}"
        )
    shape = weight.shape
    if math.prod(scale.shape) == 1:
        return None
    if shape and scale.shape in (shape[:1], (shape[0], *[1] * (len(shape) - 1))):
        return 1, *shape[1:]
    if len(shape) == 2 and len(scale.shape) == 2:
        rows, columns = shape
        squares = [block] if block is not None else [(side, side) for side in BLOCKS]
        for high, wide in squares:
            if scale.shape == (-(-rows // high), -(-columns // wide)):
                return high, wide
        if scale.shape[0] == rows and columns % scale.shape[1] == 0:
            return 1, columns // scale.shape[1]
    raise WeightsError(
        f"{scale.file}: {name} has shape {scale.shape}, which does not fit its weight's {shape}: "
        "neither one number, one a row, nor one a block"
    )


def _check_dtype(name: str, stored: StoredTensor, scalings: Mapping[str, Scaling], *, marked: bool) -> None:
    if stored.file.suffix.lower() == GGUF_SUFFIX:
        return  # its types are the reader's business
    if stored.dtype not in (*FLOATS, *FP8):
        raise WeightsError(f"{stored.file}: tensor {name} is stored as {stored.dtype}: packed, or no weight; {WAY_OUT}")
    is_matrix = stored.dtype in FP8 and len(stored.shape) >= 2
    if is_matrix and name not in scalings and (scalings or marked):
        others = "others have" if scalings else f"{MARKER} says it has"
        raise WeightsError(f"{stored.file}: tensor {name} is stored as {stored.dtype} without the scale that {others}")


def check_quantised(inventory: Inventory, method: str | None, files: Collection[Path], config: Path) -> None:
    """Raise `WeightsError` where the config says that weights are quantised, and no file has a scale."""
    if method is not None and not inventory.scalings:
        names = ", ".join(path.name for path in files)
        raise WeightsError(
            f"{config}: quantization_config says {method}, but {names} has no scales; stored: "
            f"{', '.join(inventory.dtypes)}; {WAY_OUT}"
        )
