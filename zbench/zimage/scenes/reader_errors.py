"""How often the scene reader errs, on drawn scenes as they are and disturbed as generated images are.

    python -m zbench.zimage.scenes.reader_errors [--scenes N]

What it errs by here is not the model's fault when an image is judged.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from random import Random

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from zbench.zimage.scenes.draw import draw
from zbench.zimage.scenes.read import compare, read_scene
from zbench.zimage.scenes.world import sample_scene

Pixels = NDArray[np.uint8]


def noised(image: Pixels, sigma: float) -> Pixels:
    """With Gaussian noise of standard deviation `sigma`, of 255."""
    noise = np.random.default_rng(0).normal(0, sigma, image.shape)
    return np.clip(image + noise, 0, 255).round().astype(np.uint8)


def blurred(image: Pixels, radius: float) -> Pixels:
    """With a Gaussian blur of `radius` pixels."""
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(radius)))


def jpeg(image: Pixels, quality: int) -> Pixels:
    """Coded as JPEG and back."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer).convert("RGB"))


DISTURBANCES: dict[str, Callable[[Pixels], Pixels]] = {
    "clean": lambda image: image,
    "noise, sigma 10 of 255": lambda image: noised(image, 10),
    "noise, sigma 25 of 255": lambda image: noised(image, 25),
    "blur, radius 1 pixel": lambda image: blurred(image, 1),
    "blur, radius 2 pixels": lambda image: blurred(image, 2),
    "JPEG, quality 75": lambda image: jpeg(image, 75),
    "JPEG, quality 30": lambda image: jpeg(image, 30),
}


def shares_right(count: int, seed: int = 0) -> dict[str, tuple[float, float]]:
    """For each disturbance the share of attributes and of whole scenes that are read right, over `count` scenes."""
    random = Random(seed)
    scenes = [sample_scene(random, "test") for _ in range(count)]
    drawn: list[Pixels] = list(draw(scenes, seed).numpy())
    shares = {}
    for name, disturb in DISTURBANCES.items():
        read = [compare(scene, read_scene(disturb(image))) for scene, image in zip(scenes, drawn, strict=True)]
        attributes = [a.right for found in read for a in found]
        whole = [all(a.right for a in found) for found in read]
        shares[name] = (sum(attributes) / len(attributes), sum(whole) / len(whole))
    return shares


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m zbench.zimage.scenes.reader_errors", description="How often the scene reader errs."
    )
    parser.add_argument("--scenes", type=int, default=300)
    options = parser.parse_args()
    print(f"{'read right':<26}{'attributes':>12}{'scenes':>10}")
    for name, (attributes, whole) in shares_right(options.scenes).items():
        print(f"{name:<26}{100 * attributes:>11.2f}%{100 * whole:>9.1f}%")


if __name__ == "__main__":
    main()
