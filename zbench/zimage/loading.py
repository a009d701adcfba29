"""A `ZImagePipeline` from a folder or with random weights; it never reaches the network and never runs a folder's code.

Diffusers and transformers fill weights that a checkpoint lacks with random ones, pass over those that nobody asks for,
and go on. Here every tensor is held against the module it is for before anything is loaded, by name, shape and dtype,
so a pipeline that loads has all its weights, and nothing that they came with was left out unsaid.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from safetensors import SafetensorError

from zbench.zimage import random_weights
from zbench.zimage.checksum import Content, content_of, named_sha256, total_bytes, weights_sha256
from zbench.zimage.components import build_module, load_component
from zbench.zimage.configs import check_configs
from zbench.zimage.contents import check_complete, configs_of, weights_of
from zbench.zimage.layout import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    Checkpoint,
    WeightsError,
    check_model_index,
    one_line,
    read_json,
    tokenizer_folder,
)
from zbench.zimage.storage import inventories
from zbench.zimage.tensors import check_tensors
from zbench.zimage.vae import check_vae

TellBytes = Callable[[str, int, int], None]
"""Told of the stage (checking or loading), and of bytes done and in all; every file counts once in each stage."""

_Places = dict[str, torch.device]
"""Component to where its weights go."""


def load_pipeline(
    checkpoint: Checkpoint | Path,
    *,
    dtype: torch.dtype,
    device: str,
    on_host: Collection[str] = (),
    local_files_only: bool = True,
    seed: int = 0,
    progress: TellBytes | None = None,
) -> Any:
    """A `diffusers.ZImagePipeline` on `device` in `dtype`, with its progress bars off; `on_host` components stay there.

    A path stands for a checkpoint with nothing in place of its parts. Its weights are loaded exactly as
    `ZImagePipeline.from_pretrained` does, one component after another, so that host memory holds one of them on its
    way to `device`; `components` says how those are that diffusers would misread. With `weights="random"` only the
    configs are read, the modules are built on `device` (six billion weights take seconds on a GPU) and filled from
    `seed`, the same way on the same kind of device; where the folder has no tokenizer, that of `zimage_tiny` stands
    in. Checksums of all files are taken before they are loaded and held against the files afterwards;
    `zimage.digests` remembers them.

    Raises `WeightsError`, one line naming the file, where a file is missing or corrupt or its tensors are not those
    of the module, or where files changed while they were loaded. Running out of memory is not an error of the folder
    and passes through.
    """
    checkpoint = Checkpoint(checkpoint) if isinstance(checkpoint, Path) else checkpoint
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    check_weights(checkpoint)
    places = {component: torch.device("cpu" if component in on_host else device) for component in WEIGHTS_FILE}
    files, configs = weights_of(checkpoint), configs_of(checkpoint)
    meter = _Meter(files, configs, progress or (lambda stage, done_bytes, total_bytes: None))
    try:
        content = meter.check()
        if checkpoint.weights == "random":
            pipeline = _random_pipeline(checkpoint, dtype, torch.device(device), places, local_files_only, seed, meter)
        else:
            pipeline = _folder_pipeline(checkpoint, dtype, places, local_files_only, meter)
        unchanged = content == content_of(checkpoint)
    except (OSError, ValueError, KeyError, TypeError, ImportError, SafetensorError) as error:
        raise WeightsError(f"{checkpoint.folder}: diffusers cannot load it: {one_line(error)}") from error
    if not unchanged:
        raise WeightsError(f"{checkpoint.folder}: its files changed while they were loaded; load them again")
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def check_weights(checkpoint: Checkpoint) -> None:
    """Raise `WeightsError` unless every weight to be read is there with the right shape, and no other; reads headers
    only."""
    if checkpoint.weights == "folder":
        check_complete(checkpoint)
    else:
        check_vae(checkpoint)
    for component, inventory in inventories(checkpoint).items():
        if inventory is not None:
            with torch.device("meta"):
                module = build_module(checkpoint, component)
            check_tensors(module, inventory)


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
    checkpoint: Checkpoint, dtype: torch.dtype, places: _Places, local_files_only: bool, meter: _Meter
) -> Any:
    modules = {}
    for component, device in places.items():
        modules[component] = load_component(checkpoint, component, dtype).to(device)
        meter.loaded(component)
    return diffusers.ZImagePipeline.from_pretrained(
        str(checkpoint.folder), dtype=dtype, use_safetensors=True, local_files_only=local_files_only, **modules
    )


def _random_pipeline(
    checkpoint: Checkpoint,
    dtype: torch.dtype,
    device: torch.device,
    places: _Places,
    local_files_only: bool,
    seed: int,
    meter: _Meter,
) -> Any:
    folder = checkpoint.folder
    check_model_index(folder)
    for component in ("scheduler", *WEIGHTS_FILE):
        read_json(folder / component / CONFIG_FILE[component])
    check_configs(checkpoint)
    modules = {}
    resident_last = sorted(WEIGHTS_FILE, key=lambda component: places[component] == device)
    for component in resident_last:  # so that what leaves the device never meets what stays
        if component == "vae" and checkpoint.vae is not None:
            continue
        with _building(dtype, device):
            modules[component] = build_module(checkpoint, component)
        fill = random_weights.fill_transformer if component == "transformer" else random_weights.fill
        fill(modules[component], torch.Generator(device).manual_seed(seed))
        modules[component] = modules[component].to(places[component])
    if checkpoint.vae is not None:
        modules["vae"] = load_component(checkpoint, "vae", dtype).to(places["vae"])
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
