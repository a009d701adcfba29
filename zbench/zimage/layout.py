"""The files of a pipeline folder in the official layout, and where folders are found; it opens no tensor and no socket.

Official means what `Tongyi-MAI/Z-Image-Turbo` looks like on the Hugging Face hub: `model_index.json` names the
components, each has a folder with its config, and weights are safetensors, whole or in shards listed by an index.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

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


def check_model_index(folder: Path) -> None:
    """Raise `WeightsError` unless `folder` has a `model_index.json` of a Z-Image pipeline with all its components."""
    path = folder / "model_index.json"
    if not folder.is_dir():
        raise WeightsError(f"{folder}: no such folder")
    index = read_json(path)
    if index.get("_class_name") != "ZImagePipeline":
        raise WeightsError(f"{path}: _class_name is {index.get('_class_name')!r}, not 'ZImagePipeline'")
    for component in COMPONENTS:
        if component not in index:
            raise WeightsError(f"{path}: component {component!r} is missing")


def component_folder(folder: Path, component: str, vae: Path | None = None) -> Path:
    """Where a component's files are: in the pipeline's folder, or in `vae`, which takes the place of its VAE."""
    return vae if component == "vae" and vae is not None else folder / component


def check_config(folder: Path, component: str) -> None:
    """Raise `WeightsError` unless the component's config is there and holds a JSON object."""
    read_json(folder / component / CONFIG_FILE[component])


def weight_files(folder: Path, component: str, vae: Path | None = None) -> list[Path]:
    """Safetensors files of a component: one, or the shards that its index lists.

    Raises `WeightsError` naming the file that is missing or that may not be there, or that only weights in another
    format are there.
    """
    path = component_folder(folder, component, vae) / WEIGHTS_FILE[component]
    index_path = path.with_name(path.name + ".index.json")
    if path.is_file():
        if index_path.is_file():
            raise WeightsError(f"{index_path}: lists shards, but {path.name} is there too; keep one of them")
        return [path]
    if not index_path.is_file():
        others = sorted(p.name for p in path.parent.glob("*") if p.suffix in {".bin", ".pt", ".ckpt"})
        hint = f" (only {', '.join(others)}; zbench reads safetensors alone)" if others else ""
        raise WeightsError(f"{path}: missing file{hint}")
    shard_of = read_json(index_path).get("weight_map")
    if not isinstance(shard_of, dict) or not shard_of:
        raise WeightsError(f"{index_path}: key 'weight_map' is missing or empty")
    names = sorted({str(name) for name in shard_of.values()})
    for name in names:
        if Path(name).name != name or Path(name).suffix != ".safetensors":
            raise WeightsError(f"{index_path}: lists {name!r}, which is no safetensors file beside it")
    shards = [path.parent / name for name in names]
    for shard in shards:
        if not shard.is_file():
            raise WeightsError(f"{shard}: missing file, although {index_path.name} lists it")
    return shards


def weights_of(folder: Path, weights: Literal["folder", "random"], vae: Path | None) -> dict[str, list[Path]]:
    """Component to the safetensors files that are loaded; none of a component whose weights are random.

    Raises `WeightsError` where one is missing.
    """
    read = [c for c in WEIGHTS_FILE if weights == "folder" or (c == "vae" and vae is not None)]
    return {component: weight_files(folder, component, vae) for component in read}


def configs_of(folder: Path, weights: Literal["folder", "random"], vae: Path | None) -> dict[str, Path]:
    """Every file beside the weights that decides what a pipeline makes, by its name in the official layout.

    Those that are not there are left out; `check_complete` names them.
    """
    files = {"model_index.json": folder / "model_index.json"}
    for component in ("scheduler", *WEIGHTS_FILE):
        name = CONFIG_FILE[component]
        files[f"{component}/{name}"] = component_folder(folder, component, vae) / name
    for component in weights_of(folder, weights, vae):
        name = f"{WEIGHTS_FILE[component]}.index.json"
        files[f"{component}/{name}"] = component_folder(folder, component, vae) / name
    files |= {f"tokenizer/{name}": path for name, path in tokenizer_files(tokenizer_folder(folder)).items()}
    return {name: path for name, path in files.items() if path.is_file()}


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


def check_complete(folder: Path, *, own_vae: bool = True) -> None:
    """Raise `WeightsError` naming the first file that a loadable pipeline folder lacks.

    Without `own_vae` another takes its VAE's place: the config must be there all the same, its weights need not.
    """
    check_model_index(folder)
    for component in COMPONENTS:
        check_config(folder, component)
    for component in WEIGHTS_FILE:
        if own_vae or component != "vae":
            weight_files(folder, component)


def find_in_hf_cache(repo_id: str, cache_dir: Path | None = None) -> Path | None:
    """Newest complete snapshot of `repo_id` in the local Hugging Face cache, or None; asks no network.

    The snapshot of the branch `main` is preferred. `cache_dir` defaults to huggingface_hub's own (`HF_HUB_CACHE`).
    A snapshot of which a download is unfinished does not count.
    """
    from huggingface_hub import constants, file_download

    root = Path(constants.HF_HUB_CACHE) if cache_dir is None else cache_dir
    repo: Path = root / file_download.repo_folder_name(repo_id=repo_id, repo_type="model")
    snapshots = sorted((repo / "snapshots").glob("*"), key=lambda path: path.stat().st_mtime, reverse=True)
    main = repo / "refs" / "main"
    if main.is_file():
        preferred = main.read_text(encoding="utf-8").strip()
        snapshots.sort(key=lambda path: path.name != preferred)
    for snapshot in snapshots:
        try:
            check_complete(snapshot)
        except WeightsError:
            continue
        return snapshot
    return None


def read_json(path: Path) -> dict[str, object]:
    """The JSON object in `path`. Raises `WeightsError` naming the file where there is none."""
    if not path.is_file():
        raise WeightsError(f"{path}: missing file")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise WeightsError(f"{path}: not JSON: {one_line(error)}") from error
    if not isinstance(values, dict):
        raise WeightsError(f"{path}: must hold a JSON object, not {type(values).__name__}")
    return values


def one_line(error: BaseException) -> str:
    """An exception's message without line breaks."""
    return " ".join(str(error).split())
