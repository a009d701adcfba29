"""By how much two processes of the same code differ on this machine, kept in one JSON file a device.

`ab.noise` measures it for `zbench doctor --noise`. No round within a process shows it, so a speed-up between processes
has it in its interval. It refuses a file that is not its own.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path

from zbench.environment import DeviceLike
from zbench.errors import RecordError
from zbench.files import write_whole
from zbench.hardware.ceilings import FOLDER_VARIABLE, device_name, file_of, kept_in, way_out

SCHEMA_VERSION = 1
FOLDER = "noise"
COMMAND = "zbench doctor --noise"
LEAST_PAIRS = 4
MOST = 1
"""A log ratio beyond it is no noise: one process took nearly three times as long as its equal."""


def spread_of(log_ratios: Sequence[float]) -> float:
    """Standard deviation by which the times of two processes differ, as a share: the mean of all pairs is known, 0."""
    return math.sqrt(math.fsum(ratio**2 for ratio in log_ratios) / len(log_ratios))


def equal_workers_path(device: str) -> Path:
    """The file of `device`, whether or not it is there."""
    return file_of(device, FOLDER)


def store_equal_workers(devices: Sequence[DeviceLike], label: str, log_ratios: Sequence[float]) -> Path:
    """Write the ratios of the machine's first device (its CPU without one); the path. StoreError if it cannot be."""
    device = device_name(devices)
    data = {"schema_version": SCHEMA_VERSION, "device": device, "label": label, "log_ratios": list(log_ratios)}
    text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    path = equal_workers_path(device)
    write_whole(path, text.encode(), f"choose another folder with {FOLDER_VARIABLE}")
    return path


def stored_equal_workers(devices: Sequence[DeviceLike]) -> float | None:
    """The stored spread, as a share; None where nothing was measured. RecordError naming a file that is broken."""
    path = equal_workers_path(device_name(devices))
    data = kept_in(path, COMMAND)
    if data is None:
        return None
    ratios = data.get("log_ratios") if isinstance(data, dict) else None
    if not isinstance(data, dict) or data.get("schema_version") != SCHEMA_VERSION or not isinstance(ratios, list):
        raise RecordError(f"{path}: not a file of measured noise; {way_out(COMMAND)}")
    if len(ratios) < LEAST_PAIRS or not all(type(x) in (int, float) and abs(x) <= MOST for x in ratios):
        wanted = f"{LEAST_PAIRS} numbers or more, each between -{MOST} and {MOST}"
        raise RecordError(f"{path}: log_ratios must be {wanted}; {way_out(COMMAND)}")
    return spread_of(ratios)
