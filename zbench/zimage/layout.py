"""A pipeline folder in the official layout: its components, its configs and its presets; it opens no weights.

Official means what `Tongyi-MAI/Z-Image-Turbo` looks like on the Hugging Face hub: `model_index.json` names the
components, each has a folder with its config, and weights are safetensors, whole or in shards listed by an index.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from zbench.zimage.on_disk import absent, foreign, no_pipeline

PRESETS = Path(__file__).parent / "presets"

COMPONENTS = ("scheduler", "text_encoder", "tokenizer", "transformer", "vae")

CONFIG_FILE = {
    "scheduler": "scheduler_config.json",
    "text_encoder": "config.json",
    "tokenizer": "tokenizer_config.json",
    "transformer": "config.json",
    "vae": "config.json",
}

WEIGHTS_FILE = {
    "text_encoder": "model.safetensors",
    "transformer": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
}

COMPONENT_CLASSES: dict[str, tuple[str, tuple[str, ...]]] = {
    "scheduler": ("diffusers", ()),
    "text_encoder": ("transformers", ("Qwen3Model", "Qwen3ForCausalLM")),
    "tokenizer": ("transformers", ()),
    "transformer": ("diffusers", ("ZImageTransformer2DModel",)),
    "vae": ("diffusers", ("AutoencoderKL",)),
}
"""Library and classes that a model index may name; none: any that the library has."""

TOKENIZER_PRESET = "zimage_tiny"
"""Whose tokenizer stands in where random weights are asked for and the folder has none."""

TOKENIZER_SUFFIXES = (".json", ".jinja", ".model", ".tiktoken")
TOKENIZER_TEXTS = ("merges.txt", "vocab.txt")
"""Of a tokenizer's folder: what transformers may read, chat templates included. A README decides nothing."""


class WeightsError(Exception):
    """A pipeline folder cannot be loaded; the message is one line that names the file and what is wrong with it."""


def preset_names() -> list[str]:
    """Names of the built-in pipelines."""
    return sorted(folder.name for folder in PRESETS.iterdir() if (folder / "model_index.json").is_file())


def preset_folder(name: str) -> Path:
    """Folder of the built-in pipeline `name`.

    `zimage_tiny` has weights. `zimage_turbo` and `zimage`, the base model, have the official configs and neither
    weights nor a tokenizer: they are for random weights, and the tiny pipeline's tokenizer stands in. Raises
    `ValueError` naming the presets there are.
    """
    names = preset_names()
    if name not in names:
        raise ValueError(f"no preset {name!r}; there are: {', '.join(names)}")
    return PRESETS / name


@dataclass(frozen=True)
class Checkpoint:
    """What a pipeline is loaded from."""

    folder: Path
    """In the official layout; it holds all configs."""
    weights: Literal["folder", "random"] = "folder"
    """`random`: none are read, but for a VAE of its own."""
    vae: Path | None = None
    """Folder of an `AutoencoderKL` that takes the place of the folder's own."""
    transformer: Path | None = None
    """One safetensors or GGUF file that takes the place of the folder's own transformer weights."""
    variant: str | None = None
    """Which files are read where a component's come in several, such as `fp16`; None: those without a variant."""

    @property
    def read_components(self) -> list[str]:
        """Components whose weights are read from files."""
        return [c for c in WEIGHTS_FILE if self.weights == "folder" or (c == "vae" and self.vae is not None)]


def check_model_index(folder: Path) -> None:
    """Raise `WeightsError` unless `folder` has a `model_index.json` of a Z-Image pipeline with all its components.

    Its classes must be those that zbench loads: another's would be built from weights that are not its own, and a
    module of any other name would be imported.
    """
    problem = no_pipeline(folder)
    if problem is not None:
        raise WeightsError(problem)
    path = folder / "model_index.json"
    index = read_json(path)
    if index.get("_class_name") != "ZImagePipeline":
        raise WeightsError(f"{path}: _class_name is {index.get('_class_name')!r}, not 'ZImagePipeline'")
    for component in COMPONENTS:
        if component not in index:
            raise WeightsError(f"{path}: component {component!r} is missing")
        library, classes = COMPONENT_CLASSES[component]
        named = index[component]
        if not isinstance(named, list) or len(named) != 2 or named[0] != library:
            raise WeightsError(f"{path}: component {component!r} is {named!r}, not a class of {library}")
        if classes and named[1] not in classes:
            raise WeightsError(f"{path}: component {component!r} is a {named[1]}, not a {' or '.join(classes)}")


def component_folder(checkpoint: Checkpoint, component: str) -> Path:
    """Where a component's files are: in the pipeline's folder, or in that of the VAE in place of its own."""
    return checkpoint.vae if component == "vae" and checkpoint.vae is not None else checkpoint.folder / component


def config_file(checkpoint: Checkpoint, component: str) -> Path:
    """Where a component's config is."""
    return component_folder(checkpoint, component) / CONFIG_FILE[component]


def tokenizer_folder(folder: Path) -> Path:
    """Whose tokenizer a pipeline uses: its own, or that of `TOKENIZER_PRESET` where it has none."""
    own = folder / "tokenizer"
    return own if (own / CONFIG_FILE["tokenizer"]).is_file() else preset_folder(TOKENIZER_PRESET) / "tokenizer"


def tokenizer_files(folder: Path) -> dict[str, Path]:
    """What transformers may read from the folder of a tokenizer, by name; chat templates may lie in folders below."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {
        path.relative_to(folder).as_posix(): path
        for path in found
        if path.suffix in TOKENIZER_SUFFIXES or path.name in TOKENIZER_TEXTS
    }


def read_json(path: Path) -> dict[str, object]:
    """The JSON object in `path`. Raises `WeightsError` naming the file where there is none."""
    if not path.is_file():
        raise WeightsError(f"{path}: {absent(path)}")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as error:
        kind = None if isinstance(error, OSError) else foreign(path)
        raise WeightsError(f"{path}: not JSON: {kind or one_line(error)}") from error
    if not isinstance(values, dict):
        raise WeightsError(f"{path}: must hold a JSON object, not {type(values).__name__}")
    return values


def one_line(error: BaseException) -> str:
    """An exception's message without line breaks."""
    return " ".join(str(error).split())
