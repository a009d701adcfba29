"""A record: one line of the journal, and the only thing that reports, gates and recommendations read.

Carries the schema version and upgrades older ones. Refuses NaN and infinity, both ways.
"""

import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, Literal, NoReturn, TypeVar

import dacite

from zbench.config import MeasureConfig
from zbench.errors import RecordError, machine_fault
from zbench.measurement import Measurement, Source
from zbench.trial import Trial, typed

SCHEMA_VERSION = 2
State = Literal["COMPLETE", "FAILED", "PRUNED"]
T = TypeVar("T")

NEVER_FILLED = {"rounds": ("ranks", "queue_s", "server_s"), "cold": ("compile_s",)}
"""Keys of records of version 1 that nothing ever filled."""

IN_VERSION_1 = {"rounds": "requests"}
"""Keys of an energy in version 1, and what they are called now."""

RENAMED = {"not_a_baseline": "not_a_reference"}
"""Reasons in older records, and what they are called now."""


MACHINE = "machine"
"""The code of what the machine failed at, and not the trial; such a failure is no answer, so it is not recorded."""

ENDED_FROM_OUTSIDE = re.compile(r"\(signal (1|2|3|7|9|15)\)")
"""A worker died of SIGHUP, SIGINT, SIGQUIT, SIGKILL or SIGTERM, which somebody sent; or of SIGBUS, as where a file that
is mapped into memory cannot be read or has no room on its disk."""

COULD_NOT_SAVE = re.compile(r"\w*Error during saving images: \[Errno")
"""As records say it that were written before the machine's failures were told apart."""


@dataclass(frozen=True)
class Reason:
    """Why a trial has no measurement."""

    code: str  # such as timeout, out_of_memory, worker_died, constraint
    message: str
    log_tail: tuple[str, ...] = ()
    stage: str | None = None  # of an image or of the trial, in which it happened
    memory: dict[str, int] | None = None  # out_of_memory: bytes at that moment, by name
    next_offload: str | None = None  # out_of_memory: the smallest offload that is predicted to fit

    @property
    def is_of_the_machine(self) -> bool:
        """Whether the machine failed and not the trial, which is then tried again by itself."""
        if self.code == "worker_died":
            return ENDED_FROM_OUTSIDE.search(self.message) is not None
        said_by_an_error = self.code == "error" and machine_fault(self.message) is not None
        return self.code == MACHINE or said_by_an_error or COULD_NOT_SAVE.match(self.message) is not None


@dataclass(frozen=True)
class Record:
    """One trial's outcome. `measurement` is set exactly when `state` is COMPLETE."""

    sweep: str
    trial_id: str
    reference_id: str  # the trial whose images this one's are judged against; its own id for a quality reference
    baseline_id: str  # the trial that its speed-up is over; its own id for a speed baseline
    label: str
    state: State
    config: dict[str, Any]  # the trial's groups, and `measure`
    environment: dict[str, Any]
    source: Source | None = None
    reason: Reason | None = None
    measurement: Measurement | None = None
    command: str | None = None  # what the user typed
    beside: tuple[str, ...] = ()  # ids of trials that ran on other devices of the machine meanwhile
    schema_version: int = SCHEMA_VERSION

    @property
    def is_reference(self) -> bool:
        """Whether other trials' images are judged against this one's."""
        return self.trial_id == self.reference_id

    @property
    def is_baseline(self) -> bool:
        """Whether other trials' speed-ups are over this one."""
        return self.trial_id == self.baseline_id

    @cached_property
    def trial(self) -> Trial:
        """What ran, typed; a key that this zbench knows and the record lacks has its default. Raises RecordError."""
        return self._typed(Trial.from_dict)

    @cached_property
    def measure(self) -> MeasureConfig:
        """How long it was to be measured, typed. Raises RecordError."""
        return self._typed(lambda config: typed(MeasureConfig, config.get("measure", {})))

    def _typed(self, read: Callable[[dict[str, Any]], T]) -> T:
        try:
            return read(self.config)
        except (dacite.DaciteError, KeyError, TypeError, ValueError, AttributeError) as error:
            told = " ".join(str(error).split())
            raise RecordError(
                f"sweep {self.sweep}, trial {self.trial_id}: its config is not one of this zbench ({told}); "
                "read it with the zbench that wrote it"
            ) from error

    def to_json(self) -> str:
        """One line without a line feed."""
        return json.dumps(asdict(self), ensure_ascii=False, allow_nan=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, line: str) -> "Record":
        """Parse one journal line; RecordError says what is wrong with it."""
        try:
            data = json.loads(line, parse_constant=_refuse_constant)
        except ValueError as error:
            raise RecordError(f"not JSON ({error})") from error
        if not isinstance(data, dict) or "trial_id" not in data or "schema_version" not in data:
            raise RecordError("not a zbench record (no trial_id or schema_version)")
        try:
            record = dacite.from_dict(cls, upgrade(data), _DACITE)
        except (dacite.DaciteError, TypeError, KeyError, ValueError, AttributeError) as error:
            raise RecordError(f"not a valid record: {error}") from error
        if (record.state == "COMPLETE") != (record.measurement is not None):
            raise RecordError(
                f"state {record.state} does not fit a measurement that is {record.measurement and 'there'}"
            )
        return record


