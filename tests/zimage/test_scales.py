"""Weights stored with scales are applied, and nothing that came with them is left out unsaid."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import (
    TINY,
    TRANSFORMER,
    is_linear,
    original_names,
    per_block,
    plain_weights,
    save,
    scaled,
    spread,
    tiny_copy,
)
from safetensors.torch import load_file
from tiny_images import PROMPTS, image, psnr_db
from torch import Tensor

from zbench.zimage.components import load_component
from zbench.zimage.layout import Checkpoint, WeightsError
from zbench.zimage.loading import check_weights, load_pipeline
from zbench.zimage.storage import stored_dtypes

MATRIX = "layers.0.attention.to_q.weight"


@pytest.fixture(scope="module")
def plain() -> dict[str, Tensor]:
    return plain_weights()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny pipeline whose transformer each test writes anew."""
    return tiny_copy(tmp_path_factory.mktemp("scaled") / "tiny")


def loaded(folder: Path, component: str = "transformer", dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    check_weights(Checkpoint(folder))
    state: dict[str, Tensor] = load_component(Checkpoint(folder), component, dtype).state_dict()
    return state


def assert_refused(folder: Path, *named: str) -> None:
    with pytest.raises(WeightsError) as caught:
        check_weights(Checkpoint(folder))
    message = str(caught.value)
    assert "\n" not in message
    for words in named:
        assert words in message


def by_rows(matrix: Tensor) -> Tensor:
    return matrix.abs().amax(1) / 448


@pytest.mark.parametrize(
    ("suffix", "scale_of"),
    [
        ("weight_scale", None),
        ("scale_weight", lambda matrix: matrix.abs().max() / 448),
        ("weight_scale", by_rows),
        ("weight_scale", lambda matrix: by_rows(matrix).reshape(-1, 1).bfloat16()),
        ("weight_scale_inv", per_block),
    ],
    ids=["one number", "ComfyUI", "a row", "a row, as a column in bfloat16", "DeepSeek's blocks"],
)
def test_every_scaled_weight_is_stored_times_scale(
    suffix: str, scale_of: Callable[[Tensor], Tensor] | None, folder: Path, plain: dict[str, Tensor]
) -> None:
    """Bit for bit, and within half of E4M3's last place (2^-4) of what was stored, so that no scale is mistaken."""
    stored = scaled(plain, suffix, scale_of)
    save(stored, folder / TRANSFORMER)
    state = loaded(folder)
    for name, tensor in plain.items():
        if is_linear(name, tensor):
            scale = stored[f"{name.removesuffix('weight')}{suffix}"].float()
            factor = spread(scale, tensor.shape)
            assert torch.equal(state[name], stored[name].float() * factor), name
            assert ((state[name] - tensor.float()).abs() <= 0.07 * tensor.float().abs() + 0.01 * factor).all(), name
        else:
            assert torch.equal(state[name], tensor.float())
    assert stored_dtypes(Checkpoint(folder))["transformer"] == ["bfloat16", "float8_e4m3fn scaled"]


def test_images_of_scaled_weights_are_near_those_of_plain_ones(
    folder: Path, plain: dict[str, Tensor], tiny: Any
) -> None:
    """Without its scales this transformer paints noise, some 10 dB from the plain one's image."""
    save(scaled(plain), folder / TRANSFORMER)
    pipeline = load_pipeline(folder, dtype=torch.float32, device="cpu")
    assert psnr_db(image(tiny, PROMPTS[0], side=128), image(pipeline, PROMPTS[0], side=128)) > 25


def test_scales_of_original_names_and_prefixes_are_applied_before_names_change(
    tmp_path: Path, plain: dict[str, Tensor], folder: Path
) -> None:
    stored = scaled(original_names(plain), "scale_weight") | {"scaled_fp8": torch.zeros(2, dtype=torch.float8_e4m3fn)}
    file = save(stored, tmp_path / "comfy.safetensors", prefix="model.diffusion_model.")
    state = load_component(Checkpoint(TINY, transformer=file), "transformer", torch.float32).state_dict()
    error = (state[MATRIX] - plain[MATRIX].float()).abs().max() / plain[MATRIX].float().abs().max()
    assert error < 0.07


def test_fp8_without_scales_is_a_plain_cast(folder: Path, plain: dict[str, Tensor]) -> None:
    cast = {name: t.to(torch.float8_e4m3fn) if is_linear(name, t) else t for name, t in plain.items()}
    save(cast, folder / TRANSFORMER)
    state = loaded(folder)
    assert all(torch.equal(state[name], tensor.float()) for name, tensor in cast.items())
    assert stored_dtypes(Checkpoint(folder))["transformer"] == ["bfloat16", "float8_e4m3fn"]


def test_scales_are_applied_in_every_component_and_across_shards(tmp_path: Path) -> None:
    folder = tiny_copy(tmp_path / "tiny")
    path = folder / "text_encoder" / "model.safetensors"
    plain = load_file(path)
    stored = {f"model.{name}": tensor for name, tensor in scaled(plain).items()}
    stored |= {"lm_head.weight": plain["embed_tokens.weight"].clone(), "model.rotary_emb.inv_freq": torch.ones(16)}
    path.unlink()
    shards = {name: f"model-0000{1 + name.endswith('_scale')}-of-00002.safetensors" for name in stored}
    for shard in set(shards.values()):  # all scales are in another file than their weights
        save({name: tensor for name, tensor in stored.items() if shards[name] == shard}, path.with_name(shard))
    path.with_name("model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    quantised = {"quantization_config": {"quant_method": "fp8", "activation_scheme": "dynamic"}}
    config = path.with_name("config.json")
    config.write_text(json.dumps(json.loads(config.read_text()) | quantised))
    state = loaded(folder, "text_encoder", torch.bfloat16)
    name = "layers.0.mlp.up_proj.weight"
    stored_scale = stored[f"model.{name}_scale"]
    assert torch.equal(state[name], (stored[f"model.{name}"].float() * stored_scale).bfloat16())


Change = Callable[[dict[str, Tensor]], dict[str, Tensor]]
"""Turns whole weights into those of a test."""

COMFY = "layers.0.attention.to_q.comfy_quant"


def comfy(**note: object) -> Tensor:
    return torch.tensor(list(json.dumps(note).encode()), dtype=torch.uint8)


def with_(**more: Tensor) -> Change:
    return lambda tensors: tensors | {name.replace("__", "."): tensor for name, tensor in more.items()}


REFUSED: dict[str, tuple[Change, tuple[str, ...]]] = {
    "another's tensor": (with_(foo__bar=torch.zeros(3)), ("no part of the module asks for: foo.bar",)),
    "a scale's shape": (
        lambda tensors: scaled(tensors) | {f"{MATRIX}_scale": torch.ones(7)},
        (f"{MATRIX}_scale has shape (7,)", "(192, 192)"),
    ),
    "a scale's kind": (
        lambda tensors: scaled(tensors) | {f"{MATRIX}_scale": torch.ones(1, dtype=torch.uint8)},
        (f"{MATRIX}_scale (uint8)",),
    ),
    "a scale of a plain weight": (
        lambda tensors: tensors | {f"{MATRIX}_scale": torch.ones(1)},
        (f"{MATRIX}_scale", "stored as bfloat16"),
    ),
    "a scale without a weight": (with_(no__weight_scale=torch.ones(1)), ("no.weight_scale is a scale without",)),
    "two scales": (
        lambda tensors: scaled(tensors) | {f"{MATRIX.removesuffix('weight')}scale_weight": torch.ones(1)},
        (f"{MATRIX} has two scales",),
    ),
    "one scale is lost": (
        lambda tensors: {n: t for n, t in scaled(tensors).items() if n != f"{MATRIX}_scale"},
        (MATRIX, "without the scale that others have"),
    ),
    "all scales are lost": (
        lambda tensors: (
            {n: t for n, t in scaled(tensors).items() if not n.endswith("_scale")}
            | {"scaled_fp8": torch.zeros(2, dtype=torch.float8_e4m3fn)}
        ),
        ("without the scale that scaled_fp8 says it has",),
    ),
    "whole numbers": (lambda tensors: tensors | {MATRIX: tensors[MATRIX].to(torch.int8)}, (MATRIX, "stored as int8")),
    "bitsandbytes": (
        lambda tensors: tensors | {f"{MATRIX}.absmax": torch.ones(4), f"{MATRIX}.quant_map": torch.ones(16)},
        (f"{MATRIX}.absmax", "packed as bitsandbytes"),
    ),
    "GPTQ": (with_(a__qweight=torch.zeros(2, dtype=torch.int32)), ("a.qweight", "packed as GPTQ or AWQ")),
    "a LoRA": (with_(a__lora_A__weight=torch.zeros(2, 2)), ("a.lora_A.weight", "a LoRA")),
    "NVFP4": (
        lambda tensors: scaled(tensors) | {COMFY: comfy(format="nvfp4")},
        (COMFY, "nvfp4", "no format that zbench reads"),
    ),
    "ComfyUI's rotation": (
        lambda tensors: scaled(tensors) | {COMFY: comfy(format="float8_e4m3fn", rotated=True)},
        (COMFY, "rotated"),
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_weight_is_refused_by_file_and_name(case: str, folder: Path, plain: dict[str, Tensor]) -> None:
    change, named = REFUSED[case]
    save(change(plain), folder / TRANSFORMER)
    assert_refused(folder, str(folder / TRANSFORMER), *named)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), 0.0, -1.0])
def test_a_scale_that_is_no_positive_number_is_refused(wrong: float, folder: Path, plain: dict[str, Tensor]) -> None:
    save(scaled(plain) | {f"{MATRIX}_scale": torch.tensor([wrong])}, folder / TRANSFORMER)
    with pytest.raises(WeightsError, match=rf"{MATRIX}_scale is not all positive numbers"):
        load_component(Checkpoint(folder), "transformer", torch.float32)


def test_known_extras_are_no_error(folder: Path, plain: dict[str, Tensor]) -> None:
    """Activation scales serve FP8 activations, of which there are none once weights are dequantised."""
    extras = {
        "norm_final.weight": torch.ones(192),
        MATRIX.replace("weight", "input_scale"): torch.ones(1),
        COMFY: comfy(format="float8_e4m3fn"),
        "scaled_fp8": torch.zeros(2, dtype=torch.float8_e4m3fn),
    }
    save(scaled(plain) | extras, folder / TRANSFORMER)
    assert loaded(folder).keys() == plain.keys()


def test_an_extra_in_any_component_is_refused(tmp_path: Path) -> None:
    for component, name in (("text_encoder", "model.safetensors"), ("vae", "diffusion_pytorch_model.safetensors")):
        folder = tiny_copy(tmp_path / component)
        path = folder / component / name
        save(load_file(path) | {"more.weight": torch.zeros(1)}, path)
        assert_refused(folder, str(path), "asks for: more.weight")


def test_a_config_that_promises_scales_must_have_them(tmp_path: Path) -> None:
    folder = tiny_copy(tmp_path / "tiny")
    config = folder / "transformer" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"quantization_config": {"quant_method": "fp8"}}))
    assert_refused(folder, str(config), "quantization_config says fp8", "has no scales")
