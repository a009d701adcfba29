"""The program for diffusers, run as a user would, makes the very images of the trial."""

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from factories import TINY, trial
from hostile import HOSTILE, commands_to_ci, unseen
from loras import diffusers
from PIL import Image
from safetensors.numpy import save_file

from zbench.config import (
    CacheConfig,
    ComputeConfig,
    CustomCacheConfig,
    DBCacheConfig,
    OffloadConfig,
    PipelineConfig,
    Prompt,
    SCMConfig,
    WorkloadConfig,
)
from zbench.emit import emit, write
from zbench.engines.reference.pipeline import ReferencePipeline
from zbench.trial import Trial
from zbench.zimage.layout import preset_folder

SMALL = replace(TINY, height=64, width=64, steps=8)
CAT = WorkloadConfig(name="w", prompts=[Prompt("a", 'it\'s a \\ "red" $circle\n{x}')], seeds=[3])
TWO = WorkloadConfig(name="w", prompts=[Prompt("a", "a red circle"), Prompt("b", "a star", negative_prompt="blue")])
ON_CPU = ComputeConfig(device="cpu")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny pipeline in a folder whose name a shell and Python would both take amiss."""
    folder = tmp_path_factory.mktemp("models") / 'it\'s a $model "x"'
    shutil.copytree(preset_folder("zimage_tiny"), folder)
    return folder


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums are then in one order, here and in the program."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def of(saved: Path, cache: CacheConfig, pipeline: PipelineConfig, workload: WorkloadConfig, **groups: object) -> Trial:
    placed = replace(pipeline, weights=str(saved))
    return trial(cache, pipeline=placed, workload=workload, compute=ON_CPU, **groups)


def own_images(wanted: Trial) -> dict[str, np.ndarray]:
    """The first image of every call, made by zbench itself."""
    engine = ReferencePipeline()
    engine.launch(wanted)
    try:
        engine.configure(wanted)
        return {
            f"prompt{number}-seed{seed}-image0.png": engine.generate(prompt.text, seed, prompt.negative_prompt).image
            for number, prompt in enumerate(wanted.workload.prompts)
            for seed in wanted.workload.seeds
        }
    finally:
        engine.close()


def run(program: Path, folder: Path) -> dict[str, np.ndarray]:
    """What the program saves, by name."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, str(program)], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return {path.name: np.asarray(Image.open(path).convert("RGB")) for path in folder.glob("*.png")}


@pytest.mark.parametrize(
    ("cache", "pipeline", "workload", "offload"),
    [
        (DBCacheConfig(max_warmup_steps=2, enable_taylorseer=True), replace(SMALL, images_per_prompt=2), CAT, "none"),
        (SCMConfig(scm_preset="fast", scm_policy="static"), replace(SMALL, guidance_scale=3.0), TWO, "none"),
        (SCMConfig(steps_mask="10110100", scm_policy="static"), SMALL, CAT, "none"),
        (CacheConfig(), replace(SMALL, batch_size=2, vae_slicing=True, vae_tiling=True), CAT, "group"),
    ],
    ids=["threshold", "mask", "own mask", "offloaded batch"],
)
def test_the_program_makes_the_trials_images(
    cache: CacheConfig, pipeline: PipelineConfig, workload: WorkloadConfig, offload: str, saved: Path, tmp_path: Path
) -> None:
    wanted = of(saved, cache, pipeline, workload, offload=OffloadConfig(mode=offload, pin_memory=False))
    write([emit(wanted, "diffusers")], tmp_path)
    made, own = run(tmp_path / "generate.py", tmp_path), own_images(wanted)
    assert len(made) == len(own) * pipeline.images
    for name, image in own.items():
        assert np.array_equal(made[name], image), name


@pytest.mark.parametrize("is_fused", [True, False])
def test_a_fine_tune_in_one_file_with_its_own_vae_and_a_style(is_fused: bool, saved: Path, tmp_path: Path) -> None:
    """Everything that may take the place of a part of the pipeline, each from a path with a space in it."""
    (weights,) = (saved / "transformer").glob("*.safetensors")
    save_file(diffusers(), tmp_path / "a style.safetensors")
    parts = {"vae": str(saved / "vae"), "lora": str(tmp_path / "a style.safetensors")}
    pipeline = replace(SMALL, steps=4, weights=str(weights), lora_scale=0.5, lora_fused=is_fused, **parts)
    wanted = trial(pipeline=pipeline, workload=CAT, compute=ON_CPU)
    write([emit(wanted, "diffusers")], tmp_path)
    made, own = run(tmp_path / "generate.py", tmp_path), own_images(wanted)
    plain = own_images(replace(wanted, pipeline=replace(pipeline, lora=None, lora_scale=1.0, lora_fused=True)))
    (name,) = own
    assert np.array_equal(made[name], own[name]) and not np.array_equal(made[name], plain[name])


@pytest.mark.parametrize("mask", [None, "11010010"])
def test_the_yaml_skips_the_steps_that_the_program_skips(mask: str | None, saved: Path, tmp_path: Path) -> None:
    """cache-dit's own loader, in the place of the program's own lines, gives the same image."""
    cache = SCMConfig(scm_preset="fast", scm_policy="static", enable_taylorseer=True, steps_mask=mask)
    wanted = of(saved, cache, SMALL, CAT)
    write([emit(wanted, "diffusers"), emit(wanted, "cache-dit")], tmp_path)
    text = (tmp_path / "generate.py").read_text()
    begin, end = text.index("cache_dit.enable_cache("), text.index("\n)\n\nprompts") + 3
    loaded = "cache_dit.enable_cache(pipe, **cache_dit.load_configs('cache_dit.yaml'))\n"
    (tmp_path / "by_yaml.py").write_text(text[:begin] + loaded + text[end:])
    made, own = run(tmp_path / "by_yaml.py", tmp_path), own_images(wanted)
    plain = own_images(replace(wanted, cache=CacheConfig()))
    (name,) = own
    assert np.array_equal(made[name], own[name]) and not np.array_equal(made[name], plain[name])


def test_no_text_leaves_its_quotes() -> None:
    """What it holds is compiled and searched: every hostile text is one constant, whole."""
    hostile = replace(SMALL, weights=f"/w/{HOSTILE}", vae=HOSTILE, variant=HOSTILE)
    workload = WorkloadConfig(name=HOSTILE, prompts=[Prompt("a", HOSTILE, negative_prompt=HOSTILE)])
    text = emit(trial(pipeline=hostile, workload=workload), "diffusers").to_text()
    assert not unseen(text) and not commands_to_ci(text)
    constants = {node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant)}
    assert {HOSTILE, f"/w/{HOSTILE}"} <= constants


def test_what_the_program_cannot_do_is_said() -> None:
    made = emit(trial(CustomCacheConfig(method="mine", target="a:B"), pipeline=SMALL), "diffusers")
    assert "cache_dit" not in made.files[0].text.replace("# ", "")
    assert any("cache.method=mine" in note for note in made.notes)
    on_gpu = ComputeConfig(device="cuda")
    own = emit(trial(pipeline=SMALL, compute=on_gpu, offload=OffloadConfig(mode="dit")), "diffusers")
    assert "enable_model_cpu_offload(device=device)" in own.files[0].text
    assert any("offload.mode=dit" in note for note in own.notes)
    random = emit(trial(pipeline=replace(SMALL, weights="random")), "diffusers")
    assert any("pipeline.weights=random" in note for note in random.notes)
