"""A LoRA file is for this transformer, every tensor of it, or it is refused by the name of what does not fit."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers as diffusers_library
import loras
import numpy as np
import pytest
import torch
from factories import TINY, TURBO
from safetensors.numpy import save_file

from zbench.trial import geometry_of
from zbench.zimage.layout import WeightsError, preset_folder
from zbench.zimage.lora import check_lora, find_lora, linear_layers

TRANSFORMER = geometry_of(TINY).transformer
LAYER = "layers.0.attention.to_q"
A, B = np.zeros((4, 192), np.float32), np.zeros((192, 4), np.float32)


@pytest.mark.parametrize("preset", ["zimage_tiny", "zimage_turbo", "zimage"])
def test_the_layers_are_those_of_diffusers_transformer(preset: str) -> None:
    library: Any = diffusers_library.ZImageTransformer2DModel
    with torch.device("meta"):
        module = library.from_config(library.load_config(preset_folder(preset) / "transformer"))
    linear = {n: tuple(m.weight.shape) for n, m in module.named_modules() if isinstance(m, torch.nn.Linear)}
    pipeline = TINY if preset == "zimage_tiny" else TURBO
    assert linear_layers(geometry_of(pipeline).transformer) == linear


@pytest.mark.parametrize("kind", [loras.diffusers, loras.comfy, loras.kohya])
def test_every_layer_in_each_kind_of_names_is_known(kind: Callable[..., Any], tmp_path: Path) -> None:
    every = linear_layers(TRANSFORMER)
    assert check_lora(loras.saved(tmp_path / "l.safetensors", kind(every)), TRANSFORMER) == every.keys()


def named(prefix: str, layer: str, down: str, up: str, **more: Any) -> dict[str, Any]:
    return {f"{prefix}{layer}.{down}": A, f"{prefix}{layer}.{up}": B} | {
        f"{prefix}{layer}.{k}": v for k, v in more.items()
    }


@pytest.mark.parametrize(
    ("tensors", "layers"),
    [
        (loras.fused_qkv(), {f"layers.0.attention.to_{each}" for each in "qkv"}),
        (loras.lokr(), {LAYER}),
        (named("transformer.", LAYER, "lora.down.weight", "lora.up.weight"), {LAYER}),
        (named("diffusion_model.", LAYER, "lora_A.weight", "lora_B.weight"), {LAYER}),
        (named("", LAYER, "lora_A.weight", "lora_B.weight", alpha=np.ones(1, np.float32)), {LAYER}),
        (
            named("diffusion_model.", "layers.0.attention.out", "lora_down.weight", "lora_up.weight"),
            {"layers.0.attention.to_out.0"},
        ),
        (
            named("lora_unet_", "layers_0_attention_out", "lora_down.weight", "lora_up.weight"),
            {"layers.0.attention.to_out.0"},
        ),
    ],
)
def test_other_names_that_diffusers_loads_are_known(tensors: Any, layers: set[str], tmp_path: Path) -> None:
    assert check_lora(loras.saved(tmp_path / "l.safetensors", tensors), TRANSFORMER) == layers


FITS = loras.diffusers([LAYER])
DEEPER = named("transformer.", "layers.10.attention.to_q", "lora_A.weight", "lora_B.weight")


def reshaped(part: str, *shape: int) -> dict[str, Any]:
    """`FITS` with another shape of one part."""
    return FITS | {f"transformer.{LAYER}.{part}.weight": np.zeros(shape, np.float32)}


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        (FITS | {"transformer.layers.0.attention.to_z.lora_A.weight": A}, r"to_z\.lora_A\.weight fits no layer"),
        (
            FITS | named("transformer.", "layers.10.attention.to_q", "lora_A.weight", "lora_B.weight"),
            "more layers; so do 1 more of its 4",
        ),
        (FITS | {f"transformer.{LAYER}.lora_magnitude_vector": A}, "lora_magnitude_vector fits no layer"),
        (FITS | {f"transformer.{LAYER}.dora_scale": A}, "a DoRA's, which diffusers leaves out"),
        (FITS | {f"transformer.{LAYER}.alpha": np.ones(1, np.float32)}, r"to_q\.alpha fits no layer"),
        (FITS | {"transformer.layers.0.attention_norm1.diff": A}, r"norm1\.diff fits no layer"),
        (FITS | {"text_encoder.layers.0.self_attn.q_proj.lora_A.weight": A}, "changes the text encoder"),
        ({"lora_te1_x.lora_down.weight": A}, "changes the text encoder"),
        ({"transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight": A}, "a LoRA of Flux"),
        ({"lora_unet_down_blocks_0_attn1_to_q.lora_down.weight": A}, "a LoRA of Stable Diffusion"),
        ({"transformer.transformer_blocks.0.attn.to_q.lora_A.weight": A}, "a LoRA of another transformer"),
        ({"diffusion_model.blocks.0.self_attn.q.lora_A.weight": A}, "a LoRA of another transformer"),
        ({f"base_model.model.{LAYER}.lora_A.weight": A}, "PEFT's own"),
        (named("", LAYER, "lora_A.weight", "lora_B.weight"), "fits no layer"),  # diffusers needs a prefix
        (named("diffusion_model.", "layers.0.attention.qkv", "lora_A.weight", "lora_B.weight"), "fits no layer"),
        ({f"transformer.{LAYER}.weight": A}, r"holds no LoRA, its tensors are such as .*to_q\.weight; whole weights"),
        ({}, "holds no LoRA; whole weights"),
        (FITS | {f"transformer.{LAYER}.lora_A.weight": A.astype(np.int8)}, r"lora_A\.weight is stored as I8"),
        (FITS | {"transformer.\x1b[31m\n::error::.lora_A.weight": A}, r"\\x1b\[31m\\n::error::"),
        (FITS | {f"transformer.{'x' * 9000}.lora_A.weight": A}, "x…"),
        ({f"transformer.{LAYER}.lora_A.weight": A}, r"to_q: lora_B\.weight is missing"),
        ({f"diffusion_model.{LAYER}.alpha": np.ones(1, np.float32), "diffusion_model.lora": A}, "lora fits no layer"),
        (
            loras.comfy([LAYER]) | {f"diffusion_model.{LAYER}.alpha": np.ones(4, np.float32)},
            "alpha is 4, not one number",
        ),
        (
            reshaped("lora_A", 4, 3840),
            "4×3840, the transformer needs 4×192",
        ),
        (
            reshaped("lora_B", 192, 8),
            "192×8, which are of two ranks",
        ),
        (reshaped("lora_A", 0, 192), "0×192"),
        (reshaped("lora_A"), "one number"),
        (FITS | loras.comfy(["layers.1.attention.to_q"]), r"begin with transformer\. and diffusion_model\."),
        (loras.comfy([LAYER]) | loras.lokr("layers.1.attention.to_q"), r"mixes lora_down\.weight and lokr_w1"),
        (loras.fused_qkv() | loras.kohya([LAYER]), "to_q is changed twice"),
        (loras.lokr() | {f"diffusion_model.{LAYER}.lokr_w1": np.zeros((8, 8), np.float32)}, "changes 384×384"),
        (loras.lokr() | {f"diffusion_model.{LAYER}.lokr_w2": np.zeros((48, 48), np.float32)}, "no whole change"),
        (loras.lokr() | {f"diffusion_model.{LAYER}.lokr_w2_b": np.zeros((2, 48), np.float32)}, "no whole change"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(tensors: Any, said: str, tmp_path: Path) -> None:
    path = loras.saved(tmp_path / "l.safetensors", tensors)
    with pytest.raises(WeightsError, match=said) as raised:
        check_lora(path, TRANSFORMER)
    told = str(raised.value)
    assert str(path) in told and told.isprintable() and len(told) < len(str(path)) + 400


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ("{nope", "lora_adapter_metadata is not JSON"),
        ("[1]", "lora_adapter_metadata is no JSON object"),
        ('{"transformer.use_dora": true}', "a DoRA"),
        ('{"transformer.use_dora": false, "transformer.r": 4}', None),
    ],
)
def test_metadata_that_diffusers_would_trip_over_are_refused(metadata: str, said: str | None, tmp_path: Path) -> None:
    path = tmp_path / "l.safetensors"
    save_file(FITS, path, {"lora_adapter_metadata": metadata})
    if said is None:
        assert check_lora(path, TRANSFORMER) == {LAYER}
        return
    with pytest.raises(WeightsError, match=said):
        check_lora(path, TRANSFORMER)


def test_a_file_that_is_cut_off_is_no_lora(tmp_path: Path) -> None:
    path = loras.saved(tmp_path / "l.safetensors", FITS)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(WeightsError, match="not a whole safetensors file"):
        check_lora(path, TRANSFORMER)


@pytest.mark.parametrize(
    ("there", "asked", "said"),
    [
        ([], "style.safetensors", "no such file or folder; zbench fetches no LoRA"),
        (["style.bin"], "style.bin", "not a .safetensors file"),
        (["style.bin", "README.md"], "", "no safetensors file, README.md and style.bin is there"),
        ([], "", "no safetensors file, nothing is there"),
        (["a.safetensors", "b.safetensors"], "", "holds a.safetensors and b.safetensors; name the one"),
    ],
)
def test_a_place_without_one_file_says_what_is_there(there: list[str], asked: str, said: str, tmp_path: Path) -> None:
    for name in there:
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(WeightsError, match=said):
        find_lora(tmp_path / asked)


def test_the_one_file_of_a_folder_is_meant(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    path = loras.saved(tmp_path / "l.safetensors", FITS)
    assert find_lora(tmp_path) == find_lora(path) == path


def test_what_lies_in_a_files_place_is_named_and_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    pipe, link, pointer = (tmp_path / f"{name}.safetensors" for name in ("pipe", "link", "pointer"))
    os.mkfifo(pipe)
    link.symlink_to("gone")
    pointer.write_text("version https://git-lfs.github.com/spec/v1\n")
    for place, said in ((pipe, "a pipe"), (link, "a link to gone, which is not there"), (pointer, "a git-LFS pointer")):
        with pytest.raises(WeightsError, match=rf"{place.name}: .*{said}"):
            find_lora(place)


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        (
            {f"transformer.{LAYER}.lora_A.weight": A, f"transformer.{LAYER}.lora_B.weight": np.ones((192, 8))},
            "two ranks",
        ),
        ({"lora_unet_layers_0_attention_to_q.hada_w1_a": B}, "it is a LoHa's"),
        ({f"transformer.{LAYER}.lora_magnitude_vector": B[:, 0].copy()}, "it is a DoRA's"),
    ],
)
def test_another_kind_of_change_is_called_by_its_name(tensors: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=said):
        check_lora(loras.saved(tmp_path / "l.safetensors", tensors), TRANSFORMER)
