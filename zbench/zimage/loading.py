"""A `ZImagePipeline` from a folder or with random weights; it never reaches the network and never runs a folder's code.

Diffusers and transformers fill weights that a checkpoint lacks with random ones and go on. Here every tensor is
compared by name and shape with the module it is for before anything is loaded, so a pipeline that loads has all its
weights.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import diffusers
import torch
import transformers
from safetensors import SafetensorError
from torch import nn

from zbench.zimage import random_weights
from zbench.zimage.checksum import Content, content_of, named_sha256, total_bytes, weights_sha256
from zbench.zimage.layout import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    WeightsError,
    check_complete,
    check_config,
    check_model_index,
    component_folder,
    configs_of,
    one_line,
    tokenizer_folder,
    weights_of,
)
from zbench.zimage.tensors import check_tensors
from zbench.zimage.vae import check_vae

TellBytes = Callable[[str, int, int], None]
"""Told of the stage (checking or loading), and of bytes done and in all; every file counts once in each stage."""

_Places = dict[str, torch.device]
"""Component to where its weights go."""


def load_pipeline(
    folder: Path,
    *,
    dtype: torch.dtype,
    device: str,
    weights: Literal["folder", "random"] = "folder",
    on_host: Collection[str] = (),
    vae: Path | None = None,
    local_files_only: bool = True,
    seed: int = 0,
    progress: TellBytes | None = None,
) -> Any:
    """A `diffusers.ZImagePipeline` on `device` in `dtype`, with its progress bars off; `on_host` components stay there.

    `weights="folder"` loads the folder's safetensors exactly as `ZImagePipeline.from_pretrained` does, one component
    after another, so that host memory holds one of them on its way to `device`. `"random"` reads only the configs,
    builds the modules on `device` (six billion weights take seconds on a GPU) and fills them from `seed`, the same way
    on the same kind of device; where the folder has no tokenizer, that of `zimage_tiny` stands in. `vae` is the folder
    of an `AutoencoderKL` that takes the place of the pipeline's own, with either. Checksums of all files are taken
    before they are loaded and held against the files afterwards; `zimage.digests` remembers them.

    Raises `WeightsError`, one line naming the file, where a file is missing or corrupt or its tensors are not those
    of the module, or where files changed while they were loaded. Running out of memory is not an error of the folder
    and passes through.
    """
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    check_weights(folder, weights, vae)
    places = {component: torch.device("cpu" if component in on_host else device) for component in WEIGHTS_FILE}
    files, configs = weights_of(folder, weights, vae), configs_of(folder, weights, vae)
    meter = _Meter(files, configs, progress or (lambda stage, done_bytes, total_bytes: None))
    try:
        content = meter.check()
        if weights == "random":
            pipeline = _random_pipeline(folder, dtype, torch.device(device), places, vae, local_files_only, seed, meter)
        else:
            pipeline = _folder_pipeline(folder, dtype, places, vae, local_files_only, meter)
        unchanged = content == content_of(folder, weights, vae)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise WeightsError(f"{folder}: diffusers cannot load it: {one_line(error)}") from error
    if not unchanged:
        raise WeightsError(f"{folder}: its files changed while they were loaded; load them again")
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def check_weights(folder: Path, weights: Literal["folder", "random"] = "folder", vae: Path | None = None) -> None:
    """Raise `WeightsError` unless every weight to be read is there with the right shape; reads headers only."""
    if weights == "folder":
        check_complete(folder, own_vae=vae is None)
    if vae is not None:
        check_vae(vae, folder)
    for component, files in weights_of(folder, weights, vae).items():
        with torch.device("meta"):
            module = build_module(folder, component, vae)
        check_tensors(module, files)


def build_module(folder: Path, component: str, vae: Path | None = None) -> nn.Module:
    """The component's module from its config alone, on the current default device and in the current default dtype.

    Its weights are whatever its class begins with. Raises `WeightsError` where the config is none of the component's.
    """
    path = component_folder(folder, component, vae)
    module: nn.Module
    try:
        if component == "transformer":
            config = diffusers.ZImageTransformer2DModel.load_config(path, local_files_only=True)
            module = diffusers.ZImageTransformer2DModel.from_config(config)
        elif component == "vae":
            module = diffusers.AutoencoderKL.from_config(
                diffusers.AutoencoderKL.load_config(path, local_files_only=True)
            )
        else:
            module = transformers.Qwen3Model(transformers.Qwen3Config.from_pretrained(path, local_files_only=True))
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        config_file = path / CONFIG_FILE[component]
        raise WeightsError(f"{config_file}: no module can be built from it: {one_line(error)}") from error
    return module.eval()


class _Meter:
    """Bytes of a pipeline's files on their way: each is checked once and loaded once."""

    def __init__(self, files: dict[str, list[Path]], configs: dict[str, Path], progress: TellBytes) -> None:
        self._files = files
        self._configs = configs  # too small to be told of
        self._bytes = total_bytes(files)
        self._loaded = 0
        self._progress = progress

    def check(self) -> Content:
        """Take the checksums of all files."""
        if self._files:
            self._progress("checking", 0, 2 * self._bytes)
        weights = weights_sha256(self._files, lambda done: self._progress("checking", done, 2 * self._bytes))
        content = Content(weights, named_sha256(self._configs))
        self.loaded()
        return content

    def loaded(self, component: str | None = None) -> None:
        """Say that a component is on its device; None: that loading begins."""
        self._loaded += total_bytes({c: paths for c, paths in self._files.items() if c == component})
        if self._files:
            self._progress("loading", self._bytes + self._loaded, 2 * self._bytes)


