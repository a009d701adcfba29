"""What a program of others is started in: the user's own environment, without what zbench set for its workers.

Example: a worker's malloc keeps freed memory, and its PYTHONPATH begins with zbench. A server that is measured must not
have that: whoever types its line has not. Here also: where logs of programs lie.
"""

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

CHANGED = "ZBENCH_CHANGED"
"""In a worker's environment: JSON, each variable that zbench changed to what it was; null where it was not set."""

LOGS = "ZBENCH_LOGS"
"""In a worker's environment: the folder of its own log."""

OWN = "ZBENCH_"


def changed(before: Mapping[str, str], changes: Mapping[str, str]) -> dict[str, str]:
    """`before` with the changes, and what it takes to undo them."""
    former: dict[str, str | None] = json.loads(before.get(CHANGED, "{}"))
    former = {name: before.get(name) for name in changes} | former
    return {**before, **changes, CHANGED: json.dumps(former)}


def users_own(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment as the user has it: nothing that zbench set, and none of zbench's own variables."""
    found = dict(os.environ if environment is None else environment)
    former: dict[str, str | None] = json.loads(found.get(CHANGED, "{}"))
    kept = {name: value for name, value in found.items() if name not in former and not name.startswith(OWN)}
    return kept | {name: value for name, value in former.items() if value is not None}


def logs_folder() -> Path:
    """Where a program's log is to lie: beside the worker's own; a temporary folder where there is no worker."""
    named = os.environ.get(LOGS)
    return Path(named) if named else Path(tempfile.mkdtemp(prefix="zbench-logs-"))
