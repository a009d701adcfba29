"""What a server tells of one call beside its images, typed and bounded: whoever answers may write anything.

`zbench serve` tells it under `zbench`. What has another form than there counts as not told.
"""

from dataclasses import dataclass, field
from typing import Any

MOST_STEPS = 100_000
SHOWN = 100
"""Characters of what a server calls something."""

STAGES = ("text_encode", "denoise", "decode")


@dataclass(frozen=True)
class ServerAccount:
    """Of the first image of a call. None: it does not say."""

    seed: int | None = None
    steps: int | None = None
    cache: str | None = None  # by its label
    cached_steps: list[int] | None = None  # indices of the steps that it skipped
    stages_s: dict[str, float] = field(default_factory=dict)
    compiled: bool = False


def account_in(fields: dict[str, Any]) -> ServerAccount:
    """The account in the fields of an answer."""
    told = fields.get("zbench")
    if not isinstance(told, dict):
        return ServerAccount()
    stages_s = _first(told.get("stages_s"), dict) or {}
    cached = _first(told.get("cached_steps"), list)
    seed, steps, cache = told.get("seed"), told.get("steps"), told.get("cache")
    return ServerAccount(
        seed=seed if type(seed) is int else None,
        steps=steps if _is_step(steps) else None,
        cache=shown(cache) if isinstance(cache, str) else None,
        cached_steps=cached if cached is not None and all(map(_is_step, cached)) else None,
        stages_s={name: float(stages_s[name]) for name in STAGES if _is_seconds(stages_s.get(name))},
        compiled=told.get("compiled") is True,
    )


def shown(text: str) -> str:
    """The beginning of what a server calls something."""
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"


def _first(listed: Any, kind: type) -> Any:
    return listed[0] if isinstance(listed, list) and listed and isinstance(listed[0], kind) else None


def _is_step(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MOST_STEPS


def _is_seconds(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 1e-6 <= value < 1e9