def _folder_pipeline(
    folder: Path, dtype: torch.dtype, places: _Places, vae: Path | None, local_files_only: bool, meter: _Meter
) -> Any:
    modules = {}
    for component, device in places.items():
        path = component_folder(folder, component, vae)
        modules[component] = _from_pretrained(path, component, dtype).to(device)
        meter.loaded(component)
    return diffusers.ZImagePipeline.from_pretrained(
        str(folder), dtype=dtype, use_safetensors=True, local_files_only=local_files_only, **modules
    )


def _from_pretrained(path: Path, component: str, dtype: torch.dtype) -> Any:
    """A component with the weights in `path`, in host memory."""
    classes = {
        "transformer": diffusers.ZImageTransformer2DModel,
        "text_encoder": transformers.Qwen3Model,
        "vae": diffusers.AutoencoderKL,
    }
    return classes[component].from_pretrained(str(path), dtype=dtype, use_safetensors=True, local_files_only=True)


def _random_pipeline(
    folder: Path,
    dtype: torch.dtype,
    device: torch.device,
    places: _Places,
    vae: Path | None,
    local_files_only: bool,
    seed: int,
    meter: _Meter,
) -> Any:
    check_model_index(folder)
    for component in ("scheduler", *WEIGHTS_FILE):
        check_config(folder, component)
    modules = {}
    resident_last = sorted(WEIGHTS_FILE, key=lambda component: places[component] == device)
    for component in resident_last:  # so that what leaves the device never meets what stays
        if component == "vae" and vae is not None:
            continue
        with _building(dtype, device):
            modules[component] = build_module(folder, component)
        fill = random_weights.fill_transformer if component == "transformer" else random_weights.fill
        fill(modules[component], torch.Generator(device).manual_seed(seed))
        modules[component] = modules[component].to(places[component])
    if vae is not None:
        modules["vae"] = _from_pretrained(vae, "vae", dtype).to(places["vae"])
        meter.loaded("vae")
    return diffusers.ZImagePipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler.from_pretrained(
            folder / "scheduler", local_files_only=True
        ),
        tokenizer=_tokenizer(folder, local_files_only),
        **modules,
    )


@contextmanager
def _building(dtype: torch.dtype, device: torch.device) -> Iterator[None]:
    """Modules made inside are born on `device` in `dtype`; the global random state is left as it was."""
    before = torch.get_default_dtype()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), device:
        torch.set_default_dtype(dtype)
        try:
            yield
        finally:
            torch.set_default_dtype(before)


def _tokenizer(folder: Path, local_files_only: bool) -> Any:
    own = tokenizer_folder(folder)
    try:
        return transformers.AutoTokenizer.from_pretrained(
            own, local_files_only=local_files_only, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{own}: no tokenizer can be built from it: {one_line(error)}") from error
