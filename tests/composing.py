"""Composition for tests: on a machine without a GPU."""

from typing import Any

from zbench.composition import Jobs, expand
from zbench.sweeper.here import fill_grid


def resolve_auto(group: str, choices: dict[str, str]) -> str:
    """A machine without a GPU."""
    if group == "hardware":
        return "cpu"
    return "zimage_tiny" if choices["hardware"] == "cpu" else "zimage_turbo"


def jobs(*overrides: str, **options: Any) -> Jobs:
    """The jobs of a command line."""
    return expand(list(overrides), resolve_auto, **{"fill_grid": fill_grid, **options})
