"""Where a pipeline's weights come from, decided before anything is loaded; it imports no torch and downloads nothing.

The parent asks here before it starts a worker, so that weights that are missing, truncated or of another kind are one
line and exit code 2; the worker asks again and loads what the answer names.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from zbench.config import PipelineConfig
from zbench.engines.lora import resolve_lora
from zbench.errors import ConfigError, WeightsUnavailableError
from zbench.zimage.checksum import Content, content_of
from zbench.zimage.contents import check_complete
from zbench.zimage.digests import files_sha256
from zbench.zimage.hub_cache import find_in_hf_cache
from zbench.zimage.layout import WEIGHTS_FILE, Checkpoint, WeightsError, preset_folder
from zbench.zimage.on_disk import KINDS, names_a_file
from zbench.zimage.storage import inventories
from zbench.zimage.stored import read_headers
from zbench.zimage.vae import check_vae
from zbench.zimage.weight_files import check_variant

WeightsSource = Literal["preset", "folder", "file", "hub_cache", "download", "random"]


@dataclass(frozen=True)
class WeightsPlace:
    """An answer."""

    source: WeightsSource
    checkpoint: Checkpoint  # what is loaded; its folder is the preset's while it is still to be fetched
    hub_id: str | None = None
    fetch: bool = False  # whether `hub_id` is to be downloaded and takes the folder's place
    note: str | None = None  # what a user should know of it, such as another snapshot than main's
    lora: Path | None = None  # safetensors file of the LoRA

    def content(self) -> Content | None:
        """What is there now, read at most once (`zimage.digests`); None for a download.

        Raises WeightsError where weights are missing, OSError where a file cannot be read.
        """
        if self.fetch:
            return None
        content = content_of(self.checkpoint)
        return content if self.lora is None else content._replace(lora_sha256=files_sha256([self.lora])[0])


def resolve_weights(pipeline: PipelineConfig) -> WeightsPlace:
    """Where `pipeline.weights`, `pipeline.vae`, `pipeline.variant` and `pipeline.lora` lead on this machine.

    `auto` is the preset's own folder if weights are in it, else `pipeline.hub_id` in the local Hugging Face cache. A
    file has the transformer's weights; everything else is what `auto` leads to. Raises ConfigError for an unknown
    preset, WeightsUnavailableError naming what is there or missing and the ways out.
    """
    try:
        preset = preset_folder(pipeline.preset)
    except ValueError as error:
        raise ConfigError("pipeline.preset", pipeline.preset, str(error)) from error
    vae = None if pipeline.vae is None else Path(os.path.expanduser(pipeline.vae))
    try:
        found = _find(pipeline, Checkpoint(preset, vae=vae, variant=pipeline.variant))
    except OSError as error:  # a name that is too long, a folder that may not be looked into
        where = f"pipeline.weights={pipeline.weights}: {error.filename or preset}"
        raise WeightsUnavailableError(f"{where}: cannot be read: {error.strerror or error}") from error
    return replace(found, lora=resolve_lora(pipeline))


def _find(pipeline: PipelineConfig, parts: Checkpoint) -> WeightsPlace:
    wanted = pipeline.weights
    path = Path(os.path.expanduser(wanted))
    if wanted == "random":
        return WeightsPlace("random", _checked(replace(parts, weights="random"), pipeline))
    if wanted == "auto":
        return _base(pipeline, parts)
    if names_a_file(path):
        with _named(pipeline):
            read_headers([path])  # before anything is said of what it needs beside it
        return replace(_base(pipeline, replace(parts, transformer=path)), source="file")
    if path.exists() or path.is_symlink() or not _like_hub_id(wanted):
        return WeightsPlace("folder", _checked(replace(parts, folder=path), pipeline))
    return _from_hub(pipeline, wanted, parts)


def _base(pipeline: PipelineConfig, parts: Checkpoint) -> WeightsPlace:
    """The preset's own folder if weights are in it, else what `pipeline.hub_id` names."""
    if _holds_weights(parts.folder):
        return WeightsPlace("preset", _checked(parts, pipeline))
    return _from_hub(pipeline, pipeline.hub_id, parts)


def _from_hub(pipeline: PipelineConfig, hub_id: str | None, parts: Checkpoint) -> WeightsPlace:
    problem = None
    if hub_id is not None:
        cached = find_in_hf_cache(hub_id, needs=parts)
        if cached.whole is not None and not (cached.whole.in_place_of and pipeline.download):
            checkpoint = _checked(replace(parts, folder=cached.whole.folder), pipeline)
            return WeightsPlace("hub_cache", checkpoint, hub_id, note=cached.whole.in_place_of)
        if pipeline.download:
            _check_online(pipeline, hub_id, cached.problem)
            with _named(pipeline):  # by what the preset says; what is fetched is checked when it is here
                check_vae(parts)
            return WeightsPlace("download", parts, hub_id, fetch=True)
        problem = cached.problem
    if problem is not None:
        where = f"in the local Hugging Face cache of {hub_id}, {problem}"
    else:
        where = f"{hub_id} is not in the local Hugging Face cache" if hub_id else f"preset {pipeline.preset} has none"
    fetch = ", or let zbench fetch it with pipeline.download=true" if hub_id else ""
    raise WeightsUnavailableError(
        f"pipeline.weights={pipeline.weights}: {where}; give a folder in the official layout with "
        f"pipeline.weights=<folder>, run without trained weights with pipeline.weights=random{fetch}"
    )


def _check_online(pipeline: PipelineConfig, hub_id: str, problem: str | None) -> None:
    """Raise WeightsUnavailableError where huggingface_hub is told to fetch nothing."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        why = problem or f"{hub_id} is not in the local Hugging Face cache"
        raise WeightsUnavailableError(
            f"pipeline.weights={pipeline.weights}: {why}, and HF_HUB_OFFLINE forbids to fetch it, whatever "
            "pipeline.download says; unset that variable, or give a folder with pipeline.weights=<folder>"
        )


def _holds_weights(folder: Path) -> bool:
    return any(list((folder / component).glob("*.safetensors*")) for component in WEIGHTS_FILE)


def _like_hub_id(text: str) -> bool:
    """`owner/name` is a hub id; anything that starts like a path or ends like a file is not."""
    looks = text.count("/") == 1 and not text.startswith(("/", ".", "~")) and not text.endswith("/")
    return looks and "\\" not in text and Path(text).suffix.lower() not in KINDS


def _checked(checkpoint: Checkpoint, pipeline: PipelineConfig) -> Checkpoint:
    """`checkpoint` if every file is there and what their headers say is what a pipeline is loaded from."""
    with _named(pipeline):
        if checkpoint.weights == "folder":
            check_complete(checkpoint)
        else:
            check_vae(checkpoint)
            check_variant(checkpoint)
        inventories(checkpoint)
    return checkpoint


@contextmanager
def _named(pipeline: PipelineConfig) -> Iterator[None]:
    """Name the config key that led to what is wrong with a folder or file."""
    try:
        yield
    except WeightsError as error:
        raise WeightsUnavailableError(f"{key_of(pipeline, error)}: {error}") from error


def key_of(pipeline: PipelineConfig, error: WeightsError) -> str:
    """The config key and its value that led to what is wrong: the VAE's where its folder is named."""
    vae = None if pipeline.vae is None else str(Path(os.path.expanduser(pipeline.vae)))
    if vae is not None and str(error).startswith(vae):
        return f"pipeline.vae={pipeline.vae}"
    return f"pipeline.weights={pipeline.weights}"
