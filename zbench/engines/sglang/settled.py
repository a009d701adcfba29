"""What a server's arguments became: SGLang settles them after it has read them, and logs the outcome as one JSON line.

Example: asked for `--ulysses-degree 2`, a version that cannot may go on with 1. Its log says so in `server_args: {…}`
(0.5.12 to 0.5.23), and a trial of it is no trial of Ulysses.
"""

import json
import re
from collections.abc import Sequence
from typing import Any

LOGGED = re.compile(r"server_args: (\{.*\})")
LONGEST = 2**20
"""Characters of a line that are read."""

NOT_HELD = ("host", "port", "scheduler_port", "master_port", "strict_ports", "model_path")
"""Where it listens and what it loads: seen by its answers, and spelled by it as it likes."""


def logged_arguments(log: str) -> dict[str, Any]:
    """The arguments that a server logged last; empty where it did not."""
    for line in reversed(log.splitlines()):
        found = LOGGED.search(line[:LONGEST])
        if found is not None:
            try:
                said = json.loads(found[1])
            except ValueError:
                continue
            return said if isinstance(said, dict) else {}
    return {}


def changed_arguments(command: Sequence[str], settled: dict[str, Any]) -> list[str]:
    """A sentence, without a full stop, for each flag that became another value than it was given.

    What was settled to nothing, or to what is no plain value, says nothing.
    """
    asked = {word: command[place + 1] for place, word in enumerate(command[:-1]) if word.startswith("--")}
    found = []
    for flag, value in asked.items():
        name = flag.removeprefix("--").replace("-", "_")
        said = settled.get(name)
        if name not in NOT_HELD and isinstance(said, str | int | float) and not _is(said, value):
            found.append(f"sglang serve was given {flag} {value} and went on with {_spelled(said)}")
    return found


def _is(said: str | float, given: str) -> bool:
    if _spelled(said).lower() == given.lower():
        return True
    try:
        return not isinstance(said, bool) and float(said) == float(given)
    except ValueError:
        return False


def _spelled(said: str | float) -> str:
    return str(said).lower() if isinstance(said, bool) else str(said)
