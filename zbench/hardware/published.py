"""Figures that others, or zbench's founders, have published for Z-Image-Turbo; it refuses to mix them with a
user's own."""

from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any, Literal

import yaml

from zbench.decode import typed

FILE = "published.yaml"


@dataclass(frozen=True)
class PublishedFigure:
    """One published run of one setting on one kind of device. Times in seconds; None where it was not
    published."""

    id: str
    device: str
    kind: Literal["measured", "ci_threshold"]
    """ci_threshold: the limit a CI holds the program to; what it measures lies below."""
    where: str
    setting: str
    software: str
    profile: str | None = None
    """Choice of conf/hardware that describes the device."""
    count: int = 1
    """Devices an image used."""
    steps: int | None = None
    """Transformer forwards an image."""
    skipped_steps: int = 0
    image_s: float | None = None
    """An image once warm."""
    step_s: float | None = None
    stages_s: dict[str, float] = field(default_factory=dict)
    peak_memory_mb: float | None = None
    note: str = ""
    serving: list[dict[str, Any]] = field(default_factory=list)
    """Rows of a serving benchmark, as published."""


@cache
def published_figures() -> tuple[PublishedFigure, ...]:
    """Every figure, in the file's order."""
    text = resources.files(__package__).joinpath(FILE).read_text(encoding="utf-8")
    return tuple(typed(PublishedFigure, row) for row in yaml.safe_load(text))


def published_for(hardware_name: str) -> list[PublishedFigure]:
    """What to show beside a projection on the profile `hardware_name`; empty where nothing was published."""
    return [figure for figure in published_figures() if figure.profile == hardware_name]
