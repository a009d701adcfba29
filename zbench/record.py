"""A record: one line of the journal, and the only thing that reports, gates and recommendations read.

Carries the schema version and upgrades older ones. Refuses NaN and infinity, both ways. What is read was checked once,
here: types, ranges, and what readers rely on. Ids are names of folders, so none of them holds a path.
"""

import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime
from functools import cached_property, lru_cache
from typing import Any, Literal, TypeVar

import msgspec

from zbench.config import MeasureConfig, WorkloadConfig, check
from zbench.decode import Count, check_untyped, plain, typed
from zbench.environment import check_environment
from zbench.errors import ConfigError, RecordError, machine_fault, one_line
from zbench.measurement import INVALID_IMAGES, METRICS, Measurement, Source, TrialId
from zbench.trial import Trial, group_of

SCHEMA_VERSION = 2
State = Literal["COMPLETE", "FAILED", "PRUNED"]
T = TypeVar("T")

NEVER_FILLED = ("ranks", "queue_s", "server_s")
"""Keys of a round in records of version 1 that nothing ever filled."""

TYPED_GROUPS = frozenset({f.name for f in fields(Trial)} - {"vram_limit_gib"} | {"measure"})
"""Of a record's config: `trial.group_of` looks at these."""

IN_VERSION_1 = {"rounds": "requests"}
"""Keys of an energy in version 1, and what they are called now."""

RENAMED = {"not_a_baseline": "not_a_reference"}
"""Reasons in older records, and what they are called now."""


MACHINE = "machine"
"""The code of what the machine failed at, and not the trial; such a failure is no answer, so it is not recorded."""

NODE_LOST = "node_lost"
"""The code of a trial whose machine, one of several, was lost while it was measured, and another one after it."""

SERVER_GONE = ("unreachable", "closed_early", "refused")
"""Codes of what a server did not answer."""

ENDED_FROM_OUTSIDE = re.compile(r"\(signal (1|2|3|7|9|15)\)")
"""A worker died of SIGHUP, SIGINT, SIGQUIT, SIGKILL or SIGTERM, which somebody sent; or of SIGBUS, as where a file that
is mapped into memory cannot be read or has no room on its disk."""

COULD_NOT_SAVE = re.compile(r"\w*Error during saving images: \[Errno")
"""As records say it that were written before the machine's failures were told apart."""


@dataclass(frozen=True)
class Reason:
    """Why a trial has no figures."""

    code: str  # such as timeout, out_of_memory, worker_died, invalid_images, constraint
    message: str
    log_tail: tuple[str, ...] = ()
    stage: str | None = None  # of an image or of the trial, in which it happened
    memory: dict[str, Count] | None = None  # out_of_memory: bytes at that moment, by name
    next_offload: str | None = None  # out_of_memory: the smallest offload that is predicted to fit

    @property
    def is_of_the_machine(self) -> bool:
        """Whether the machine failed and not the trial, which is then tried again by itself."""
        if self.code == "worker_died":
            return ENDED_FROM_OUTSIDE.search(self.message) is not None
        said_by_an_error = self.code == "error" and machine_fault(self.message) is not None
        return self.code in (MACHINE, NODE_LOST) or said_by_an_error or COULD_NOT_SAVE.match(self.message) is not None

    @property
    def is_of_a_server(self) -> bool:
        """Whether a server was gone or full, be it for this trial or not; it is then tried again by itself."""
        return self.code in SERVER_GONE


