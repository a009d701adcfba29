"""Trains the tiny pipeline from nothing, in four phases, and writes it in the official folder layout.

    python -m zbench.zimage.train --out FOLDER [--work FOLDER] [--smoke]

Run again with the same `--work`, it goes on where it stopped. `--smoke` does all of it in seconds on a CPU; what comes
out paints nothing.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Any, NoReturn

import torch
from rich.console import Console
from safetensors.torch import load_file, save_file
from torch import Tensor

from zbench.zimage.layout import COMPONENTS, CONFIG_FILE, WEIGHTS_FILE, preset_folder
from zbench.zimage.scenes.captions import LANGUAGES, caption
from zbench.zimage.scenes.draw import draw
from zbench.zimage.scenes.world import Scene
from zbench.zimage.train.autoencoder import encode, scaled, train_autoencoder
from zbench.zimage.train.batches import CaptionBatches, make_scenes
from zbench.zimage.train.flow import Joint, compile_blocks, few_step_loss, flow_loss, train_joint
from zbench.zimage.train.joint import tokenize
from zbench.zimage.train.loop import Session, TimeIsUp
from zbench.zimage.train.reading import train_reading
from zbench.zimage.train.recipe import FULL, SMOKE, Recipe
from zbench.zimage.train.start import new_modules
from zbench.zimage.train.tokenizer import build_tokenizer
from zbench.zimage.train.validation import Validation


def train(out: Path, recipe: Recipe, device: str, seed: int, session: Session) -> None:
    """Run what is left of the phases and write the pipeline to `out`. Raises TimeIsUp past the deadline."""
    console = Console(stderr=True)
    configs = preset_folder("zimage_tiny")
    tokenizer = build_tokenizer()
    _claim(session.work, recipe, seed, _digest(configs, tokenizer, seed))
    modules = new_modules(configs, torch.device(device), seed)
    vae = train_autoencoder(modules["vae"], recipe.autoencoder, seed, session)
    scenes = make_scenes(recipe.scenes, "train", seed)
    latents = _latents(vae, scenes, seed, session.work, console)
    best = session.work / "best.safetensors"
    report = Validation(vae, tokenizer, recipe, console)
    keep_best = Validation(vae, tokenizer, recipe, console, best)

    batches = CaptionBatches(scenes, tokenizer, recipe.reading.batch, seed + 2, 0.0)
    text_encoder = train_reading(modules["text_encoder"], batches, recipe.reading, seed, session)

    joint = Joint(text_encoder, modules["transformer"])
    on_gpu = latents.is_cuda
    if on_gpu:
        torch.backends.cuda.enable_cudnn_sdp(False)  # a training diverged with it on; nobody knows whether by its fault
        compile_blocks(joint)
    batches = CaptionBatches(scenes, tokenizer, recipe.flow.batch, seed, recipe.dropped)
    teacher: Any = train_joint(joint, latents, batches, recipe.flow, session, flow_loss(joint), report)

    student = copy.deepcopy(teacher)
    for parameter in teacher.parameters():
        parameter.requires_grad_(False)
    if on_gpu:
        compile_blocks(teacher)
        compile_blocks(student)
    empty = tokenize(tokenizer, [""]).to(latents.device)
    loss = few_step_loss(
        student, teacher, empty, steps=recipe.forwards, substeps=recipe.substeps, guidance=recipe.guidance
    )
    batches = CaptionBatches(scenes, tokenizer, recipe.few_steps.batch, seed + 1, 0.0)
    train_joint(student, latents, batches, recipe.few_steps, session, loss, keep_best)
    student.load_state_dict(load_file(best, device=device))
    _write(out, configs, {"vae": vae, "text_encoder": student.text_encoder, "transformer": student.transformer})
    console.print(f"wrote {out}", highlight=False)


def _digest(configs: Path, tokenizer: Any, seed: int) -> str:
    """SHA-256 of what code decides, not the recipe: scenes, captions and drawings (some), tokenizer, geometry."""
    words = Random(seed)
    scenes = make_scenes(200, "train", seed)
    parts = [f"{scene} {caption(scene, language, words)}" for scene in scenes for language in LANGUAGES]
    parts.append(str(draw(scenes[:20], seed).sum(dim=(0, 3)).tolist()))
    parts.append(tokenizer.backend_tokenizer.to_str())
    parts += [(configs / component / CONFIG_FILE[component]).read_text("utf-8") for component in WEIGHTS_FILE]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _claim(work: Path, recipe: Recipe, seed: int, digest: str) -> None:
    """Note what is learnt in `work`. Exits with a message if something else was learnt there."""
    ours = json.dumps({"seed": seed, "data": digest, **asdict(recipe)}, sort_keys=True)
    claim = work / "recipe.json"
    known = claim.read_text(encoding="utf-8") if claim.is_file() else None
    if known is None and not list(work.glob("*.safetensors")):
        work.mkdir(parents=True, exist_ok=True)
        partial = claim.with_name(claim.name + ".partial")
        partial.write_text(ours, encoding="utf-8")
        os.replace(partial, claim)
    elif known != ours:
        _stop(
            f"--work={work}: holds a training of another recipe, seed or version; give another folder, or remove it", 2
        )


def _stop(message: str, code: int) -> NoReturn:
    print(message, file=sys.stderr)
    sys.exit(code)


def _latents(vae: Any, scenes: Sequence[Scene], seed: int, work: Path, console: Console) -> Tensor:
    """Scaled latents of drawn scenes, bf16, kept in `work` for the next time."""
    path = work / "latents.safetensors"
    device = next(vae.parameters()).device
    if path.is_file():
        return load_file(path, device=str(device))["latents"]
    console.print("drawing and encoding the scenes", highlight=False)
    latents = scaled(vae, encode(vae, scenes, seed)).to(torch.bfloat16)
    partial = path.with_name(path.name + ".partial")
    save_file({"latents": latents.contiguous()}, partial)
    os.replace(partial, path)
    return latents


def _write(out: Path, configs: Path, modules: dict[str, Any]) -> None:
    """A pipeline folder in the official layout, weights in bf16."""
    for name in ["model_index.json"] + [f"{c}/{CONFIG_FILE[c]}" for c in COMPONENTS if c not in ("tokenizer", "vae")]:
        target = out / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.resolve() != (configs / name).resolve():
            shutil.copyfile(configs / name, target)
    build_tokenizer().save_pretrained(out / "tokenizer")  # a fresh one: after use it would save its last padding
    modules["vae"].save_config(out / "vae")
    for component, name in WEIGHTS_FILE.items():
        tensors = {k: t.to(torch.bfloat16).cpu().contiguous() for k, t in modules[component].state_dict().items()}
        (out / component).mkdir(parents=True, exist_ok=True)
        save_file(tensors, out / component / name, metadata={"format": "pt"})


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m zbench.zimage.train", description="Train the tiny pipeline.")
    parser.add_argument("--out", type=Path, required=True, help="folder to write the pipeline to")
    parser.add_argument("--work", type=Path, help="folder of checkpoints to go on from (default: OUT/../training)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=8, help="processes that write captions ahead; 0: none")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop after so long, to go on another time")
    parser.add_argument("--smoke", action="store_true", help="a few steps of each phase, in seconds on a CPU")
    options = parser.parse_args()
    work = options.work or options.out.parent / "training"
    recipe = SMOKE if options.smoke else FULL
    workers = 0 if options.smoke else options.workers
    session = Session(work, workers, time.monotonic() + 60 * options.minutes)
    try:
        train(options.out, recipe, options.device, options.seed, session)
    except (TimeIsUp, KeyboardInterrupt):
        _stop(f"stopped; the same command goes on from {work}", 130)


if __name__ == "__main__":
    main()
