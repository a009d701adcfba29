"""By how much two processes of the same code differ on this machine, kept in one JSON file a device.

`ab.noise` measures it for `zbench doctor --noise`. No round within a process shows it, so a speed-up between processes
has it in its interval. What was measured on another machine, as a home folder that several share may hold, or with
another torch, is not used, and is said. It refuses a file that is not its own.
"""

import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from zbench.environment import DeviceLike, capture, identity
from zbench.errors import RecordError
from zbench.files import write_whole
from zbench.hardware.ceilings import FOLDER_VARIABLE, device_name, file_of, kept_in, way_out

SCHEMA_VERSION = 2
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
    """Write the ratios of the first of `devices` (without any, of the CPU), measured now; the path.

    StoreError if it cannot be written.
    """
    device = device_name(devices)
    data = {
        "schema_version": SCHEMA_VERSION,
        "device": device,
        "label": label,
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": _machine(capture(devices).to_dict(), of_gpu=bool(devices)),
        "log_ratios": list(log_ratios),
    }
    text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    path = equal_workers_path(device)
    write_whole(path, text.encode(), f"choose another folder with {FOLDER_VARIABLE}")
    return path


def stored_noise(devices: Sequence[DeviceLike], environment: Mapping[str, Any]) -> dict[str, Any] | None:
    """What was measured of the first of `devices` (`cuda`) and of the CPU (`cpu`): each a `share`, None where that is
    not to be used here, and a sentence that says what of (`told`). None where nothing was measured.

    `environment` is this machine with these devices. RecordError naming a file that is broken.
    """
    found = {"cpu": _stored((), environment)}
    if devices:
        found = {"cuda": _stored(devices[:1], environment), **found}
    return {kind: each for kind, each in found.items() if each is not None} or None


def _stored(devices: Sequence[DeviceLike], environment: Mapping[str, Any]) -> dict[str, Any] | None:
    path = equal_workers_path(device_name(devices))
    data = kept_in(path, COMMAND)
    if data is None:
        return None
    ratios = data.get("log_ratios") if isinstance(data, dict) else None
    version = data.get("schema_version") if isinstance(data, dict) else None
    if not isinstance(data, dict) or version not in (1, SCHEMA_VERSION) or not isinstance(ratios, list):
        raise RecordError(f"{path}: not a file of measured noise; {way_out(COMMAND)}")
    if len(ratios) < LEAST_PAIRS or not all(type(x) in (int, float) and abs(x) <= MOST for x in ratios):
        wanted = f"{LEAST_PAIRS} numbers or more, each between -{MOST} and {MOST}"
        raise RecordError(f"{path}: log_ratios must be {wanted}; {way_out(COMMAND)}")
    if version == 1:
        return {"share": None, "told": "an older zbench, which did not say on which machine"}
    machine, day, label = data.get("machine"), str(data.get("measured_at"))[:10], str(data.get("label"))
    if not isinstance(machine, dict):
        raise RecordError(f"{path}: it does not say on which machine; {way_out(COMMAND)}")
    here = _machine(environment, of_gpu=bool(devices))
    other = [f"{key} {machine.get(key)} → {here[key]}" for key in here if machine.get(key) != here[key]]
    if other:
        return {"share": None, "told": f"{day}, elsewhere or with other software ({', '.join(other)})"}
    return {"share": spread_of(ratios), "told": f"{day}, {label}"}


def _machine(environment: Mapping[str, Any], *, of_gpu: bool) -> dict[str, Any]:
    """What must be equal for the figure to be used, by the name that a user reads."""
    known = identity(environment)
    names = ("device", "driver", "clock policy", "torch") if of_gpu else ("torch",)
    cpu = {"CPU": environment.get("cpu"), "cores": environment.get("cores")}
    memory = {"host memory, GiB": round((environment.get("host_memory_bytes") or 0) / 2**30)}
    return {**{name: known[name] for name in names}, **cpu, **memory}
