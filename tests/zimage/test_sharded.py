"""Pipelines in the official layout, weights in shards, as `save_pretrained` writes them, loaded part by part."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from sharded import save_in_shards

from zbench.zimage.checksum import weights_sha256
from zbench.zimage.contents import weights_of
from zbench.zimage.layout import WEIGHTS_FILE, Checkpoint, WeightsError, preset_folder
from zbench.zimage.loading import load_pipeline
from zbench.zimage.weight_files import weight_files


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_in_shards(tmp_path_factory.mktemp("official") / "pipeline")


def load(folder: Path, **arguments: Any) -> Any:
    progress = arguments.pop("progress", None)
    return load_pipeline(Checkpoint(folder, **arguments), dtype=torch.bfloat16, device="cpu", progress=progress)


def files_of(folder: Path, component: str, vae: Path | None = None) -> list[Path]:
    return weight_files(Checkpoint(folder, vae=vae), component)


def test_the_pipeline_is_that_of_plain_diffusers_part_by_part(saved: Path) -> None:
    """Classes, configs, modes and every bit of every weight."""
    assert len(files_of(saved, "transformer")) > 3 and len(files_of(saved, "text_encoder")) > 1
    plain = diffusers.ZImagePipeline.from_pretrained(str(saved), dtype=torch.bfloat16, local_files_only=True)
    ours = load(saved)
    assert dict(ours.config) == dict(plain.config)
    assert ours.components.keys() == plain.components.keys()
    for name, part in plain.components.items():
        mine = getattr(ours, name)
        assert type(mine) is type(part)
        if name in WEIGHTS_FILE:
            states = mine.state_dict(), part.state_dict()
            assert states[0].keys() == states[1].keys() and mine.training is part.training is False
            assert all(torch.equal(states[0][key], states[1][key]) for key in states[1])
            assert all(state.dtype == torch.bfloat16 for state in states[0].values())
            configs = [c.to_dict() if name == "text_encoder" else dict(c) for c in (mine.config, part.config)]
            assert configs[0] == configs[1]
    assert dict(ours.scheduler.config) == dict(plain.scheduler.config)
    assert ours.tokenizer.get_vocab() == plain.tokenizer.get_vocab()


def test_progress_counts_every_byte_as_checked_and_as_loaded(saved: Path) -> None:
    told: list[tuple[str, int, int]] = []
    load(saved, progress=lambda *event: told.append(event))
    sizes = {c: sum(path.stat().st_size for path in files_of(saved, c)) for c in WEIGHTS_FILE}
    whole = sum(sizes.values())
    assert {total for _, _, total in told} == {2 * whole}
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)
    stages = [stage for stage, _, _ in told]
    assert stages == sorted(stages) and set(stages) == {"checking", "loading"}
    assert told[0] == ("checking", 0, 2 * whole) and ("checking", whole, 2 * whole) in told
    loaded = [done - whole for stage, done, _ in told if stage == "loading"]
    assert len(loaded) == 4 and loaded[0] == 0 and loaded[-1] == whole, "one more after each component"


def test_the_checksum_follows_the_files_and_not_where_they_are(saved: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(saved, tmp_path / "copy"))
    before = weights_sha256(weights_of(Checkpoint(saved)))
    assert before is not None and weights_sha256(weights_of(Checkpoint(copy))) == before
    shard = files_of(copy, "transformer")[-1]
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1  # one bit of one weight
    shard.write_bytes(data)
    assert weights_sha256(weights_of(Checkpoint(copy))) != before


def test_a_missing_shard_is_one_error_that_names_it(saved: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(saved, tmp_path / "copy"))
    shard = files_of(copy, "text_encoder")[1]
    shard.unlink()
    with pytest.raises(WeightsError, match=f"{shard.name}: missing file, although model.safetensors.index.json lists"):
        load(copy)


def test_components_that_wait_are_left_on_the_host(saved: Path) -> None:
    """The meta device stands for a GPU: it takes weights and keeps none."""
    pipeline = load_pipeline(saved, dtype=torch.float32, device="meta", on_host=("transformer",))
    placed = {component: getattr(pipeline, component).device.type for component in WEIGHTS_FILE}
    assert placed == {"text_encoder": "meta", "transformer": "cpu", "vae": "meta"}


def test_random_weights_have_no_progress_and_no_checksum() -> None:
    told: list[tuple[str, int, int]] = []
    load(preset_folder("zimage_tiny"), weights="random", progress=lambda *event: told.append(event))
    assert told == [] and weights_sha256(weights_of(Checkpoint(preset_folder("zimage_tiny"), "random"))) is None


@pytest.mark.parametrize("weights", ["folder", "random"])
def test_another_vae_takes_the_place_of_the_pipelines_own(weights: Any, saved: Path) -> None:
    vae = saved / "vae"
    tiny = preset_folder("zimage_tiny")
    ours, plain = load(tiny, weights=weights, vae=vae), load(tiny, weights=weights)
    theirs = diffusers.AutoencoderKL.from_pretrained(vae, dtype=torch.bfloat16, local_files_only=True).state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.vae.state_dict().items())
    for component in ("transformer", "text_encoder"):  # the others are what they were
        states = getattr(ours, component).state_dict(), getattr(plain, component).state_dict()
        assert all(torch.equal(states[0][key], states[1][key]) for key in states[1])
    own, other = (weights_sha256(weights_of(Checkpoint(tiny, weights, place))) for place in (None, vae))
    assert other is not None and other != own


def test_a_vae_without_one_of_its_weights_is_refused(saved: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    vae = Path(shutil.copytree(saved / "vae", tmp_path / "vae"))
    (path,) = files_of(saved, "vae", vae)
    tensors = load_file(path)
    del tensors["decoder.conv_out.bias"]
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=f"{path}: missing weights: decoder.conv_out.bias"):
        load(saved, vae=vae)


def test_a_shard_index_is_the_official_one(saved: Path) -> None:
    """What these tests load has the names that the hub's files have."""
    index = json.loads((saved / "transformer" / "diffusion_pytorch_model.safetensors.index.json").read_text())
    assert sorted(set(index["weight_map"].values()))[0].startswith("diffusion_pytorch_model-00001-of-")
