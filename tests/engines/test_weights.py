"""Weights are looked for in real folders: the tiny preset's own, copies of it that were damaged, an empty hub cache."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from factories import TINY, TURBO

from zbench.engines.weights import resolve_weights
from zbench.errors import ConfigError, WeightsUnavailableError
from zbench.zimage.layout import preset_folder


@pytest.fixture(autouse=True)
def empty_hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(preset_folder("zimage_tiny"), tmp_path / "tiny"))


def test_tiny_preset_brings_its_own_weights() -> None:
    weights = resolve_weights(TINY)
    assert weights.source == "preset" and weights.checkpoint.folder == preset_folder("zimage_tiny")


def test_missing_weights_name_the_three_ways_out() -> None:
    with pytest.raises(WeightsUnavailableError) as raised:
        resolve_weights(TURBO)
    message = str(raised.value)
    for way in ("pipeline.weights=<folder>", "pipeline.weights=random", "pipeline.download=true", TURBO.hub_id):
        assert str(way) in message
    assert "\n" not in message


def test_nothing_is_downloaded_unasked_and_asking_is_only_noted() -> None:
    weights = resolve_weights(replace(TURBO, download=True))
    assert (weights.source, weights.fetch, weights.hub_id) == ("download", True, TURBO.hub_id)


def test_random_weights_need_only_configs() -> None:
    weights = resolve_weights(replace(TURBO, weights="random"))
    assert weights.source == "random" and weights.checkpoint.folder == preset_folder("zimage_turbo")


def test_folder_is_taken_as_it_is(copy: Path) -> None:
    weights = resolve_weights(replace(TURBO, weights=str(copy)))
    assert weights.source == "folder" and weights.checkpoint.folder == copy


def test_truncated_file_is_found_before_anything_loads(copy: Path) -> None:
    file = copy / "vae" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(WeightsUnavailableError, match=r"pipeline\.weights=.*vae.*not a whole safetensors file"):
        resolve_weights(replace(TINY, weights=str(copy)))


def test_missing_file_is_named(copy: Path) -> None:
    (copy / "transformer" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(WeightsUnavailableError, match=r"transformer.*missing file"):
        resolve_weights(replace(TINY, weights=str(copy)))


def test_folder_that_is_not_there_is_no_hub_id() -> None:
    with pytest.raises(WeightsUnavailableError, match="no such folder"):
        resolve_weights(replace(TINY, weights="./nowhere/at/all"))


def test_unknown_preset_names_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"pipeline\.preset=nope.*zimage_tiny"):
        resolve_weights(replace(TINY, preset="nope"))


def replace_in(config: Path, **changes: object) -> None:
    config.write_text(json.dumps({**json.loads(config.read_text()), **changes}))


def test_another_vae_is_named_and_the_pipelines_own_weights_may_be_missing(copy: Path) -> None:
    weights = resolve_weights(replace(TINY, vae=str(copy / "vae")))
    assert weights.source == "preset" and weights.checkpoint.vae == copy / "vae"
    own = copy / "vae" / "diffusion_pytorch_model.safetensors"
    elsewhere = preset_folder("zimage_tiny") / "vae"
    own.unlink()
    assert resolve_weights(replace(TINY, weights=str(copy), vae=str(elsewhere))).checkpoint.folder == copy
    with pytest.raises(WeightsUnavailableError, match=r"pipeline\.weights=.*vae.*missing file"):
        resolve_weights(replace(TINY, weights=str(copy)))


@pytest.mark.parametrize("weights", ["auto", "random"])
@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"latent_channels": 4}, "does not fit: latent_channels=4, the transformer has 16"),
        ({"block_out_channels": [32, 64]}, "does not fit: 2 pixels a side of a latent pixel, the pipeline's own has 8"),
        ({"_class_name": "AutoencoderTiny"}, "_class_name is 'AutoencoderTiny', not 'AutoencoderKL'"),
        ({"latent_channels": "many"}, "latent_channels='many' must be a positive integer"),
    ],
)
def test_a_vae_that_does_not_fit_is_refused_before_anything_loads(
    changes: dict[str, object], says: str, weights: str, copy: Path
) -> None:
    vae = copy / "vae"
    replace_in(vae / "config.json", **changes)
    with pytest.raises(WeightsUnavailableError) as raised:
        resolve_weights(replace(TINY, weights=weights, vae=str(vae)))
    message = str(raised.value)
    assert message.startswith(f"pipeline.vae={vae}: {vae}/config.json: ") and says in message and "\n" not in message


def test_a_vae_folder_that_is_not_there_or_not_whole_is_named(copy: Path) -> None:
    with pytest.raises(WeightsUnavailableError, match=r"pipeline\.vae=/nowhere: /nowhere: no such folder"):
        resolve_weights(replace(TINY, vae="/nowhere"))
    file = copy / "vae" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(WeightsUnavailableError, match=r"pipeline\.vae=.*not a whole safetensors file"):
        resolve_weights(replace(TINY, vae=str(copy / "vae")))


def test_parent_resolves_weights_without_torch() -> None:
    code = "import sys, zbench.engines.weights, zbench.executors.local; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


VAE = "vae/diffusion_pytorch_model.safetensors"
TRANSFORMER = "transformer/diffusion_pytorch_model.safetensors"


def test_a_file_takes_the_place_of_the_presets_transformer(tmp_path: Path) -> None:
    file = Path(shutil.copy(preset_folder("zimage_tiny") / TRANSFORMER, tmp_path / "mine.safetensors"))
    weights = resolve_weights(replace(TINY, weights=str(file)))
    assert weights.source == "file" and weights.checkpoint.transformer == file
    assert weights.checkpoint.folder == preset_folder("zimage_tiny")
    before = weights.content()
    file.write_bytes(file.read_bytes()[:-1] + b"x")  # retrained, under the same name
    assert before is not None and weights.content() != before
    assert weights.content().configs_sha256 == before.configs_sha256  # type: ignore[union-attr]


def test_what_no_component_asks_for_is_refused_before_anything_loads(copy: Path) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    save_file({"decoder.a": np.zeros(1, np.float32), "more.b": np.zeros(1, np.float32)}, copy / VAE)
    with pytest.raises(WeightsUnavailableError, match=rf"{VAE}: tensors that no part of the module asks for: more\.b"):
        resolve_weights(replace(TINY, weights=str(copy)))


def test_a_file_of_another_size_is_held_against_the_geometry(copy: Path) -> None:
    replace_in(copy / "transformer" / "config.json", n_layers=12)
    with pytest.raises(WeightsUnavailableError, match=r"it has 10 main blocks, the config asks for 12"):
        resolve_weights(replace(TINY, weights=str(copy)))


def test_a_file_needs_the_rest_of_its_pipeline_and_says_where_from() -> None:
    file = preset_folder("zimage_tiny") / TRANSFORMER
    with pytest.raises(WeightsUnavailableError) as raised:
        resolve_weights(replace(TURBO, weights=str(file)))
    assert f"{TURBO.hub_id} is not in the local Hugging Face cache" in str(raised.value)
    fetched = resolve_weights(replace(TURBO, weights=str(file), download=True))
    assert (fetched.source, fetched.fetch, fetched.checkpoint.transformer) == ("file", True, file)


@pytest.mark.parametrize("name", ["models/z.safetensors", "models/z.gguf", "models/z.ckpt", "C:\\models\\z", "a\\b/c"])
def test_what_looks_like_a_path_is_no_hub_id(name: str) -> None:
    with pytest.raises(WeightsUnavailableError) as raised:
        resolve_weights(replace(TURBO, weights=name))
    assert str(raised.value).startswith(f"pipeline.weights={name}: {name}: ") and "Face" not in str(raised.value)


def test_a_variant_is_one_key_for_all_components(copy: Path) -> None:
    file = copy / TRANSFORMER
    shutil.copy(file, file.with_suffix(".fp16.safetensors"))
    plain, fp16 = (replace(TINY, weights=str(copy), variant=variant) for variant in (None, "fp16"))
    assert resolve_weights(fp16).content() != resolve_weights(plain).content()
    assert fp16.named_files != plain.named_files
    with pytest.raises(WeightsUnavailableError, match=r"no variant 'fp8'; there are: fp16"):
        resolve_weights(replace(plain, variant="fp8"))


def test_another_snapshot_than_mains_is_noted(tmp_path: Path) -> None:
    repo = tmp_path / "hub" / "models--Tongyi-MAI--Z-Image-Turbo"
    shutil.copytree(preset_folder("zimage_tiny"), repo / "snapshots" / "old")
    (repo / "snapshots" / "new").mkdir()
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("new")
    weights = resolve_weights(TURBO)
    assert weights.source == "hub_cache" and "snapshot old" in str(weights.note) and "snapshot new" in str(weights.note)
    assert resolve_weights(replace(TURBO, download=True)).fetch, "what main lacks is fetched where that was asked for"
    shutil.rmtree(repo / "snapshots" / "old")
    with pytest.raises(WeightsUnavailableError, match=r"snapshot new is incomplete: .*download=true"):
        resolve_weights(TURBO)


@pytest.mark.parametrize("name", [f"/tmp/{'x' * 5000}", f"{'x' * 300}/y", f"{'x' * 5000}.safetensors"])
def test_a_name_that_no_system_takes_is_one_line(name: str) -> None:
    with pytest.raises(WeightsUnavailableError, match=r"^pipeline\.weights=.*File name too long"):
        resolve_weights(replace(TINY, weights=name))


def test_no_weights_at_all_are_none(copy: Path) -> None:
    from safetensors.numpy import save_file

    save_file({}, copy / "text_encoder" / "model.safetensors")
    with pytest.raises(WeightsUnavailableError, match=r"model\.safetensors: it holds no weights of the text_encoder"):
        resolve_weights(replace(TINY, weights=str(copy)))


def test_what_may_not_be_fetched_is_refused_before_a_worker_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsUnavailableError, match="HF_HUB_OFFLINE forbids to fetch it"):
        resolve_weights(replace(TURBO, download=True))
