"""Gate baselines: records kept as one checksummed file, by name and machine; it compares nothing.

A file lies at `<runs>/baselines/<name>/<machine>.json`, so that machines keep their own under one name.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zbench.decode import check_untyped, plain, typed
from zbench.environment import identity
from zbench.errors import ConfigError, RecordError
from zbench.files import write_whole
from zbench.measurement import QUALITY_ONLY
from zbench.record import SCHEMA_VERSION, Record

FOLDER = "baselines"
FORMAT = "zbench-gate-baseline"
NOT_THE_MACHINE = ("zbench", "git revision", "uncommitted changes")
"""Of `environment.identity`: what a gate is there to judge changes of."""


@dataclass(frozen=True)
class Baseline:
    """What a gate compares with."""

    name: str
    machine: dict[str, Any]
    records: tuple[Record, ...]


@dataclass(frozen=True)
class _Kept:
    """What a file holds beside its checksum."""

    format: str
    schema_version: int
    name: str
    machine: dict[str, Any]
    records: list[dict[str, Any]]


def machine_of(environment: Mapping[str, Any]) -> dict[str, Any]:
    """What two runs must share for their speed to be comparable: device, driver, versions of what runs the model."""
    return {key: value for key, value in identity(environment).items() if key not in NOT_THE_MACHINE}


def machine_id(machine: Mapping[str, Any]) -> str:
    """12 hex digits over `machine_of`."""
    return _digest(machine)[:12]


def left_out(records: Sequence[Record]) -> dict[str, str]:
    """Label of each of `records` that no gate can compare with, and why: it FAILED, or no request of it counts."""
    why = {}
    for record in records:
        measured = record.valid_measurement
        if record.state == "FAILED":
            why[record.label] = f"FAILED ({record.reason.code}: {record.reason.message})" if record.reason else "FAILED"
        elif measured is not None and not measured.paired_latencies_s:
            said = f"it was not timed ({QUALITY_ONLY})" if measured.quality_only else "no round of it was valid"
            why[record.label] = said
    return why


def save_baseline(records: Sequence[Record], name: str, runs: Path) -> Path:
    """Keep the valid ones of `records` under `name`, those that are COMPLETE and not `left_out`; returns the file.

    Raises ConfigError for a name that is no folder's, RecordError without any valid one or where they come from
    several machines, StoreError if it cannot be written.
    """
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise ConfigError("--name", name, "must be a folder's name: letters, digits, '_', '-' and '.'")
    complete = [r for r in records if r.valid_measurement is not None and r.valid_measurement.paired_latencies_s]
    if not complete:
        run = " and ".join(dict.fromkeys(record.sweep for record in records))
        label, why = next(iter(left_out(records).items()), ("every trial", "PRUNED before launch"))
        raise RecordError(f"run {run} has no valid trial, so there is nothing to keep: {label}: {why}")
    machines = {machine_id(machine_of(record.environment)): machine_of(record.environment) for record in complete}
    if len(machines) > 1:
        raise RecordError(f"these records come from {len(machines)} machines or versions; keep a baseline of each")
    ((key, machine),) = machines.items()
    content = {
        "format": FORMAT,
        "schema_version": SCHEMA_VERSION,
        "name": name,
        "machine": machine,
        "records": [json.loads(record.to_json()) for record in complete],
    }
    path = runs / FOLDER / name / f"{key}.json"
    text = json.dumps({**content, "sha256": _digest(content)}, ensure_ascii=False, indent=1) + "\n"
    write_whole(path, text.encode(), "choose another folder with --runs-dir")
    return path


def read_baseline(name_or_file: str, runs: Path, machine: Mapping[str, Any]) -> Baseline:
    """The baseline of this file, or of this name and machine.

    Raises ConfigError where there is none for this machine, naming those there are; RecordError if somebody edited it
    or its schema is another.
    """
    path = runs / FOLDER / name_or_file / f"{machine_id(machine)}.json"
    if not path.is_file():
        path = Path(name_or_file)
    if not path.is_file():
        others = len(list((runs / FOLDER / name_or_file).glob("*.json")))
        kept = f"{others} kept under that name are of other machines or versions" if others else "none of that name"
        raise ConfigError("--baseline", name_or_file, f"{kept}; zbench baseline save RUN --name NAME keeps one")
    try:
        content = plain(path.read_bytes())
    except (OSError, ValueError) as error:
        raise RecordError(f"{path}: not a gate baseline ({error})") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise RecordError(f"{path}: not a gate baseline; zbench baseline save writes one")
    try:
        check_untyped(content, "baseline")
        if content.pop("sha256", None) != _digest(content):
            raise RecordError("its checksum does not fit: it was edited or torn")
        held = typed(_Kept, content)
        records = tuple(map(Record.from_data, held.records))
        if not any(record.state == "COMPLETE" for record in records):  # as an older zbench kept them
            raise RecordError("; ".join(f"{label}: {why}" for label, why in left_out(records).items()))
        return Baseline(held.name, held.machine, records)
    except (RecordError, ValueError) as error:
        raise RecordError(f"{path}: {error}; zbench baseline save RUN --name NAME keeps a new one") from error


def _digest(content: Mapping[str, Any]) -> str:
    canonical = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
