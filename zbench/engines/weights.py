"""Where a pipeline's weights come from, decided before anything is loaded; it imports no torch and downloads nothing.

The parent asks here before it starts a worker, so that missing or truncated weights are one line and exit code 2; the
worker asks again and loads what the answer names.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from zbench.config import PipelineConfig
from zbench.engines.lora import resolve_lora
from zbench.errors import ConfigError, WeightsUnavailableError
from zbench.zimage.checksum import Content, content_of
from zbench.zimage.digests import files_sha256
from zbench.zimage.layout import (
    WEIGHTS_FILE,
    WeightsError,
    check_complete,
    find_in_hf_cache,
    preset_folder,
    weight_files,
)
from zbench.zimage.vae import check_vae

WeightsSource = Literal["preset", "folder", "hub_cache", "download", "random"]


@dataclass(frozen=True)
class WeightsPlace:
    """An answer: `folder` holds configs and, unless they are random, weights; for a download it is None."""

    source: WeightsSource
    folder: Path | None
    hub_id: str | None = None
    vae: Path | None = None  # folder of the AutoencoderKL that takes the place of the pipeline's own
    lora: Path | None = None  # safetensors file of the LoRA

    @property
    def loaded_as(self) -> Literal["folder", "random"]:
        """`weights` of `zimage.loading.load_pipeline`."""
        return "random" if self.source == "random" else "folder"

    def content(self) -> Content | None:
        """What is there now, read at most once (`zimage.digests`); None for a download.

        Raises WeightsError where weights are missing, OSError where a file cannot be read.
        """
        if self.folder is None:
            return None
        content = content_of(self.folder, self.loaded_as, self.vae)
        return content if self.lora is None else content._replace(lora_sha256=files_sha256([self.lora])[0])


def resolve_weights(pipeline: PipelineConfig) -> WeightsPlace:
    """Where `pipeline.weights`, `pipeline.vae` and `pipeline.lora` lead on this machine.

    `auto` is the preset's own folder if weights are in it, else `pipeline.hub_id` in the local Hugging Face cache.
    Raises ConfigError for an unknown preset, WeightsUnavailableError naming what is missing and the ways out.
    """
    try:
        preset = preset_folder(pipeline.preset)
    except ValueError as error:
        raise ConfigError("pipeline.preset", pipeline.preset, str(error)) from error
    vae = None if pipeline.vae is None else Path(pipeline.vae).expanduser()
    found = replace(_find(pipeline, preset, vae), vae=vae)
    if vae is not None:
        with _named("pipeline.vae", pipeline.vae):
            check_vae(vae, found.folder or preset)
            _check_headers(weight_files(preset, "vae", vae))
    return replace(found, lora=resolve_lora(pipeline))


def _find(pipeline: PipelineConfig, preset: Path, vae: Path | None) -> WeightsPlace:
    wanted = pipeline.weights
    if wanted == "random":
        return WeightsPlace("random", preset)
    if wanted == "auto":
        if _holds_weights(preset):
            return WeightsPlace("preset", _checked(preset, wanted, vae))
        return _from_hub(pipeline, pipeline.hub_id, vae)
    folder = Path(wanted).expanduser()
    if folder.is_dir() or not _like_hub_id(wanted):
        return WeightsPlace("folder", _checked(folder, wanted, vae))
    return _from_hub(pipeline, wanted, vae)


def _from_hub(pipeline: PipelineConfig, hub_id: str | None, vae: Path | None) -> WeightsPlace:
    if hub_id is not None:
        cached = find_in_hf_cache(hub_id)
        if cached is not None:
            return WeightsPlace("hub_cache", _checked(cached, pipeline.weights, vae), hub_id)
        if pipeline.download:
            return WeightsPlace("download", None, hub_id)
    where = f"{hub_id} is not in the local Hugging Face cache" if hub_id else f"preset {pipeline.preset} has none"
    fetch = ", or let zbench fetch it with pipeline.download=true" if hub_id else ""
    raise WeightsUnavailableError(
        f"pipeline.weights={pipeline.weights}: {where}; give a folder in the official layout with "
        f"pipeline.weights=<folder>, run without trained weights with pipeline.weights=random{fetch}"
    )


def _holds_weights(folder: Path) -> bool:
    return any(list((folder / component).glob("*.safetensors*")) for component in WEIGHTS_FILE)


def _like_hub_id(text: str) -> bool:
    """`owner/name` is a hub id; anything that starts like a path is not."""
    return text.count("/") == 1 and not text.startswith(("/", ".", "~")) and not text.endswith("/")


def _checked(folder: Path, wanted: str, vae: Path | None) -> Path:
    """`folder` if every file is there and every safetensors header agrees with its file's length."""
    with _named("pipeline.weights", wanted):
        check_complete(folder, own_vae=vae is None)
        for component in WEIGHTS_FILE:
            if vae is None or component != "vae":
                _check_headers(weight_files(folder, component))
    return folder


def _check_headers(files: Iterable[Path]) -> None:
    """Raise WeightsError naming the first file whose header does not agree with its length."""
    from safetensors import SafetensorError, safe_open

    for path in files:
        try:
            with safe_open(path, framework="np"):
                pass
        except (SafetensorError, OSError) as error:
            raise WeightsError(f"{path}: not a whole safetensors file ({error})") from error


@contextmanager
def _named(key: str, value: str | None) -> Iterator[None]:
    """Name the config key that led to what is wrong with a folder."""
    try:
        yield
    except WeightsError as error:
        raise WeightsUnavailableError(f"{key}={value}: {error}") from error