@dataclass(frozen=True)
class Record:
    """One trial's outcome.

    `measurement` is set where `state` is COMPLETE, and where it is FAILED with INVALID_IMAGES; `reason` where it is not
    COMPLETE.
    """

    sweep: str
    trial_id: TrialId
    reference_id: TrialId  # the trial whose images this one's are judged against; its own id for a quality reference
    baseline_id: TrialId  # the trial that its speed-up is over; its own id for a speed baseline
    label: str
    state: State
    config: dict[str, Any]  # the trial's groups, and `measure`
    environment: dict[str, Any]
    source: Source | None = None
    reason: Reason | None = None
    measurement: Measurement | None = None
    command: str | None = None  # what the user typed
    beside: tuple[TrialId, ...] = ()  # ids of trials that ran on other devices of the machine meanwhile
    part_of: TrialId | None = None  # of a search's trial on some samples, or on others: the work (`work_key`) it is for
    held_out_for: tuple[
        TrialId, ...
    ] = ()  # other works that the samples of this one, which were typed, are held out of
    schema_version: int = SCHEMA_VERSION

    @property
    def valid_measurement(self) -> Measurement | None:
        """What figures may be derived from; of a trial that FAILED only the requests are kept."""
        return self.measurement if self.state == "COMPLETE" else None

    @property
    def has_invalid_images(self) -> bool:
        """Whether it FAILED because images of it are none."""
        return self.state == "FAILED" and self.reason is not None and self.reason.code == INVALID_IMAGES

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
        """What ran, typed; a key that this zbench knows and the record lacks has its default. Raises RecordError.

        Of a PRUNED trial the ranges may be why it did not run.
        """
        return self._typed(Trial.from_dict if self.state == "PRUNED" else _checked_trial)

    @cached_property
    def measure(self) -> MeasureConfig:
        """How long it was to be measured, typed. Raises RecordError."""
        return self._typed(lambda config: group_of(MeasureConfig, config.get("measure", {}), "measure"))

    def _typed(self, read: Callable[[dict[str, Any]], T]) -> T:
        try:
            return read(self.config)
        except (ConfigError, ValueError) as error:
            told = one_line(error)
            raise RecordError(
                f"trial {self.trial_id}: its config is not one of this zbench ({told[:400]}); "
                "read it with the zbench that wrote it"
            ) from error

    def to_json(self) -> str:
        """One line without a line feed."""
        return json.dumps(asdict(self), ensure_ascii=False, allow_nan=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, line: str | bytes) -> "Record":
        """Parse one journal line; RecordError says what is wrong with it."""
        try:
            return cls.from_data(plain(line))
        except ValueError as error:
            raise RecordError(str(error)) from error

    @classmethod
    def from_data(cls, data: object) -> "Record":
        """A record from its JSON, of any schema; RecordError names the field that is wrong."""
        if not isinstance(data, dict) or "trial_id" not in data or "schema_version" not in data:
            raise RecordError("not a zbench record (no trial_id or schema_version)")
        try:
            record = typed(cls, upgrade(data))
            _check(record)
        except (TypeError, KeyError, ValueError, AttributeError, OverflowError) as error:
            raise RecordError(f"not a valid record: {one_line(error)}") from error
        return held_to_its_images(record)


def held_to_its_images(record: Record) -> Record:
    """FAILED, its requests kept, where one call of a COMPLETE trial made images that are none.

    A sweep holds each trial to this. What an older zbench called COMPLETE is held to it when it is read.
    """
    fault = None if record.valid_measurement is None else record.valid_measurement.image_fault
    if record.valid_measurement is None or fault is None:
        return record
    pipeline, dtype = record.config.get("pipeline") or {}, record.valid_measurement.effective.dtype
    weights = " and ".join(f"pipeline.{key}={pipeline[key]}" for key in ("weights", "vae") if pipeline.get(key))
    overflow = "" if dtype == "float32" else "compute.dtype=float32, which does not overflow, or "
    reason = Reason(INVALID_IMAGES, f"{fault}; try {overflow}other weights than {weights or 'these'}")
    return replace(record, state="FAILED", source=None, reason=reason)


def _checked_trial(config: dict[str, Any]) -> Trial:
    trial = Trial.from_dict(config)
    _check_recorded(trial.workload)
    _CHECKED[id(trial.workload)] = trial.workload
    check(trial, _CHECKED)
    if len(_CHECKED) > MOST_CHECKED:
        _CHECKED.clear()
    return trial


def _check_recorded(workload: WorkloadConfig) -> None:
    """Raise ValueError for a workload that readers cannot use; older ones took prompt ids that none is given now."""
    ids = [prompt.id for prompt in workload.prompts]
    if not ids or not workload.seeds or len(set(ids)) < len(ids) or len(set(workload.seeds)) < len(workload.seeds):
        raise ValueError("workload: needs prompts of different ids, and different seeds")
    longest = max(len(prompt_id.encode()) for prompt_id in ids)
    if longest > MAX_ID_BYTES:
        raise ValueError(f"workload.prompts: an id of {longest} bytes, which is no part of a file's name")


@lru_cache(maxsize=256)
def _environment(encoded: bytes) -> dict[str, Any]:
    """An environment that every reader can read; of equal ones there is one object. Raises ValueError."""
    environment: dict[str, Any] = msgspec.json.decode(encoded)
    check_untyped(environment, "environment")
    check_environment(environment)
    return environment


def _check_geometry(dimensions: dict[str, Any], path: str) -> None:
    """Raise ValueError for dimensions of which no operations can be counted."""
    for name, value in dimensions.items():
        if isinstance(value, dict):
            _check_geometry(value, f"{path}.{name}")
        elif any(
            not 0 < size < 2**31 for size in (value if isinstance(value, tuple) else (value,)) if type(size) is int
        ):
            raise ValueError(f"{path}.{name}={str(value)[:60]}: must be positive")


