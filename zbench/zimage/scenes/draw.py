"""Draws scenes, many at once and on any device: shapes from signed distances, words from a free font.

Distances are in pixels and negative inside, so a pixel's coverage is 0.5 minus its distance, cut to [0, 1]. The font
is DejaVu Sans Mono Bold, which matplotlib ships under the Bitstream Vera licence.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from random import Random

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zbench.zimage.scenes.world import (
    ALPHABET,
    BACKGROUNDS,
    BAND_TOP,
    CANVAS,
    COLOURS,
    JITTER,
    PLACES,
    SHAPES,
    SIZES,
    Scene,
)

CELL = 32
"""Width of a letter, in pixels; a word stands in the middle of the band."""
FONT_SIZE = 46


def draw(scenes: Sequence[Scene], seed: int = 0, device: torch.device | str = "cpu") -> Tensor:
    """Images of scenes, scenes × 256 × 256 × 3, uint8 RGB; `seed` decides where in its place each thing stands."""
    random = Random(seed)
    canvas = _colours([BACKGROUNDS[s.background] for s in scenes], device)[:, None, None, :]
    image = canvas.repeat(1, CANVAS, CANVAS, 1)
    for shape, distance in DISTANCES.items():
        found = [(i, thing) for i, scene in enumerate(scenes) for thing in scene.things if thing.shape == shape]
        if not found:
            continue
        owner = torch.tensor([i for i, _ in found], device=device)
        radius = torch.tensor([SIZES[t.size] for _, t in found], device=device)[:, None, None]
        centre = torch.tensor([_jittered(*PLACES[t.place], random) for _, t in found], device=device)
        pixel = torch.arange(CANVAS, device=device) + 0.5
        x = (pixel[None, None, :] - centre[:, 0, None, None]) / radius
        y = (pixel[None, :, None] - centre[:, 1, None, None]) / radius
        coverage = (0.5 - distance(x, y) * radius).clamp(0, 1)[..., None]
        ink = _colours([COLOURS[t.colour] for _, t in found], device)[:, None, None, :]
        image.index_add_(0, owner, coverage * (ink - canvas[owner]))  # things never overlap, so inks add up
    _draw_words(scenes, image)
    return image.round().clamp(0, 255).to(torch.uint8)


def draw_one(scene: Scene, seed: int = 0) -> NDArray[np.uint8]:
    """One scene, 256 × 256 × 3, RGB."""
    image: NDArray[np.uint8] = draw([scene], seed)[0].numpy()
    return image


def ink_of(background: str) -> int:
    """Gray level of a word on this background: white on black, black on the others."""
    return 240 if background == "black" else 10


@functools.cache
def glyphs() -> NDArray[np.float32]:
    """Coverage of each sign of the alphabet, signs × 48 × 32."""
    from matplotlib import font_manager
    from PIL import Image, ImageDraw, ImageFont

    path = font_manager.findfont(
        font_manager.FontProperties(family="DejaVu Sans Mono", weight="bold"), fallback_to_default=False
    )
    font = ImageFont.truetype(path, FONT_SIZE)
    height = CANVAS - BAND_TOP
    signs = []
    for sign in ALPHABET:
        cell = Image.new("L", (CELL, height))
        ImageDraw.Draw(cell).text((CELL / 2, height / 2), sign, font=font, fill=255, anchor="mm")
        signs.append(np.asarray(cell, dtype=np.float32) / 255)
    return np.stack(signs)


def word_left(length: int) -> int:
    """First column of a word of so many signs."""
    return CANVAS // 2 - CELL * length // 2


def _draw_words(scenes: Sequence[Scene], image: Tensor) -> None:
    table = torch.from_numpy(glyphs()).to(image.device)
    for length in sorted({len(s.word) for s in scenes if s.word}):
        owner = [i for i, s in enumerate(scenes) if s.word and len(s.word) == length]
        signs = torch.tensor([[ALPHABET.index(c) for c in scenes[i].word or ""] for i in owner], device=image.device)
        coverage = table[signs].transpose(1, 2).flatten(2)[..., None]  # scenes × 48 × 32·length × 1
        ink = torch.tensor([float(ink_of(scenes[i].background)) for i in owner], device=image.device)
        left = word_left(length)
        band = image[owner, BAND_TOP:, left : left + CELL * length]
        image[owner, BAND_TOP:, left : left + CELL * length] = band + coverage * (ink[:, None, None, None] - band)


def _jittered(x: float, y: float, random: Random) -> tuple[float, float]:
    return x + random.uniform(-JITTER, JITTER), y + random.uniform(-JITTER, JITTER)


def _colours(table: Sequence[tuple[int, int, int]], device: torch.device | str) -> Tensor:
    return torch.tensor(table, dtype=torch.float32, device=device)


def _square(x: Tensor, y: Tensor) -> Tensor:
    return torch.maximum(x.abs(), y.abs()) - 0.86


def _triangle(x: Tensor, y: Tensor) -> Tensor:
    y = y - 0.285  # puts the middle of its bounding box at the origin
    return torch.maximum(y - 0.57, x.abs() * math.sqrt(3) / 2 - y / 2 - 0.57)


def _star(x: Tensor, y: Tensor) -> Tensor:
    """A pentagram is what lies inside at least four of the five half-planes of its lines."""
    y = y - 0.10
    angles = [2 * math.pi * k / 5 - math.pi / 2 for k in range(5)]
    planes = torch.stack([x * math.cos(a) + y * math.sin(a) - 0.325 for a in angles])
    return planes.topk(2, dim=0).values[1]


def _cross(x: Tensor, y: Tensor) -> Tensor:
    x, y = x.abs(), y.abs()
    return torch.minimum(torch.maximum(x - 1, y - 0.34), torch.maximum(x - 0.34, y - 1))


DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "circle": lambda x, y: torch.hypot(x, y) - 0.97,
    "square": _square,
    "triangle": _triangle,
    "diamond": lambda x, y: (x.abs() + y.abs() - 1.08) / math.sqrt(2),
    "star": _star,
    "cross": _cross,
}
"""Signed distance of each shape at unit radius, from x to the right and y down."""
assert tuple(DISTANCES) == SHAPES
