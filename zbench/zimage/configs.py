"""Whether configs from elsewhere may be used: none may fetch or run code, and none may ask for what is not here.

It reads JSON alone. What a config asks for is refused by file and key, before a library sees it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from zbench.zimage.layout import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    Checkpoint,
    WeightsError,
    component_folder,
    config_file,
    read_json,
    tokenizer_folder,
)

REMOTE_CODE_KEYS = ("auto_map", "custom_pipelines", "custom_generate", "trust_remote_code")
"""Transformers and diffusers import what these name, from the folder or from the hub."""

KERNEL_KEYS = ("attn_implementation", "experts_implementation")
"""Transformers fetches and imports a kernel that one of these names, also under `_…` and `_…_internal`."""

BUILT_IN = {
    "attn_implementation": ("eager", "sdpa", "flex_attention"),
    "experts_implementation": ("eager", "batched_mm", "grouped_mm"),
}
"""What needs neither a download nor a package; `flash_attention_2` fetches a kernel where its package is missing."""

ADAPTER = "adapter_config.json"
"""Of PEFT: it leads transformers to other weights, in another folder or on the hub."""

FURTHER_CONFIGS = ("generation_config.json", ADAPTER, "special_tokens_map.json", "added_tokens.json")

DEQUANTISED = ("fp8", "fbgemm_fp8", "compressed-tensors", "modelopt")
"""Methods whose FP8 weights have their scales beside them: these are applied, whatever the library would do."""

PACKAGE_OF = {"bitsandbytes": "bitsandbytes", "torchao": "torchao"}
"""Methods that diffusers and transformers load, and the package (and zbench's extra) that they need for it."""

ENCODER = "qwen3"


class Quantisation(NamedTuple):
    """What a component's config says of its weights."""

    method: str
    loaded_by: Literal["zbench", "library"]
    block: tuple[int, int] | None
    """Rows and columns that share a scale, if it says."""


def check_configs(checkpoint: Checkpoint) -> None:
    """Raise `WeightsError` naming file and key of what would fetch or run code, or cannot be loaded here."""
    places = {component: component_folder(checkpoint, component) for component in CONFIG_FILE}
    places["tokenizer"] = tokenizer_folder(checkpoint.folder)
    for component, folder in places.items():
        for name in (CONFIG_FILE[component], *FURTHER_CONFIGS):
            if (folder / name).is_file():
                _check_code(folder / name)
    _check_code(checkpoint.folder / "model_index.json")
    _check_classes(checkpoint)
    encoder = config_file(checkpoint, "text_encoder")
    adapter = encoder.with_name(ADAPTER)
    if adapter.is_file():
        raise WeightsError(
            f"{adapter}: transformers would load the weights that it names in place of those beside it; "
            "merge the adapter into the weights, or take this file out"
        )
    model_type = read_json(encoder).get("model_type", ENCODER)
    if model_type != ENCODER:
        raise WeightsError(f"{encoder}: model_type is {model_type!r}; the text encoder of Z-Image is a {ENCODER!r}")
    for component in checkpoint.read_components:
        if component in WEIGHTS_FILE:
            quantisation(checkpoint, component)


def quantisation(checkpoint: Checkpoint, component: str) -> Quantisation | None:
    """What a component's config says of how its weights are packed; None where they are not.

    A single file in place of the transformer has no config to say it. Raises `WeightsError` for a method that cannot
    be loaded, or that needs a package that is not here.
    """
    path = config_file(checkpoint, component)
    says = read_json(path).get("quantization_config")
    if says is None or (component == "transformer" and checkpoint.transformer is not None):
        return None
    says = says if isinstance(says, dict) else {}
    in_bits = any(says.get(key) for key in ("load_in_4bit", "load_in_8bit"))
    method = str(says.get("quant_method") or ("bitsandbytes" if in_bits else None))
    if method in DEQUANTISED:
        block = says.get("weight_block_size")
        is_block = isinstance(block, list) and len(block) == 2 and all(type(n) is int and n > 0 for n in block)
        return Quantisation(method, "zbench", (block[0], block[1]) if isinstance(block, list) and is_block else None)
    package = PACKAGE_OF.get(method)
    if package is None:
        known = ", ".join((*DEQUANTISED, *PACKAGE_OF))
        raise WeightsError(
            f"{path}: quantization_config: quant_method {method!r} is not loaded; zbench loads {known}, and GGUF; "
            "take plain, FP8 or GGUF weights"
        )
    if importlib.util.find_spec(package) is None:
        raise WeightsError(
            f"{path}: quantization_config: quant_method {method!r} needs the package {package}: "
            f"pip install 'zbench[{package}]'"
        )
    return Quantisation(method, "library", None)


def _check_classes(checkpoint: Checkpoint) -> None:
    """Raise `WeightsError` where a component's config is one of another class than the model index names: a library
    would take from it what it knows, and its own defaults for the rest."""
    index = read_json(checkpoint.folder / "model_index.json")
    for component in ("scheduler", "transformer", "vae"):
        path, named = config_file(checkpoint, component), index.get(component)
        found = read_json(path).get("_class_name")
        if isinstance(named, list) and found is not None and found != named[-1]:
            raise WeightsError(f"{path}: _class_name is {found!r}, but model_index.json names {named[-1]!r}")


def _check_code(path: Path) -> None:
    for key, value in _leaves(read_json(path), ()):
        names = [part.strip("_").removesuffix("_internal") for part in key]
        dotted = ".".join(key)
        if any(name in REMOTE_CODE_KEYS for name in names) and value not in (None, False):
            raise WeightsError(f"{path}: {dotted}: names code from elsewhere, which zbench does not run; take it out")
        asked = next((name for name in names if name in KERNEL_KEYS), None)
        if asked is None or value is None or value in BUILT_IN[asked]:
            continue
        raise WeightsError(
            f"{path}: {dotted}={value}: zbench fetches and runs no kernel from elsewhere; take it out, or set "
            f"{' or '.join(BUILT_IN[asked][:2])}"
        )


def _leaves(node: Any, key: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every value below a JSON object with the keys that lead to it; an empty one is a value too."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    found = False
    for name, value in items:
        found = True
        yield from _leaves(value, (*key, str(name)))
    if not found:
        yield key, node
