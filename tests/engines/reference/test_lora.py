"""A LoRA on the real engine: the tiny pipeline at 64×64, a few steps."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import loras
import numpy as np
import pytest
import torch
from factories import TINY, trial
from numpy.typing import NDArray
from safetensors.numpy import save_file

os.environ.setdefault("CACHE_DIT_LOG_LEVEL", "error")

from zbench.config import CacheConfig, ComputeConfig, DBCacheConfig, OffloadConfig
from zbench.engines.reference import lora
from zbench.engines.reference.pipeline import ReferencePipeline
from zbench.errors import ConfigError, WeightsUnavailableError
from zbench.measurement import Effective
from zbench.zimage.layout import preset_folder
from zbench.zimage.loading import load_pipeline

SMALL = replace(TINY, height=64, width=64, steps=2)
SKIPPING = DBCacheConfig(max_warmup_steps=1, residual_diff_threshold=0.9)


@pytest.fixture(scope="module")
def style(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(loras.saved(tmp_path_factory.mktemp("lora") / "style.safetensors", loras.diffusers()))


def latents(cache: CacheConfig | None = None, groups: dict[str, Any] | None = None, **changes: Any) -> NDArray[Any]:
    return made(cache, groups, **changes)[0]


def made(
    cache: CacheConfig | None = None, groups: dict[str, Any] | None = None, **changes: Any
) -> tuple[NDArray[Any], Effective]:
    on_cpu = {"compute": ComputeConfig(device="cpu")}  # in float32, by which it is judged
    of = trial(cache, pipeline=replace(SMALL, **changes), **on_cpu | (groups or {}))
    engine = ReferencePipeline()
    engine.launch(of)
    engine.configure(of)
    try:
        generation, effective = engine.generate("a large red circle on a white background", 7), engine.effective()
        left = [name for name, _ in engine.pipe.transformer.named_parameters() if "lora" in name]
        assert bool(left) == (changes.get("lora") is not None and not changes.get("lora_fused", True))
    finally:
        engine.close()
    assert generation.latents is not None
    return generation.latents, effective


def error(one: NDArray[Any], other: NDArray[Any]) -> float:
    return float(np.linalg.norm(one - other) / np.linalg.norm(other))


@pytest.fixture(scope="module")
def plain(one_thread: None) -> NDArray[Any]:
    return latents()


@pytest.fixture(scope="module")
def fused(one_thread: None, style: str) -> NDArray[Any]:
    return latents(lora=style)


def test_it_changes_the_image_alike_fused_and_not(plain: NDArray[Any], fused: NDArray[Any], style: str) -> None:
    unfused, effective = made(lora=style, lora_fused=False)
    assert error(fused, plain) > 0.1
    assert error(unfused, fused) < 1e-5
    assert (effective.lora_scale, effective.lora_fused, len(effective.lora_sha256 or "")) == (1.0, False, 64)


def test_its_scale_is_its_strength(plain: NDArray[Any], fused: NDArray[Any], style: str, tmp_path: Path) -> None:
    """Half the scale is half of one matrix of each pair; none at all is the plain pipeline, to the last bit."""
    assert np.array_equal(latents(lora=style, lora_scale=0.0, lora_fused=False), plain)
    assert np.array_equal(latents(lora=style, lora_scale=0.0), plain)
    half = {name: t * 0.5 if "lora_B" in name else t for name, t in loras.diffusers().items()}
    weaker = str(loras.saved(tmp_path / "half.safetensors", half))
    assert error(latents(lora=style, lora_scale=0.5, lora_fused=False), latents(lora=weaker)) < 1e-5


@pytest.mark.parametrize("is_fused", [True, False])
def test_it_goes_with_offload_and_with_skipped_steps(is_fused: bool, fused: NDArray[Any], style: str) -> None:
    for mode in ("all", "group"):
        offloaded = latents(groups={"offload": OffloadConfig(mode=mode)}, lora=style, lora_fused=is_fused)
        assert error(offloaded, fused) < 1e-5
    skipped, effective = made(SKIPPING, lora=style, lora_fused=is_fused)
    assert effective.cache and 1e-4 < error(skipped, fused) < 0.5


def test_beside_the_layers_it_computes_in_their_dtype(fused: NDArray[Any], style: str) -> None:
    bfloat16 = {"compute": ComputeConfig(device="cpu", dtype="bfloat16")}
    assert error(latents(groups=bfloat16, lora=style, lora_fused=False), fused) < 0.05


def test_random_weights_take_one(style: str) -> None:
    _, effective = made(lora=style, weights="random")
    assert effective.weights == "random" and effective.lora_sha256 is not None and effective.weights_sha256 is None


# What diffusers makes of each kind of names


@pytest.fixture
def pipe(one_thread: None) -> Iterator[Any]:
    yield load_pipeline(preset_folder("zimage_tiny"), dtype=torch.float32, device="cpu")


@pytest.mark.parametrize("kind", ["diffusers", "comfy", "kohya"])
def test_the_weights_are_changed_by_the_product_of_the_matrices(kind: str, pipe: Any, tmp_path: Path) -> None:
    """Layers with names that are easily mistaken, and an alpha that is half of the rank: half the strength."""
    layers = ("layers.9.attention.to_out.0", "noise_refiner.0.feed_forward.w1", "all_final_layer.2-1.linear")
    halves = kind != "diffusers"
    tensors = getattr(loras, kind)(layers, *([loras.RANK / 2] if halves else []))
    path = loras.saved(tmp_path / "l.safetensors", tensors)
    before = {name: pipe.transformer.get_submodule(name).weight.detach().clone() for name in layers}
    lora.load_lora(pipe, path, replace(SMALL, lora=str(path)))
    for name, (down, up) in loras.matrices(layers).items():
        change = torch.from_numpy(up @ down) * (0.5 if halves else 1)
        torch.testing.assert_close(pipe.transformer.get_submodule(name).weight.detach(), before[name] + change)


@pytest.mark.parametrize("tensors", [loras.fused_qkv(), loras.lokr()])
def test_fused_projections_and_kronecker_products_are_taken_up(tensors: Any, pipe: Any, tmp_path: Path) -> None:
    path = loras.saved(tmp_path / "l.safetensors", tensors)
    before = pipe.transformer.layers[0].attention.to_q.weight.detach().clone()
    lora.load_lora(pipe, path, replace(SMALL, lora=str(path)))
    assert not torch.equal(pipe.transformer.layers[0].attention.to_q.weight, before)


def test_what_diffusers_does_not_take_up_is_no_success(
    pipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = loras.saved(tmp_path / "l.safetensors", loras.diffusers(["layers.0.attention.to_q"]))
    monkeypatch.setattr(
        lora, "check_lora", lambda *_: frozenset({"layers.0.attention.to_q", "layers.1.attention.to_q"})
    )
    with pytest.raises(WeightsUnavailableError, match=r"pipeline\.lora=.*did not take up layers\.1\.attention\.to_q"):
        lora.load_lora(pipe, path, replace(SMALL, lora=str(path)))


def test_what_is_not_finite_is_not_fused(pipe: Any, tmp_path: Path) -> None:
    nan = {name: t * np.float32("nan") for name, t in loras.diffusers(["layers.0.attention.to_q"]).items()}
    path = loras.saved(tmp_path / "l.safetensors", nan)
    with pytest.raises(WeightsUnavailableError, match="cannot be fused"):
        lora.load_lora(pipe, path, replace(SMALL, lora=str(path)))


def test_nothing_is_added_to_quantised_weights(pipe: Any, tmp_path: Path) -> None:
    path = loras.saved(tmp_path / "l.safetensors", loras.diffusers(["layers.0.attention.to_q"]))
    pipe.transformer.layers[0].attention.to_q.to(torch.float8_e4m3fn)
    with pytest.raises(ConfigError, match=r"lora_fused=true: layers.*float8_e4m3fn.*use pipeline\.lora_fused=false"):
        lora.load_lora(pipe, path, replace(SMALL, lora=str(path)))


def test_a_file_that_changes_while_it_is_loaded_is_refused(
    pipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = loras.saved(tmp_path / "l.safetensors", loras.diffusers(["layers.0.attention.to_q"]))
    digests = iter([["one"], ["other"]])
    monkeypatch.setattr(lora, "files_sha256", lambda _: next(digests))
    with pytest.raises(WeightsUnavailableError, match="changed while it was loaded"):
        lora.load_lora(pipe, path, replace(SMALL, lora=str(path)))


@pytest.mark.filterwarnings("ignore:While injecting the PEFT adapters")
def test_metadata_that_do_not_fit_the_matrices_are_one_line(pipe: Any, tmp_path: Path) -> None:
    path = tmp_path / "l.safetensors"
    metadata = {"lora_adapter_metadata": '{"transformer.r": 9, "transformer.target_modules": ["to_q"]}'}
    save_file(loras.diffusers(["layers.0.attention.to_q"]), path, metadata)
    with pytest.raises(WeightsUnavailableError, match=r"diffusers cannot load it|did not take up") as raised:
        lora.load_lora(pipe, path, replace(SMALL, lora=str(path)))
    assert "\n" not in str(raised.value)
