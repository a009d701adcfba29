"""Configs from elsewhere fetch nothing, run nothing, and ask for nothing that is not here."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from checkpoints import tiny_copy

from zbench.zimage.configs import quantisation
from zbench.zimage.contents import check_complete
from zbench.zimage.layout import Checkpoint, WeightsError


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_copy(tmp_path_factory.mktemp("configs") / "tiny")


def refusal(whole: Path, name: str, changes: dict[str, object]) -> str:
    """What is said of the pipeline with `changes` in one config."""
    path = whole / name
    before = path.read_text() if path.is_file() else None
    path.write_text(json.dumps((json.loads(before) if before else {}) | changes))
    try:
        with pytest.raises(WeightsError) as caught:
            check_complete(Checkpoint(whole))
    finally:
        path.unlink() if before is None else path.write_text(before)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    return message.removeprefix(f"{path}: ")


ENCODER = "text_encoder/config.json"


@pytest.mark.parametrize("name", [ENCODER, "text_encoder/generation_config.json", "transformer/config.json"])
@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"_attn_implementation": "kernels-community/flash-attn"}, "_attn_implementation"),
        ({"attn_implementation": "kernels-community/flash-attn2@main:forward"}, "attn_implementation"),
        ({"_attn_implementation_internal": "someone/kernel"}, "_attn_implementation_internal"),
        ({"text_config": {"_attn_implementation": "a/b"}}, "text_config._attn_implementation"),
        ({"attn_implementation": {"": "sdpa", "text_config": "a/b"}}, "attn_implementation.text_config"),
        ({"_experts_implementation": "a/b"}, "_experts_implementation"),
        ({"attn_implementation": "flash_attention_2"}, "attn_implementation"),
    ],
)
def test_a_kernel_from_elsewhere_is_refused_by_key(
    whole: Path, name: str, changes: dict[str, object], key: str
) -> None:
    """`flash_attention_2` too: transformers fetches a kernel for it where the package is missing."""
    assert refusal(whole, name, changes).startswith(f"{key}=")
    assert "zbench fetches and runs no kernel" in refusal(whole, name, changes)


@pytest.mark.parametrize(
    ("name", "changes", "key"),
    [
        (ENCODER, {"auto_map": {"AutoModel": "modeling.Mine"}}, "auto_map.AutoModel"),
        ("tokenizer/tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["t.Mine", None]}}, "auto_map.AutoTok"),
        ("transformer/config.json", {"auto_map": {"Model": "a--b.Mine"}}, "auto_map.Model"),
        ("scheduler/scheduler_config.json", {"auto_map": {"Model": "a--b.Mine"}}, "auto_map.Model"),
        ("vae/config.json", {"trust_remote_code": True}, "trust_remote_code"),
    ],
)
def test_code_from_elsewhere_is_refused_by_key(whole: Path, name: str, changes: dict[str, object], key: str) -> None:
    said = refusal(whole, name, changes)
    assert said.startswith(key) and "zbench does not run" in said


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"_class_name": "FluxPipeline"}, "_class_name is 'FluxPipeline', not 'ZImagePipeline'"),
        ({"_class_name": ["mine", "ZImagePipeline"]}, "not 'ZImagePipeline'"),
        ({"transformer": ["mine", "ZImageTransformer2DModel"]}, "not a class of diffusers"),
        ({"scheduler": ["os", "system"]}, "component 'scheduler' is ['os', 'system'], not a class of diffusers"),
        ({"tokenizer": ["my_tokenizer", "Mine"]}, "not a class of transformers"),
        ({"vae": ["diffusers", "AutoencoderTiny"]}, "component 'vae' is a AutoencoderTiny, not a AutoencoderKL"),
        ({"transformer": None}, "component 'transformer' is None"),
    ],
)
def test_a_model_index_may_name_known_classes_alone(whole: Path, changes: dict[str, object], says: str) -> None:
    """Diffusers imports whatever module is named there."""
    assert says in refusal(whole, "model_index.json", changes)


def test_another_text_encoder_is_named(whole: Path) -> None:
    assert "model_type is 'llama'" in refusal(whole, ENCODER, {"model_type": "llama"})


@pytest.mark.parametrize("value", [None, "eager", "sdpa", {"": "sdpa"}])
def test_what_is_built_in_is_taken(tmp_path: Path, value: object) -> None:
    folder = tiny_copy(tmp_path / "tiny")
    config = folder / ENCODER
    config.write_text(json.dumps(json.loads(config.read_text()) | {"attn_implementation": value}))
    check_complete(Checkpoint(folder))


@pytest.mark.parametrize("component", ["transformer", "text_encoder", "vae"])
@pytest.mark.parametrize(
    ("says", "refused"),
    [
        ({"quant_method": "torchao"}, "needs the package torchao: pip install 'zbench[torchao]'"),
        ({"load_in_4bit": True}, "needs the package bitsandbytes: pip install 'zbench[bitsandbytes]'"),
        ({"quant_method": "awq"}, "quant_method 'awq' is not loaded; zbench loads fp8"),
        ({}, "quant_method 'None' is not loaded"),
    ],
)
def test_packed_weights_name_what_they_need(
    whole: Path, component: str, says: dict[str, object], refused: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    said = refusal(whole, f"{component}/config.json", {"quantization_config": says})
    assert said.startswith("quantization_config: ") and refused in said


def test_a_single_file_has_no_config_of_its_own(whole: Path, tmp_path: Path) -> None:
    """The folder's says how the folder's own weights are packed."""
    folder = tiny_copy(tmp_path / "tiny")
    config = folder / "transformer" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"quantization_config": {"quant_method": "awq"}}))
    assert quantisation(Checkpoint(folder, transformer=tmp_path / "t.safetensors"), "transformer") is None


def test_an_adapter_that_leads_to_other_weights_is_refused(whole: Path, tmp_path: Path) -> None:
    """transformers, with peft here, loads `base_model_name_or_path` in place of the weights beside this file."""
    says = refusal(whole, "text_encoder/adapter_config.json", {"base_model_name_or_path": str(tmp_path)})
    assert says.startswith("transformers would load the weights that it names")


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("scheduler/scheduler_config.json", "DDIMScheduler"),  # else a schedule without shift, and other images
        ("transformer/config.json", "FluxTransformer2DModel"),
        ("vae/config.json", "AutoencoderTiny"),
    ],
)
def test_a_config_of_another_class_than_the_index_names(whole: Path, name: str, other: str) -> None:
    assert f"_class_name is '{other}', but model_index.json names" in refusal(whole, name, {"_class_name": other})
