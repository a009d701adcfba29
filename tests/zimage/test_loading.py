"""Claims about `zbench.zimage.loading`: it loads what diffusers loads, and no weight ever turns random unnoticed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_images import PROMPTS, image

from zbench.zimage.layout import Checkpoint, WeightsError, preset_folder
from zbench.zimage.loading import check_weights, load_pipeline

TRANSFORMER = "transformer/diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the tiny pipeline that a test may damage."""
    return Path(shutil.copytree(preset_folder("zimage_tiny"), tmp_path / "tiny"))


def load(folder: Path, **arguments: Any) -> Any:
    loading = {key: arguments.pop(key) for key in ("seed", "progress") if key in arguments}
    return load_pipeline(Checkpoint(folder, **arguments), dtype=torch.float32, device="cpu", **loading)


def assert_refused(folder: Path, *named: str) -> None:
    """Loading fails in one line that has every one of `named`."""
    with pytest.raises(WeightsError) as caught:
        load(folder)
    message = str(caught.value)
    assert "\n" not in message
    for words in named:
        assert words in message


def test_the_image_is_that_of_plain_diffusers_bit_for_bit(tiny: Any) -> None:
    """The tiny preset is in the official layout and loading adds checks alone, so not one bit may differ."""
    from diffusers import ZImagePipeline

    plain = ZImagePipeline.from_pretrained(preset_folder("zimage_tiny"), dtype=torch.float32)
    assert np.array_equal(image(plain, PROMPTS[0], side=128), image(tiny, PROMPTS[0], side=128))


def test_progress_bars_are_off(tiny: Any) -> None:
    assert tiny.progress_bar(total=1).disable is True


def test_dtype_is_the_one_asked_for() -> None:
    pipeline = load_pipeline(preset_folder("zimage_tiny"), dtype=torch.bfloat16, device="cpu")
    assert {pipeline.transformer.dtype, pipeline.text_encoder.dtype, pipeline.vae.dtype} == {torch.bfloat16}


@pytest.mark.parametrize("name", [TRANSFORMER, "scheduler/scheduler_config.json"])
def test_files_that_change_while_they_are_loaded_are_refused(name: str, folder: Path) -> None:
    """What was loaded would be some of the old and some of the new, under a checksum of neither."""

    def touch(stage: str, done_bytes: int, total_bytes: int) -> None:
        if stage == "loading":
            data = (folder / name).read_bytes()
            (folder / name).write_bytes(
                data + b" " if name.endswith("json") else data[:-1] + bytes([(data[-1] + 1) % 256])
            )

    with pytest.raises(WeightsError, match="changed while they were loaded"):
        load(folder, progress=touch)


def test_a_truncated_file_is_named(folder: Path) -> None:
    """A download that broke off: the header promises more bytes than there are."""
    path = folder / TRANSFORMER
    path.write_bytes(path.read_bytes()[:100_000])
    assert_refused(folder, TRANSFORMER, "not a whole safetensors file")


def test_a_file_of_another_kind_is_named(folder: Path) -> None:
    (folder / TRANSFORMER).write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    assert_refused(folder, TRANSFORMER, "not a whole safetensors file")


@pytest.mark.parametrize(
    "name",
    [
        "model_index.json",
        "scheduler/scheduler_config.json",
        "text_encoder/model.safetensors",
        "tokenizer/tokenizer_config.json",
        TRANSFORMER,
        "vae/config.json",
    ],
)
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert_refused(folder, str(folder / name), "missing file")


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert_refused(tmp_path / "nowhere", "nowhere: no such folder")


def test_a_missing_weight_is_an_error_not_a_random_weight(folder: Path) -> None:
    """Diffusers warns and initialises it at random; the images are then worthless and nothing says so."""
    tensors = load_file(folder / TRANSFORMER)
    del tensors["layers.3.attention.to_q.weight"]
    save_file(tensors, folder / TRANSFORMER, metadata={"format": "pt"})
    assert_refused(folder, TRANSFORMER, "missing weights: layers.3.attention.to_q.weight")


def test_a_weight_of_another_shape_is_named_with_both_shapes(folder: Path) -> None:
    config = folder / "transformer" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"cap_feat_dim": 64}))
    assert_refused(folder, TRANSFORMER, "cap_embedder", "128", "64")


def test_weights_in_shards_load_like_weights_in_one_file(folder: Path, tiny: Any) -> None:
    """The official transformer comes in shards with an index; so does its encoder, whose names begin with `model.`."""
    for path, prefix in ((folder / TRANSFORMER, ""), (folder / "text_encoder" / "model.safetensors", "model.")):
        tensors = {prefix + name: tensor for name, tensor in load_file(path).items()}
        path.unlink()
        names = sorted(tensors)
        shards = {"shard-1.safetensors": names[::2], "shard-2.safetensors": names[1::2]}
        for shard, held in shards.items():
            save_file({name: tensors[name] for name in held}, path.with_name(shard), metadata={"format": "pt"})
        weight_map = {name: shard for shard, held in shards.items() for name in held}
        index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
        path.with_name(path.name + ".index.json").write_text(json.dumps(index))
    pipeline = load(folder)
    for component in ("transformer", "text_encoder"):
        ours, theirs = getattr(pipeline, component).state_dict(), getattr(tiny, component).state_dict()
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_random_weights_need_only_configs_and_follow_the_seed(folder: Path) -> None:
    for path in folder.rglob("*.safetensors"):
        path.unlink()
    shutil.rmtree(folder / "tokenizer")
    state = torch.random.get_rng_state()
    first, again, other = (load(folder, weights="random", seed=seed) for seed in (0, 0, 1))
    assert torch.equal(state, torch.random.get_rng_state()), "the caller's random numbers must not change"
    a, b, c = (image(pipeline, PROMPTS[1], side=64) for pipeline in (first, again, other))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)
    assert np.isfinite(a).all()


def test_random_weights_take_the_dtype_asked_for() -> None:
    checkpoint = Checkpoint(preset_folder("zimage_tiny"), "random")
    pipeline = load_pipeline(checkpoint, dtype=torch.bfloat16, device="cpu")
    for component in (pipeline.transformer, pipeline.text_encoder, pipeline.vae):
        assert {parameter.dtype for parameter in component.parameters()} == {torch.bfloat16}
    assert torch.get_default_dtype() is torch.float32


def test_random_weights_of_the_turbo_preset_can_be_asked_for() -> None:
    """Its 6 B are too many for a test; on the meta device the same modules are built without memory.

    What is checked is that configs alone suffice and that the standing-in tokenizer's ids fit the vocabulary.
    """
    from zbench.zimage.components import build_module
    from zbench.zimage.loading import _tokenizer

    turbo = preset_folder("zimage_turbo")
    with torch.device("meta"):
        encoder = build_module(Checkpoint(turbo), "text_encoder")
    assert len(_tokenizer(turbo, True)) <= encoder.config.vocab_size
    with pytest.raises(WeightsError, match=r"zimage_turbo/tokenizer/tokenizer_config\.json: missing"):
        check_weights(Checkpoint(turbo))