def upgrade(data: dict[str, Any]) -> dict[str, Any]:
    """Bring a record of an older schema to this one; RecordError if there is no way."""
    version = data["schema_version"]
    if version == SCHEMA_VERSION:
        return data
    if version == 1:
        return _from_version_1(data)
    raise RecordError(
        f"schema_version {version} cannot be upgraded to {SCHEMA_VERSION}; "
        "read it with the zbench that wrote it, or measure again"
    )


def _from_version_1(data: dict[str, Any]) -> dict[str, Any]:
    """Rounds become requests of one sequential window, whose wall time version 1 did not keep.

    Where only a baseline was named, images were judged against it as well.
    """
    data = {"reference_id": data.get("baseline_id"), **data, "schema_version": SCHEMA_VERSION}
    measurement = data.get("measurement")
    if not isinstance(measurement, dict):
        return data
    rest = dict(measurement)
    trial_id = data["trial_id"]
    role = "baseline" if trial_id == data.get("baseline_id") else "trial"
    rounds = rest.pop("rounds", None) or []
    began = [datetime.fromisoformat(r["started_at"]) for r in rounds]
    requests = []
    for r, at in zip(rounds, began, strict=True):
        begun_s = (at - began[0]).total_seconds()
        times = {"due_s": begun_s, "sent_s": begun_s, "begun_s": begun_s, "done_s": begun_s + r["latency_s"]}
        kept = {key: value for key, value in r.items() if key != "started_at"}
        requests.append({**_without(kept, *NEVER_FILLED["rounds"]), "trial_id": trial_id, "role": role, **times})
    window = {key: rest.pop(key) for key in ("stop_reason", "memory", "energy", "telemetry") if key in rest}
    window |= {"requests": requests, "started_at": rounds[0]["started_at"] if rounds else None}
    if isinstance(window.get("energy"), dict):
        window["energy"] = {IN_VERSION_1.get(key, key): value for key, value in window["energy"].items()}
    reasons = {k: RENAMED.get(v, v) for k, v in (rest.get("reasons") or {}).items()}
    rest |= {"trial_id": trial_id, "window": window, "reasons": {**reasons, "wall_s": "schema_1"}}
    return {**data, "measurement": {**rest, "cold": _without(rest.get("cold"), *NEVER_FILLED["cold"])}}


def _without(node: Any, *keys: str) -> Any:
    """`node` without those of `keys` that hold nothing."""
    return {k: v for k, v in node.items() if k not in keys or v} if isinstance(node, dict) else node


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not allowed")


_DACITE = dacite.Config(cast=[tuple], strict=True)
