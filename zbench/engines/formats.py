"""The format in which a server answers: `engine.options.output_format`, of a trial's requests and of what came.

Example: a picture of noise at 1024×1024 costs 0.3 s as png, and a deployment may answer with jpeg. Trials of another
format are other work, so their images are judged against a reference that came through the same format.
"""

from typing import Any

from zbench.errors import ConfigError
from zbench.trial import Trial

FORMATS = ("png", "jpeg", "webp")
EXACT = "png"
"""Holds the very pixels, so it is the one that is asked for where nobody says another."""

BEGINS = {"png": b"\x89PNG\r\n\x1a\n", "jpeg": b"\xff\xd8\xff", "webp": b"RIFF"}


def check_format(value: Any) -> None:
    """Raise ConfigError for what is no format."""
    if value is not None and value not in FORMATS:
        raise ConfigError("engine.options.output_format", str(value)[:60], f"must be one of {', '.join(FORMATS)}")


def asked_format(trial: Trial) -> str | None:
    """What the trial says; None where it says nothing."""
    value = trial.engine.options.get("output_format")
    return None if value is None else str(value)


def format_in(file: bytes) -> str | None:
    """What a picture's first bytes say that it is."""
    return next((name for name, start in BEGINS.items() if file.startswith(start)), None)


def other_format(trial: Trial, came: str | None, usual: str | None = EXACT) -> list[str]:
    """A sentence where pictures came in another format than was asked for; `usual` is asked for by default."""
    wanted = asked_format(trial) or usual
    if wanted is None or came in (None, wanted):
        return []
    return [f"asked for output_format {wanted}, the server sent {came}"]
