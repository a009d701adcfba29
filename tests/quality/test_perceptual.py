"""LPIPS and CLIP from local files made here: real formats, random weights."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from zbench.errors import ConfigError
from zbench.quality.perceptual import ClipScore, Lpips, _alexnet_with_heads

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (96, 96, 3), dtype=np.uint8)
OTHER = RNG.integers(0, 256, (96, 96, 3), dtype=np.uint8)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Under the names that lpips 0.1.4 gives them, with its two buffers that are constants here."""
    torch.manual_seed(0)
    state = {
        name: tensor.abs() if "lin" in name else tensor for name, tensor in _alexnet_with_heads().state_dict().items()
    }
    state |= {"scaling_layer.shift": torch.zeros(1, 3, 1, 1), "scaling_layer.scale": torch.ones(1, 3, 1, 1)}
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, tmp_path / "lpips.safetensors")
    return tmp_path / "lpips.safetensors"


def test_lpips_is_nothing_for_the_same_image_and_grows_with_noise(weights: Path) -> None:
    lpips = Lpips(str(weights))
    faint = np.clip(IMAGE.astype(int) + RNG.integers(-8, 9, IMAGE.shape), 0, 255).astype(np.uint8)
    assert lpips(IMAGE, IMAGE) == 0.0
    assert 0 < lpips(faint, IMAGE) < lpips(OTHER, IMAGE)


def test_lpips_names_are_those_of_the_lpips_package(weights: Path) -> None:
    """Read off lpips 0.1.4, whose distances on the same weights agreed to the last digit when this was written."""
    names = set(load_file(weights))
    assert {"net.slice1.0.weight", "net.slice2.3.bias", "net.slice5.10.weight", "lin0.model.1.weight"} <= names


def test_a_file_that_is_not_lpips_is_named(tmp_path: Path, weights: Path) -> None:
    with pytest.raises(ConfigError, match=r"measure\.lpips_weights=.*missing"):
        Lpips(str(tmp_path / "missing.safetensors"))
    part = tmp_path / "part.safetensors"
    save_file({k: v for k, v in load_file(weights).items() if "lin3" not in k}, part)
    with pytest.raises(ConfigError, match=r"lacks lin3\.model\.1\.weight"):
        Lpips(str(part))


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import transformers

    from zbench.zimage.train.tokenizer import build_tokenizer

    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.CLIPConfig(
        text_config={**sizes, "vocab_size": 2048, "max_position_embeddings": 77},
        vision_config={**sizes, "image_size": 32, "patch_size": 8},
        projection_dim=16,
    )
    transformers.CLIPModel(config).save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return folder


def test_clip_score_lies_within_its_bounds_and_depends_on_the_image(clip_folder: Path) -> None:
    clip = ClipScore(str(clip_folder))
    scores = [clip(image, "a red circle") for image in (IMAGE, np.zeros_like(IMAGE))]
    assert all(0 <= score <= 100 for score in scores)
    assert clip(IMAGE, "a red circle") == scores[0]


def test_a_folder_that_is_not_clip_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"measure\.clip_weights="):
        ClipScore(str(tmp_path))
