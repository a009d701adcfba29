"""Reads a scene back from an image: what is there, and how much of what was asked for is right.

Classical vision on flat colours, no learning: a thing is a connected patch that differs from the background, its
colour the nearest of the palette, its shape and size those of the drawn template that overlaps it best. Its errors on
clean, noised, blurred and JPEG-coded scenes are measured by `python -m zbench.zimage.scenes.reader_errors`.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from scipy import ndimage
from scipy.optimize import linear_sum_assignment

from zbench.zimage.scenes.draw import CELL, draw_one, glyphs, ink_of, word_left
from zbench.zimage.scenes.world import (
    ALPHABET,
    BACKGROUNDS,
    BAND_TOP,
    CANVAS,
    COLOURS,
    LONGEST_WORD,
    PLACES,
    RGB,
    SHAPES,
    SIZES,
    Scene,
    Thing,
)

LEAST_DISTANCE = 55.0
"""RGB distance from the background (0 to 441) from which a pixel belongs to a thing."""
LEAST_AREA = 120
"""Pixels; the smallest thing drawn covers about 330."""
LEAST_OVERLAP = 0.5
"""Intersection over union with the best template, below which a patch has no shape."""
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Attribute:
    """One thing that was asked for: `kind` is shape, colour, size, place, background, word or count."""

    kind: str
    right: bool


def read_scene(image: NDArray[np.uint8]) -> Scene:
    """What an image of 256 × 256 × 3, RGB, shows. It may hold no thing or more than a scene may, and unknown shapes."""
    smooth = Image.fromarray(image[:BAND_TOP]).filter(ImageFilter.BoxBlur(1))
    things_area = np.asarray(smooth, dtype=np.float32)
    edge = np.concatenate([things_area[0], things_area[:, 0], things_area[:, -1]])
    ground = np.median(edge, axis=0)
    background = _nearest(ground, BACKGROUNDS)
    apart = np.linalg.norm(things_area - ground, axis=2) > LEAST_DISTANCE
    patches, _ = ndimage.label(apart)
    things = [
        _read_thing(things_area, patches == number, where)
        for number, where in enumerate(ndimage.find_objects(patches), start=1)
        if np.count_nonzero(patches[where] == number) >= LEAST_AREA
    ]
    return Scene(tuple(things), background, _read_word(image[BAND_TOP:].astype(np.float32), ground, background))


def compare(asked: Scene, found: Scene) -> list[Attribute]:
    """Each attribute asked for, and whether it is right; things are matched so that most are."""
    kinds = ("size", "colour", "shape", "place")
    alike = np.array(
        [[[getattr(a, k) == getattr(f, k) for k in kinds] for f in found.things] for a in asked.things], dtype=bool
    ).reshape(len(asked.things), len(found.things), len(kinds))
    rows, columns = linear_sum_assignment(-alike.sum(axis=2))
    match = dict(zip(rows.tolist(), columns.tolist(), strict=True))
    attributes = [
        Attribute(kind, i in match and bool(alike[i, match[i], k]))
        for i in range(len(asked.things))
        for k, kind in enumerate(kinds)
    ]
    return [
        *attributes,
        Attribute("count", len(asked.things) == len(found.things)),
        Attribute("background", asked.background == found.background),
        Attribute("word", asked.word == found.word),
    ]


def share_right(attributes: list[Attribute]) -> float:
    """Right attributes over all, 0 to 1."""
    return sum(a.right for a in attributes) / len(attributes)


def _nearest(colour: NDArray[np.float32], palette: dict[str, RGB]) -> str:
    return min(palette, key=lambda name: float(np.linalg.norm(colour - np.array(palette[name]))))


def _read_thing(image: NDArray[np.float32], mask: NDArray[np.bool_], where: tuple[slice, slice]) -> Thing:
    y, x = ((s.start + s.stop) / 2 for s in where)
    place = min(PLACES, key=lambda name: (PLACES[name][0] - x) ** 2 + (PLACES[name][1] - y) ** 2)
    core = ndimage.binary_erosion(mask, iterations=2)
    colour = _nearest(np.median(image[core if core.any() else mask], axis=0), COLOURS)
    overlaps = {key: _overlap(mask, template, x, y) for key, template in _templates().items()}
    size, shape = max(overlaps, key=overlaps.__getitem__)
    return Thing(size, colour, shape if overlaps[size, shape] >= LEAST_OVERLAP else UNKNOWN, place)


@functools.cache
def _templates() -> dict[tuple[str, str], NDArray[np.bool_]]:
    """Mask of each (size, shape), cut to its bounding box."""
    templates = {}
    for size in SIZES:
        for shape in SHAPES:
            image = draw_one(Scene((Thing(size, "red", shape, "center"),), "black")).astype(np.float32)
            mask = np.linalg.norm(image - np.array(BACKGROUNDS["black"]), axis=2) > LEAST_DISTANCE
            (where,) = ndimage.find_objects(mask.astype(np.int32))
            templates[size, shape] = mask[where]
    return templates


def _overlap(mask: NDArray[np.bool_], template: NDArray[np.bool_], x: float, y: float) -> float:
    """Intersection over union of a patch and a template whose middles coincide."""
    height, width = template.shape
    top, left = round(y - height / 2), round(x - width / 2)
    inside = mask[max(top, 0) : top + height, max(left, 0) : left + width]
    shown = template[max(-top, 0) :, max(-left, 0) :][: inside.shape[0], : inside.shape[1]]
    both = np.count_nonzero(inside & shown)
    return both / (np.count_nonzero(mask) + np.count_nonzero(template) - both)


def _read_word(band: NDArray[np.float32], ground: NDArray[np.float32], background: str) -> str | None:
    """The word whose drawing comes nearest to the band (48 × 256 × 3); None where an empty band does."""
    contrast = ink_of(background) - ground
    ink = np.clip(((band - ground) @ contrast) / (contrast @ contrast), 0, 1)
    table = glyphs()
    best, least = "", float(np.square(ink).sum())
    for length in range(1, LONGEST_WORD + 1):
        left = word_left(length)
        cells = ink[:, left : left + CELL * length].reshape(CANVAS - BAND_TOP, length, CELL).transpose(1, 0, 2)
        errors = np.square(cells[:, None] - table[None]).sum(axis=(2, 3))
        error = float(np.square(ink).sum() - np.square(cells).sum() + errors.min(axis=1).sum())
        if error < least:
            best, least = "".join(ALPHABET[i] for i in errors.argmin(axis=1)), error
    return best or None