def _check(record: Record) -> None:
    """Raise ValueError, or RecordError for its config, where `record` is not what readers rely on."""
    measurement, code = record.measurement, record.reason.code if record.reason is not None else None
    may_measure = record.state == "COMPLETE" or (record.state == "FAILED" and code == INVALID_IMAGES)
    if (measurement is None and record.state == "COMPLETE") or (measurement is not None and not may_measure):
        there = "there" if measurement is not None else "null"
        raise ValueError(f"state={record.state} does not fit a measurement that is {there}")
    if (record.reason is None) != (record.state == "COMPLETE"):
        raise ValueError(f"state={record.state} does not fit a reason that is {'there' if code else 'null'}")
    object.__setattr__(record, "environment", _environment(msgspec.json.encode(record.environment)))
    check_untyped({key: value for key, value in record.config.items() if key not in TYPED_GROUPS}, "config")
    asked = record.trial.workload
    if record.measure is None or measurement is None:
        return
    if set(measurement.sources) != set(METRICS):
        raise ValueError(f"measurement.sources: must be of {', '.join(METRICS)}")
    if record.state == "COMPLETE" and record.source != measurement.source:
        raise ValueError(f"source={record.source}: the weakest of measurement.sources is {measurement.source}")
    check_untyped(measurement.effective.cache, "measurement.effective.cache")
    check_untyped(measurement.effective.other, "measurement.effective.other")
    if measurement.effective.geometry is not None:
        _check_geometry(asdict(measurement.effective.geometry), "measurement.effective.geometry")
    prompts = {prompt.id for prompt in asked.prompts}
    for name in ("quality", "prompt_fidelity", "noise_floor"):
        for judged in getattr(measurement, name) or ():
            if judged.prompt_id not in prompts:
                raise ValueError(f"measurement.{name}: config.workload has no prompt {judged.prompt_id[:60]!r}")


def upgrade(data: dict[str, Any]) -> dict[str, Any]:
    """Bring a record of an older schema to this one; RecordError if there is no way."""
    version = data["schema_version"]
    if type(version) is not int:
        version = repr(version)
    if version == SCHEMA_VERSION:
        return _with_graphs(data)
    if version == 1:
        return _with_graphs(_from_version_1(data))
    raise RecordError(
        f"schema_version {str(version)[:60]} cannot be upgraded to {SCHEMA_VERSION}; "
        "read it with the zbench that wrote it, or measure again"
    )


def _with_graphs(data: dict[str, Any]) -> dict[str, Any]:
    """What was captured, where it has the name that it had before more than all of it could be asked for."""
    measurement = data.get("measurement")
    effective = measurement.get("effective") if isinstance(measurement, dict) else None
    if not isinstance(measurement, dict) or not isinstance(effective, dict) or "cuda_graph" not in effective:
        return data
    captured = effective["cuda_graph"]
    if not isinstance(captured, bool | None):
        raise ValueError(f"measurement.effective.cuda_graph={captured!r}: must be true, false or null")
    rest = {key: value for key, value in effective.items() if key != "cuda_graph"}
    graphs = None if captured is None else "all" if captured else "none"
    return {**data, "measurement": {**measurement, "effective": {**rest, "graphs": graphs}}}


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
        requests.append({**_without(kept, *NEVER_FILLED), "trial_id": trial_id, "role": role, **times})
    window = {key: rest.pop(key) for key in ("stop_reason", "memory", "energy", "telemetry") if key in rest}
    window |= {"requests": requests, "started_at": rounds[0]["started_at"] if rounds else None}
    if isinstance(window.get("energy"), dict):
        window["energy"] = {IN_VERSION_1.get(key, key): value for key, value in window["energy"].items()}
    reasons = {k: RENAMED.get(v, v) for k, v in (rest.get("reasons") or {}).items()}
    unknown = dict.fromkeys(("wall_s", "cold.compile_s"), "schema_1")
    return {**data, "measurement": {**rest, "trial_id": trial_id, "window": window, "reasons": {**reasons, **unknown}}}


def _without(node: Any, *keys: str) -> Any:
    """`node` without those of `keys` that hold nothing."""
    return {k: v for k, v in node.items() if k not in keys or v} if isinstance(node, dict) else node


MAX_ID_BYTES = 240
"""Of a prompt's id, with which the names of image files begin."""

MOST_CHECKED = 4096
_CHECKED: dict[int, object] = {}
"""Groups of trials that are in their ranges, by identity (`trial.typed_group` makes equal ones once)."""
