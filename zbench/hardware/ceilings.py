"""The measured ceilings of this machine's device, kept in one JSON file a device; it imports no torch.

It refuses a file that is not its own: what was measured is never guessed. `ceiling_bench` measures.
"""

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zbench.decode import check_untyped, plain
from zbench.environment import DeviceLike, check_environment, cores_available, cpu_model
from zbench.errors import RecordError
from zbench.files import write_whole

SCHEMA_VERSION = 1
FOLDER_VARIABLE = "ZBENCH_CEILINGS_DIR"
COMMAND = "zbench doctor --measure"


def device_name(devices: Sequence[DeviceLike]) -> str:
    """Whose ceilings these are: the first GPU's name; without one the CPU's, with the cores this process may use."""
    return devices[0].name if devices else f"{cpu_model()}, {cores_available()} cores"


def ceilings_path(device: str) -> Path:
    """The file of `device`, whether or not it is there: under $ZBENCH_CEILINGS_DIR, else the user's cache folder."""
    return file_of(device)


def file_of(device: str, folder: str = "") -> Path:
    """Where what was measured of `device` is kept: beside its ceilings, or in a `folder` there."""
    slug = re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")
    return _folder() / folder / f"{slug}.json"


def store_ceilings(ceilings: dict[str, Any]) -> Path:
    """Write what `ceiling_bench` measured, replacing what was there; the path. StoreError if it cannot be written."""
    path = ceilings_path(ceilings["device"])
    text = json.dumps(ceilings, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_whole(path, text.encode(), f"choose another folder with {FOLDER_VARIABLE}")
    return path


def stored_ceilings(devices: Sequence[DeviceLike]) -> dict[str, Any] | None:
    """What was measured on the machine's first device (its CPU without one), as `ceiling_bench.measure_ceilings`
    describes it; None where nothing was. RecordError naming the file that cannot be read or is broken."""
    path = ceilings_path(device_name(devices))
    data = kept_in(path, COMMAND)
    if data is None:
        return None
    problem = _problem(data)
    if problem:
        raise RecordError(f"{path}: {problem}; {way_out(COMMAND)}")
    return {key: value for key, value in data.items() if key != "samples_s"}


def kept_in(path: Path, command: str) -> Any:
    """The JSON that `command` wrote; None where it has not. RecordError naming a file that cannot be read."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RecordError(f"{path}: cannot be read ({error.strerror}); {way_out(command)}") from error
    try:
        data = plain(text)
    except ValueError as error:
        raise RecordError(f"{path}: {error}; {way_out(command)}") from error
    if data is None:
        raise RecordError(f"{path}: null is nothing that was measured; {way_out(command)}")
    return data


def _folder() -> Path:
    own = os.environ.get(FOLDER_VARIABLE)
    if own:
        return Path(os.path.expanduser(own))
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "")
    return (cache if cache.is_absolute() else Path.home() / ".cache") / "zbench" / "ceilings"


def _problem(data: object) -> str | None:
    """What keeps `data` from being ceilings of this zbench."""
    if not isinstance(data, dict) or not isinstance(data.get("figures"), dict):
        return "not a file of measured ceilings (no figures)"
    if data.get("schema_version") != SCHEMA_VERSION:
        return f"schema_version is {data.get('schema_version')!r}, not {SCHEMA_VERSION}"
    if not isinstance(data.get("device"), str) or data.get("kind") not in ("cuda", "cpu"):
        return "it does not say whose ceilings these are (device, kind)"
    try:
        check_environment({"ceilings": data})  # every record made here holds them
        check_untyped(data, "ceilings")
    except ValueError as error:
        return str(error).removeprefix("environment.ceilings.")
    return None


def way_out(command: str) -> str:
    """Of a file that is broken, which `command` writes."""
    return f"delete it, or replace it with {command}"
