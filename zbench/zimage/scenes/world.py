"""What a scene may hold: things of a shape, colour, size and place on a background, and a word below them.

Scenes are written as text, `large red circle top-left; small blue square center; on white; word CAT`, sampled from a
generator, and parted into splits: a thing whose size, colour, shape and place together belong to the validation or the
test split never occurs in a training scene. Nothing is drawn here.
"""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass
from random import Random
from typing import Literal

RGB = tuple[int, int, int]
Split = Literal["train", "validation", "test"]

SHAPES = ("circle", "square", "triangle", "diamond", "star", "cross")
COLOURS: dict[str, RGB] = {
    "red": (214, 39, 40),
    "orange": (250, 140, 20),
    "yellow": (245, 215, 40),
    "green": (40, 150, 60),
    "cyan": (30, 200, 210),
    "blue": (40, 80, 215),
    "purple": (130, 50, 180),
    "pink": (245, 130, 190),
}
BACKGROUNDS: dict[str, RGB] = {"white": (246, 246, 246), "gray": (140, 140, 140), "black": (18, 18, 18)}
SIZES: dict[str, float] = {"small": 17.0, "large": 30.0}
"""Radius in pixels of the circle that a thing of this size fits."""

CANVAS = 256
"""Height and width of an image, in pixels."""
BAND_TOP = 208
"""Things stand above this row, the word below it."""
COLUMNS = {"left": 43.0, "center": 128.0, "right": 213.0}
ROWS = {"top": 35.0, "middle": 104.0, "bottom": 173.0}
JITTER = 4.0
"""A thing stands at most this many pixels off its place's middle, in either direction."""
PLACES: dict[str, tuple[float, float]] = {
    (column if row == "middle" else row if column == "center" else f"{row}-{column}"): (x, y)
    for (row, y), (column, x) in itertools.product(ROWS.items(), COLUMNS.items())
}
"""Name (`top-left`, `top`, …, `center`, …, `bottom-right`) to x and y of its middle, in pixels."""

ALPHABET = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"
"""Of words and numbers: letters and digits without I, O, 0 and 1, which look alike."""
LETTERS, DIGITS = ALPHABET[:24], ALPHABET[24:]
LONGEST_WORD = 4
MOST_THINGS = 3


class SceneError(ValueError):
    """A text is no scene; the message names the part and what may stand there."""


@dataclass(frozen=True)
class Thing:
    """One shape of a scene; every field is a key of the table of that name."""

    size: str
    colour: str
    shape: str
    place: str

    def __str__(self) -> str:
        return f"{self.size} {self.colour} {self.shape} {self.place}"

    @property
    def split(self) -> Split:
        """Where the four attributes together may occur."""
        digest = hashlib.sha256(str(self).encode()).digest()
        return "test" if digest[0] < 32 else "validation" if digest[0] < 48 else "train"


@dataclass(frozen=True)
class Scene:
    """One to three things at different places, and a word or number below them or none."""

    things: tuple[Thing, ...]
    background: str
    word: str | None = None

    def __str__(self) -> str:
        word = (f"word {self.word}",) if self.word else ()
        return "; ".join((*map(str, self.things), f"on {self.background}", *word))

    @property
    def split(self) -> Split | None:
        """The split it belongs to; None if it mixes held-out things of both kinds."""
        held_out = {thing.split for thing in self.things} - {"train"}
        return "train" if not held_out else held_out.pop() if len(held_out) == 1 else None


def parse_scene(text: str) -> Scene:
    """The scene that `str(scene)` wrote. Raises SceneError naming the part that is none."""
    things: list[Thing] = []
    background = word = None
    for part in (part.strip() for part in text.split(";")):
        words = part.split()
        if len(words) == 2 and words[0] == "on":
            background = _known(part, words[1], tuple(BACKGROUNDS))
        elif len(words) == 2 and words[0] == "word":
            word = words[1]
            if not 1 <= len(word) <= LONGEST_WORD or set(word) - set(ALPHABET):
                raise SceneError(f"{part!r}: a word is 1 to {LONGEST_WORD} of {ALPHABET}")
        elif len(words) == 4:
            tables = (tuple(SIZES), tuple(COLOURS), SHAPES, tuple(PLACES))
            things.append(Thing(*(_known(part, name, table) for name, table in zip(words, tables, strict=True))))
        else:
            raise SceneError(f"{part!r} is neither 'SIZE COLOUR SHAPE PLACE', 'on BACKGROUND' nor 'word WORD'")
    if background is None:
        raise SceneError(f"{text!r}: 'on BACKGROUND' is missing")
    if not 1 <= len(things) <= MOST_THINGS or len({thing.place for thing in things}) < len(things):
        raise SceneError(f"{text!r}: 1 to {MOST_THINGS} things at different places are needed")
    return Scene(tuple(things), background, word)


def _known(part: str, name: str, table: tuple[str, ...]) -> str:
    if name not in table:
        raise SceneError(f"{part!r}: {name!r} is none of {', '.join(table)}")
    return name


def sample_scene(random: Random, split: Split) -> Scene:
    """A scene of a split: one to three things, three of four scenes with a word, one word in three a number."""
    while True:
        places = random.sample(list(PLACES), random.randint(1, MOST_THINGS))
        things = tuple(
            Thing(random.choice(list(SIZES)), random.choice(list(COLOURS)), random.choice(SHAPES), place)
            for place in places
        )
        word = None
        if random.random() < 0.75:
            signs = DIGITS if random.random() < 1 / 3 else LETTERS
            word = "".join(random.choices(signs, k=random.randint(1, LONGEST_WORD)))
        scene = Scene(things, random.choice(list(BACKGROUNDS)), word)
        if scene.split == split:
            return scene
