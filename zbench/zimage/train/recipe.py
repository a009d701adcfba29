"""What the tiny pipeline is trained by: the recipe of the weights that ship, and one of seconds that learns nothing."""

from __future__ import annotations

from dataclasses import dataclass

from zbench.zimage.train.loop import Phase


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what is learnt, beside the seed."""

    autoencoder: Phase
    reading: Phase
    flow: Phase
    few_steps: Phase
    scenes: int  # that are read and painted
    forwards: int = 8  # an image, which the last phase makes enough
    dropped: float = 0.1  # share of empty captions
    substeps: int = 3  # of the teacher, to one of the student
    guidance: float = 0.5  # of the teacher
    validation_scenes: int = 64


FULL = Recipe(
    autoencoder=Phase("autoencoder", steps=2500, batch=48, rate=1e-3, average=0.995, save_every=1000),
    reading=Phase("reading", steps=500, batch=512, rate=2e-3, average=0.99, save_every=500),
    flow=Phase("flow", steps=8000, batch=512, rate=1e-3, warmup=300, save_every=2000),
    few_steps=Phase("few_steps", steps=800, batch=512, rate=2e-4, average=0.995, save_every=200),
    scenes=100_000,
)
SMOKE = Recipe(
    autoencoder=Phase("autoencoder", steps=2, batch=1, rate=1e-3, save_every=1),
    reading=Phase("reading", steps=2, batch=4, rate=1e-3, save_every=1),
    flow=Phase("flow", steps=3, batch=4, rate=1e-3, save_every=2),
    few_steps=Phase("few_steps", steps=2, batch=2, rate=1e-4, save_every=1),
    scenes=8,
    validation_scenes=1,
)
