"""A refusal names what is there: a file of another kind, a folder above or below, a link that leads nowhere."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from checkpoints import TINY, TRANSFORMER, plain_weights, save, tiny_copy

from zbench.zimage.contents import check_complete
from zbench.zimage.layout import Checkpoint, WeightsError
from zbench.zimage.loading import check_weights
from zbench.zimage.weight_files import weight_files


def refusal(path: Path, **parts: object) -> str:
    with pytest.raises(WeightsError) as caught:
        check_weights(Checkpoint(path, **parts))  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message and str(path) in message
    return message


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    assert refusal(tmp_path / "nowhere").endswith("nowhere: no such folder or file")


@pytest.mark.parametrize(
    ("name", "begins", "says"),
    [
        ("model.ckpt", b"PK\x03\x04", "a pickle; zbench reads none"),
        ("model.pt", b"\x80\x02", "a pickle; zbench reads none"),
        ("model.bin", b"", "a pickle; zbench reads none"),
        ("model.onnx", b"\x08", "an ONNX graph"),
        ("model", b"PK\x03\x04", "a zip archive, as torch.save writes pickles"),
        ("model.sft", b"", "name it .safetensors"),
        ("notes.txt", b"hello", "a file of an unknown kind; zbench takes a pipeline's folder"),
        ("model.zip", b"PK\x03\x04", "an archive; unpack it"),
    ],
)
def test_a_file_of_another_kind(name: str, begins: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(begins)
    assert says in refusal(tmp_path / name)


@pytest.mark.parametrize(
    ("begins", "says"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "a git-LFS pointer"),
        (b"<!DOCTYPE html><html>", "a web page and not the file itself"),
        (b"PK\x03\x04 and so on", "a zip archive"),
        (b"", "an empty file"),
        (b"GGUF\x03\0\0\0", "a GGUF file"),
    ],
)
def test_what_lies_in_place_of_weights_or_a_config(begins: bytes, says: str, tmp_path: Path) -> None:
    folder = tiny_copy(tmp_path / "tiny")
    (folder / TRANSFORMER).write_bytes(begins)
    assert f"{TRANSFORMER}: not a whole safetensors file: {says}" in refusal(folder)
    shutil.copy(TINY / TRANSFORMER, folder / TRANSFORMER)
    (folder / "vae" / "config.json").write_bytes(begins)
    assert f"vae/config.json: not JSON: {says}" in refusal(folder)


def test_a_folder_one_level_too_high_or_too_low(tmp_path: Path) -> None:
    folder = tiny_copy(tmp_path / "models" / "tiny")
    assert f"the folder below it is a pipeline's: {folder}" in refusal(tmp_path / "models")
    assert f"it is a part of a pipeline, whose folder is {folder}" in refusal(folder / "transformer")


def test_a_repository_of_the_hub_cache_names_its_snapshot(tmp_path: Path) -> None:
    snapshot = tiny_copy(tmp_path / "models--a--b" / "snapshots" / "abc")
    assert f"is a pipeline's: {snapshot}" in refusal(tmp_path / "models--a--b")


def test_one_component_alone(tmp_path: Path) -> None:
    encoder = Path(shutil.copytree(TINY / "text_encoder", tmp_path / "qwen"))
    assert "the folder holds one Qwen3ForCausalLM and no pipeline" in refusal(encoder)
    transformer = Path(shutil.copytree(TINY / "transformer", tmp_path / "dit"))
    file = transformer / "diffusion_pytorch_model.safetensors"
    assert refusal(transformer).endswith(f"one ZImageTransformer2DModel and no pipeline; give its file: {file}")


def test_a_folder_of_files_and_an_empty_one(tmp_path: Path) -> None:
    assert refusal(tmp_path).endswith("an empty folder")
    file = save({}, tmp_path / "z.safetensors")
    assert refusal(tmp_path).endswith(f"the folder holds z.safetensors; give such a file itself: {file}")


def test_a_file_of_a_pipeline_in_place_of_its_folder() -> None:
    for name in ("model_index.json", "transformer/config.json"):
        assert refusal(TINY / name).endswith(f"a file of the pipeline whose folder is {TINY}; give that folder")


def test_a_pipe_in_place_of_weights_is_not_waited_for(tmp_path: Path) -> None:
    folder = tiny_copy(tmp_path / "tiny")
    (folder / TRANSFORMER).unlink()
    os.mkfifo(folder / TRANSFORMER)
    assert refusal(folder).endswith(f"{folder / TRANSFORMER}: a pipe, socket or device, not a file")


def test_a_link_that_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "model").symlink_to("gone")
    assert refusal(tmp_path / "model").endswith("model: a link to gone, which is not there")
    folder = tiny_copy(tmp_path / "tiny")
    for name in (TRANSFORMER, "vae/config.json", "model_index.json"):
        (folder / name).unlink()
        (folder / name).symlink_to("../../blobs/0123")
        assert f"{folder / name}: missing file: a link to ../../blobs/0123, which is not there" in refusal(folder)
        (folder / name).unlink()
        shutil.copy(TINY / name, folder / name)


@pytest.mark.parametrize("text", ["C:\\models\\z-image", "D:/models/z", "models\\z-image"])
def test_a_windows_path(text: str) -> None:
    with pytest.raises(WeightsError, match="a Windows path; write it as this system does"):
        check_complete(Checkpoint(Path(text)))


Rename = Callable[[Path], object]


def variant(path: Path, name: str) -> Path:
    return path.rename(path.with_name(path.name.replace(".safetensors", f".{name}.safetensors")))


def test_the_only_variant_is_taken_and_several_are_not_guessed_about(tmp_path: Path) -> None:
    folder = tiny_copy(tmp_path / "tiny")
    for path in list(folder.rglob("*.safetensors")):
        variant(path, "fp16")
    check_weights(Checkpoint(folder))
    check_weights(Checkpoint(folder, variant="fp16"))
    (path,) = weight_files(Checkpoint(folder), "transformer")
    assert path.name == "diffusion_pytorch_model.fp16.safetensors"
    shutil.copy(path, path.with_name("diffusion_pytorch_model.bf16.safetensors"))
    assert "there are the variants bf16, fp16: choose one with pipeline.variant=bf16" in refusal(folder)
    check_weights(Checkpoint(folder, variant="bf16"))  # of those that have it; the others have fp16 alone
    assert "no variant 'fp8'; there are: bf16, fp16" in refusal(folder, variant="fp8")


def test_weights_without_a_variant_go_before_those_with_one(tmp_path: Path) -> None:
    folder = tiny_copy(tmp_path / "tiny")
    shutil.copy(folder / TRANSFORMER, folder / TRANSFORMER.replace(".safetensors", ".fp16.safetensors"))
    names = {
        wanted: weight_files(Checkpoint(folder, variant=wanted), "transformer")[0].name for wanted in (None, "fp16")
    }
    assert names == {None: Path(TRANSFORMER).name, "fp16": "diffusion_pytorch_model.fp16.safetensors"}


def test_a_variant_in_shards_loads(tmp_path: Path) -> None:
    from zbench.zimage.components import load_component

    folder = tiny_copy(tmp_path / "tiny")
    (folder / TRANSFORMER).unlink()
    tensors = plain_weights()
    shards = {n: f"diffusion_pytorch_model.fp16-0000{1 + i % 2}-of-00002.safetensors" for i, n in enumerate(tensors)}
    for shard in set(shards.values()):
        save({n: t for n, t in tensors.items() if shards[n] == shard}, folder / "transformer" / shard)
    index = folder / "transformer" / "diffusion_pytorch_model.safetensors.index.fp16.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": shards}))
    check_weights(Checkpoint(folder))
    import torch

    state = load_component(Checkpoint(folder), "transformer", torch.bfloat16).state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in tensors.items())
    index.unlink()
    assert "are shards without their index" in refusal(folder)


def test_one_file_of_another_name_is_taken_and_two_are_not_guessed_about(tmp_path: Path) -> None:
    folder = tiny_copy(tmp_path / "tiny")
    (folder / TRANSFORMER).rename(folder / "transformer" / "mine.safetensors")
    check_weights(Checkpoint(folder))
    shutil.copy(folder / "transformer" / "mine.safetensors", folder / "transformer" / "other.safetensors")
    assert "there are mine.safetensors, other.safetensors: keep one of them" in refusal(folder)


@pytest.mark.parametrize("component", ["text_encoder", "vae"])
def test_gguf_of_another_component_is_refused(component: str, tmp_path: Path) -> None:
    folder = tiny_copy(tmp_path / "tiny")
    for path in (folder / component).glob("*.safetensors"):
        path.rename(path.with_name("q8.gguf"))
    assert "missing file; there is q8.gguf; GGUF is read for the transformer alone" in refusal(folder)


def test_a_vae_that_is_a_file_or_a_whole_pipeline(tmp_path: Path) -> None:
    file = save({}, tmp_path / "ae.safetensors")
    with pytest.raises(WeightsError, match=r"ae\.safetensors: .*; pipeline\.vae takes a folder with a config\.json"):
        check_complete(Checkpoint(TINY, vae=file))
    with pytest.raises(WeightsError, match=r"a whole pipeline's folder; its VAE is .*vae"):
        check_complete(Checkpoint(TINY, vae=TINY))
