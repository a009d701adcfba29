"""What one subject adds to a launch of SGLang; `zbench.engines.sglang` puts the parts together."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class SGLangPart:
    """Arguments of `sglang serve`, its environment, and what the reader must know. Names follow sglang 0.5.23."""

    flags: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    carries: tuple[str, ...] = ()
    """Dotted keys of the config whose every value is in the flags and the environment."""


def spelled(on: bool) -> str:
    """A switch, as SGLang reads it."""
    return "true" if on else "false"
