"""What weight files say of their tensors: names, dtypes and shapes, from headers alone; no tensor is read, no torch."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zbench.zimage.layout import WeightsError, one_line
from zbench.zimage.on_disk import absent, foreign

GGUF_SUFFIX = ".gguf"

GGUF_TYPES = (
    *("F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K", "Q5_1", "Q5_0", "Q4_K", "Q4_1", "Q4_0", "Q3_K", "Q2_K"),
    *("IQ4_NL", "IQ4_XS"),
)
"""What diffusers unpacks (`quantizers.gguf.utils`), and what needs no unpacking."""

TORCH_NAMES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E8M0": "float8_e8m0fnu",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
}
"""Safetensors' dtypes as torch calls them; others, such as F4, keep safetensors' name."""


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor as it lies in a file."""

    file: Path
    name: str
    """In the file."""
    dtype: str
    """As torch calls it, `float8_e4m3fn`; of a GGUF file as that calls it, `Q8_0`."""
    shape: tuple[int, ...]
    """Of the weight, also where it is packed in a GGUF file."""


Header = Mapping[str, StoredTensor]
"""Name of a tensor, as a module calls it or as the file does, to what is stored."""

PREFIXES = {
    "text_encoder": ("model.",),
    "transformer": ("model.diffusion_model.", "diffusion_model.", "transformer.", "model."),
    "vae": (),
}
"""What files put before all names of a component."""


def read_headers(files: Iterable[Path]) -> dict[str, StoredTensor]:
    """All tensors of a component's files together.

    Raises WeightsError naming a file that is not whole or of another kind, or a tensor that is in two of them.
    """
    found: dict[str, StoredTensor] = {}
    for path in files:
        header = _gguf(path) if path.suffix.lower() == GGUF_SUFFIX else _safetensors(path)
        for name in header:
            if name in found:
                raise WeightsError(f"{path}: tensor {name} is in {found[name].file.name} too")
        found |= header
    return found


def without_prefix(header: Header, component: str) -> dict[str, StoredTensor]:
    """`header` by names as a module has them. Raises WeightsError for a tensor that is there with and without."""
    prefix = next((p for p in PREFIXES[component] if any(name.startswith(p) for name in header)), "")
    found: dict[str, StoredTensor] = {}
    for name, stored in header.items():
        own = name.removeprefix(prefix)
        if own in found:
            raise WeightsError(f"{stored.file}: tensor {own} is there with {prefix!r} before it and without")
        found[own] = stored
    return found


def _torch_name(dtype: str) -> str:
    return TORCH_NAMES.get(dtype, dtype)


def _safetensors(path: Path) -> dict[str, StoredTensor]:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise WeightsError(f"{path}: {absent(path)}")
    try:
        kind = foreign(path)
        if kind is not None:
            raise WeightsError(f"{path}: not a whole safetensors file: {kind}")
        with safe_open(path, framework="np") as file:
            names = sorted(file.keys())
            slices = {name: file.get_slice(name) for name in names}
            return {
                name: StoredTensor(path, name, _torch_name(str(part.get_dtype())), tuple(part.get_shape()))
                for name, part in slices.items()
            }
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path}: not a whole safetensors file: {one_line(error)}") from error


def _gguf(path: Path) -> dict[str, StoredTensor]:
    if not path.is_file():
        raise WeightsError(f"{path}: {absent(path)}")
    if importlib.util.find_spec("gguf") is None:
        raise WeightsError(f"{path}: a GGUF file needs the package gguf: pip install 'zbench[gguf]'")
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise WeightsError(f"{path}: not a whole GGUF file: {foreign(path) or 'it does not begin with GGUF'}")
    import gguf

    try:
        tensors: list[Any] = gguf.GGUFReader(path).tensors
    except Exception as error:  # of many kinds, for it believes what the file says
        raise WeightsError(f"{path}: not a whole GGUF file: {type(error).__name__}: {one_line(error)}") from error
    unread = next((tensor for tensor in tensors if tensor.tensor_type.name not in GGUF_TYPES), None)
    if unread is not None:
        kind = unread.tensor_type.name
        raise WeightsError(f"{path}: {unread.name} is stored as {kind}; diffusers reads {', '.join(GGUF_TYPES)}")
    if not tensors:
        raise WeightsError(f"{path}: not a whole GGUF file: it lists no tensor")
    return {
        tensor.name: StoredTensor(
            path, tensor.name, tensor.tensor_type.name, tuple(int(n) for n in reversed(tensor.shape))
        )
        for tensor in tensors
    }
