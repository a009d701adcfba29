"""Claims about `zbench.zimage.layout`: presets are found by name, and files only where no choice is left open."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from zbench.zimage.contents import check_complete
from zbench.zimage.layout import Checkpoint, WeightsError, preset_folder, preset_names
from zbench.zimage.weight_files import weight_files


def test_the_presets_are_there_and_an_unknown_one_lists_them() -> None:
    assert preset_names() == ["zimage", "zimage_tiny", "zimage_turbo"]
    with pytest.raises(ValueError, match=r"no preset 'zimage_huge'; there are: zimage, zimage_tiny, zimage_turbo"):
        preset_folder("zimage_huge")


def test_the_tiny_preset_is_complete_and_small() -> None:
    """It ships inside the wheel: 24 MB is what was allotted to it."""
    folder = preset_folder("zimage_tiny")
    check_complete(Checkpoint(folder))
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) <= 24_000_000


@pytest.mark.parametrize("name", ["zimage", "zimage_turbo"])
def test_the_full_size_presets_have_no_weights_and_say_so(name: str) -> None:
    with pytest.raises(WeightsError, match=r"missing file"):
        check_complete(Checkpoint(preset_folder(name)))


def test_the_base_model_differs_from_turbo_in_its_scheduler_alone() -> None:
    base, turbo = preset_folder("zimage"), preset_folder("zimage_turbo")
    names = sorted(str(path.relative_to(turbo)) for path in turbo.rglob("*.json"))
    assert names == sorted(str(path.relative_to(base)) for path in base.rglob("*.json"))
    differ = [name for name in names if (base / name).read_bytes() != (turbo / name).read_bytes()]
    assert differ == ["scheduler/scheduler_config.json"]
    shifts = [json.loads((preset / differ[0]).read_text())["shift"] for preset in (base, turbo)]
    assert shifts == [6.0, 3.0]


def test_a_shard_the_index_lists_must_be_there(tmp_path: Path) -> None:
    """The official transformer comes in shards, so a lost one is the likeliest damage."""
    folder = tmp_path / "transformer"
    folder.mkdir()
    index = {"weight_map": {"a": "shard-1.safetensors", "b": "shard-2.safetensors"}}
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "shard-1.safetensors").touch()
    with pytest.raises(WeightsError, match=r"shard-2\.safetensors: missing file, although .*index\.json lists it"):
        weight_files(Checkpoint(tmp_path), "transformer")


def test_pickled_weights_are_not_taken_for_safetensors(tmp_path: Path) -> None:
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "diffusion_pytorch_model.bin").touch()
    with pytest.raises(WeightsError, match="zbench reads safetensors alone"):
        weight_files(Checkpoint(tmp_path), "vae")


@pytest.mark.parametrize("name", ["../other/model.safetensors", "/etc/passwd", "model.bin"])
def test_an_index_may_list_only_safetensors_beside_it(name: str, tmp_path: Path) -> None:
    """Diffusers would open whatever it lists, a pickle by its extension."""
    (tmp_path / "transformer").mkdir()
    index = tmp_path / "transformer" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(WeightsError, match="which is no safetensors file beside it"):
        weight_files(Checkpoint(tmp_path), "transformer")


def test_shards_beside_a_whole_file_are_not_guessed_about(tmp_path: Path) -> None:
    """Diffusers would take the shards and transformers the whole file."""
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "diffusion_pytorch_model.safetensors").touch()
    (tmp_path / "vae" / "diffusion_pytorch_model.safetensors.index.json").write_text("{}")
    with pytest.raises(WeightsError, match="keep one of them"):
        weight_files(Checkpoint(tmp_path), "vae")
