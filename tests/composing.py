"""Composition for tests: on a machine without a GPU."""

from zbench.composition import Jobs, expand


def resolve_auto(group: str, choices: dict[str, str]) -> str:
    """A machine without a GPU."""
    if group == "hardware":
        return "cpu"
    return "zimage_tiny" if choices["hardware"] == "cpu" else "zimage_turbo"


def jobs(*overrides: str, **options: object) -> Jobs:
    """The jobs of a command line."""
    return expand(list(overrides), resolve_auto, **options)  # type: ignore[arg-type]
