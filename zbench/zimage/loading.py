"""A `ZImagePipeline` from a folder or with random weights; it never reaches the network and never runs a folder's code.

Diffusers and transformers fill weights that a checkpoint lacks with random ones and go on. Here every tensor is
compared by name and shape with the module it is for before anything is loaded, so a pipeline that loads has all its
weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import diffusers
import torch
import transformers
from safetensors import SafetensorError, safe_open
from torch import nn

from zbench.zimage import random_weights
from zbench.zimage.layout import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    WeightsError,
    check_complete,
    check_config,
    check_model_index,
    one_line,
    preset_folder,
    weight_files,
)

TOKENIZER_PRESET = "zimage_tiny"
"""Whose tokenizer stands in where random weights are asked for and the folder has none."""

LM_HEAD = "lm_head.weight"
"""In checkpoints of a whole language model; the pipeline reads hidden states and has no use for it."""


def load_pipeline(
    folder: Path,
    *,
    dtype: torch.dtype,
    device: str,
    weights: Literal["folder", "random"] = "folder",
    local_files_only: bool = True,
    seed: int = 0,
) -> Any:
    """A `diffusers.ZImagePipeline` on `device` in `dtype`, with its progress bars off.

    `weights="folder"` loads the folder's safetensors exactly as `ZImagePipeline.from_pretrained` does. `"random"` reads
    only the configs, builds the modules on `device` (six billion weights take seconds on a GPU) and fills them
    from `seed`, the same way on the same kind of device; where the folder has no tokenizer, that of `zimage_tiny`
    stands in.

    Raises `WeightsError`, one line naming the file, where a file is missing or corrupt or its tensors are not those
    of the module. Running out of memory is not an error of the folder and passes through.
    """
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    if weights == "random":
        pipeline = _random_pipeline(folder, dtype, torch.device(device), local_files_only, seed)
    else:
        check_weights(folder)
        try:
            pipeline = diffusers.ZImagePipeline.from_pretrained(
                str(folder), dtype=dtype, use_safetensors=True, local_files_only=local_files_only
            )
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise WeightsError(f"{folder}: diffusers cannot load it: {one_line(error)}") from error
        pipeline = pipeline.to(device)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def check_weights(folder: Path) -> None:
    """Raise `WeightsError` unless every weight of every component is there with the right shape; reads headers only."""
    check_complete(folder)
    for component in WEIGHTS_FILE:
        with torch.device("meta"):
            module = build_module(folder, component)
        _check_tensors(module, weight_files(folder, component))


def build_module(folder: Path, component: str) -> nn.Module:
    """The component's module from its config alone, on the current default device and in the current default dtype.

    Its weights are whatever its class begins with. Raises `WeightsError` where the config is none of the component's.
    """
    path = folder / component
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


def _check_tensors(module: nn.Module, files: list[Path]) -> None:
    """Compare the tensors of `files` with the module's by name and shape; more than needed is no error."""
    expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    found: set[str] = set()
    for path in files:
        for name, shape in _tensor_shapes(path).items():
            name = name if name in expected else name.removeprefix("model.")
            if name in expected and shape != expected[name]:
                raise WeightsError(f"{path}: {name} has shape {shape}, the config asks for {expected[name]}")
            found.add(name)
    missing = sorted(expected.keys() - found)
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        where = files[0] if len(files) == 1 else files[0].parent
        raise WeightsError(f"{where}: missing weights: {missing[0]}{more}")


def _tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    try:
        with safe_open(path, framework="pt") as file:
            names = set(file.keys()) - {LM_HEAD}
            return {name: tuple(file.get_slice(name).get_shape()) for name in names}
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path}: not a whole safetensors file: {one_line(error)}") from error


def _random_pipeline(folder: Path, dtype: torch.dtype, device: torch.device, local_files_only: bool, seed: int) -> Any:
    check_model_index(folder)
    for component in ("scheduler", *WEIGHTS_FILE):
        check_config(folder, component)
    generator = torch.Generator(device).manual_seed(seed)
    with _building(dtype, device):
        transformer, text_encoder, vae = (build_module(folder, c) for c in ("transformer", "text_encoder", "vae"))
    random_weights.fill_transformer(transformer, generator)
    random_weights.fill(text_encoder, generator)
    random_weights.fill(vae, generator)
    return diffusers.ZImagePipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler.from_pretrained(
            folder / "scheduler", local_files_only=True
        ),
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=_tokenizer(folder, local_files_only),
        transformer=transformer,
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
    own = folder / "tokenizer"
    if not (own / CONFIG_FILE["tokenizer"]).is_file():
        own = preset_folder(TOKENIZER_PRESET) / "tokenizer"
    try:
        return transformers.AutoTokenizer.from_pretrained(
            own, local_files_only=local_files_only, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{own}: no tokenizer can be built from it: {one_line(error)}") from error
