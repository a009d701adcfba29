"""Says how well a pipeline paints what scene captions ask for, attribute by attribute.

    python -m zbench.zimage.evaluate [--folder FOLDER] [--scenes N] [--steps 8] [--format table|json]

Captions are of the test split: each scene holds a thing (size, colour, shape and place together) that no training scene
does. Images come from diffusers' own `ZImagePipeline` without step skipping and are read by
`zbench.zimage.scenes.read`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from zbench.zimage.layout import preset_folder
from zbench.zimage.loading import load_pipeline
from zbench.zimage.scenes.captions import LANGUAGES, Language, caption
from zbench.zimage.scenes.read import compare, read_scene
from zbench.zimage.scenes.world import Scene, Split, sample_scene

READABLE = 0.5
"""A sign counts as readable if more than this share of its occurrences is read right."""


@dataclass
class Tally:
    """Counts of what was asked for and of what was right."""

    asked: Counter[str] = field(default_factory=Counter)  # by attribute kind, and `scene` for whole scenes
    right: Counter[str] = field(default_factory=Counter)
    signs_asked: Counter[str] = field(default_factory=Counter)
    signs_right: Counter[str] = field(default_factory=Counter)

    def add(self, asked: Scene, found: Scene) -> None:
        """Count one image."""
        attributes = compare(asked, found)
        for attribute in attributes:
            self.asked[attribute.kind] += 1
            self.right[attribute.kind] += attribute.right
        self.asked["scene"] += 1
        self.right["scene"] += all(a.right for a in attributes)
        if asked.word:
            read = (found.word or "").ljust(len(asked.word))
            for i, sign in enumerate(asked.word):
                self.signs_asked[sign] += 1
                self.signs_right[sign] += len(found.word or "") == len(asked.word) and read[i] == sign

    def rates(self) -> dict[str, float]:
        """Share right of each kind of attribute, of signs, and of the signs asked for that are readable; 0 to 1."""
        rates = {kind: self.right[kind] / self.asked[kind] for kind in sorted(self.asked)}
        if self.signs_asked:
            rates["sign"] = self.signs_right.total() / self.signs_asked.total()
            readable = [s for s, asked in self.signs_asked.items() if self.signs_right[s] > READABLE * asked]
            rates["signs_readable"] = len(readable) / len(self.signs_asked)
        return rates

    def share(self) -> float:
        """Share of all attributes that are right."""
        asked, right = self.asked.total() - self.asked["scene"], self.right.total() - self.right["scene"]
        return right / asked


def tally(scenes: Sequence[Scene], images: Sequence[NDArray[np.uint8]]) -> Tally:
    """Read each image (256 × 256 × 3, RGB) and count it against the scene asked for."""
    counts = Tally()
    for scene, image in zip(scenes, images, strict=True):
        counts.add(scene, read_scene(image))
    return counts


def scenes_with_captions(count: int, split: Split, language: Language, seed: int) -> list[tuple[Scene, str]]:
    """Scenes of a split, the same in every language, each with one caption."""
    scenes, words = Random(f"evaluate {split} {seed}"), Random(f"{language} {seed}")
    drawn = [sample_scene(scenes, split) for _ in range(count)]
    return [(scene, caption(scene, language, words)) for scene in drawn]


def evaluate(pipeline: Any, count: int, steps: int, batch: int, seed: int = 0) -> dict[str, Any]:
    """Rates by language, and the median seconds an image on this device (a batch's time over its size)."""
    device = pipeline.transformer.device
    by_language, seconds = {}, []
    for language in LANGUAGES:
        asked = scenes_with_captions(count, "test", language, seed)
        images: list[NDArray[np.uint8]] = []
        for start in range(0, count, batch):
            texts = [text for _, text in asked[start : start + batch]]
            generators = [torch.Generator("cpu").manual_seed(seed + start + i) for i in range(len(texts))]
            began = time.perf_counter()
            made = pipeline(
                prompt=texts,
                height=256,
                width=256,
                num_inference_steps=steps,
                guidance_scale=0.0,
                generator=generators,
                max_sequence_length=128,
                output_type="np",
            ).images
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds.append((time.perf_counter() - began) / len(texts))
            images.extend((made * 255).round().astype(np.uint8))
        by_language[language] = tally([scene for scene, _ in asked], images).rates()
    return {
        "split": "test",
        "scenes": count,
        "steps": steps,
        "device": str(device),
        "seconds_an_image": sorted(seconds)[len(seconds) // 2],
        "rates": by_language,
    }


def render(result: dict[str, Any]) -> str:
    """A table, one attribute a row."""
    kinds = list(next(iter(result["rates"].values())))
    lines = [f"{'share right':<20}" + "".join(f"{language:>8}" for language in result["rates"])]
    for kind in kinds:
        lines.append(f"{kind:<20}" + "".join(f"{100 * rates[kind]:7.1f}%" for rates in result["rates"].values()))
    lines.append(
        f"{result['scenes']} {result['split']} scenes in each language, {result['steps']} forwards, "
        f"{result['seconds_an_image']:.3f} s an image on {result['device']}"
    )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m zbench.zimage.evaluate", description="How well a pipeline paints what scene captions ask for."
    )
    parser.add_argument("--folder", type=Path, default=preset_folder("zimage_tiny"), help="default: the built-in tiny")
    parser.add_argument("--scenes", type=int, default=200, help="test scenes, each captioned in both languages")
    parser.add_argument("--steps", type=int, default=8, help="transformer forwards an image")
    parser.add_argument("--batch", type=int, default=0, help="images a call (default: 1 on CPU, 64 on a GPU)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--format", choices=("table", "json"), default="table")
    options = parser.parse_args()
    pipeline = load_pipeline(options.folder, dtype=torch.float32, device=options.device)
    batch = options.batch or (64 if options.device.startswith("cuda") else 1)
    result = evaluate(pipeline, options.scenes, options.steps, batch)
    print(json.dumps(result, indent=2) if options.format == "json" else render(result))


if __name__ == "__main__":
    main()
