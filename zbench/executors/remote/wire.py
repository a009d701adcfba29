"""What a pool and its nodes say to each other: a message is a line of JSON, and after it the bytes of files.

| down | fields | answered by |
|---|---|---|
| `begin` | `run`, `share_device`, `allow_code`: what a node is made of | `hello`, or `broken` |
| `run` | `task`; files `REFERENCE/name`: images to judge by, not sent before | `event`s and `done`, or `broken` |
| `stop` | | the request in progress is the last: then `done` |
| `leave` | | `bye` |

| up | fields |
|---|---|
| `hello` | `wire` (version), `node` (its name), `environment` |
| `event` | `event`, as `executors.OnEvent` is told |
| `done` | `task` as it was told, `results`, `environment`, `log` of its worker; files `NUMBER/name`, of that setting |
| `broken` | `why`: the machine fails, and not a trial; nothing more comes |
| `bye` | |

No object of Python's is in a message: what is read is checked against the types that records have. That holds against
mistakes and other versions, not against a hostile node: Ray itself pickles what its calls return (docs/clusters.md).
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from zbench.config import MeasureConfig
from zbench.decode import check_untyped, plain, typed
from zbench.environment import check_environment
from zbench.executors import Completed, Disrupted, Done, Failed, Setting, Stopped, Task, TaskResult
from zbench.measurement import Measurement
from zbench.record import Reason
from zbench.trial import Trial

VERSION = 1

UNMEASURED: dict[str, TaskResult] = {"stopped": Stopped(), "disrupted": Disrupted()}


def packed(head: Mapping[str, Any], files: Mapping[str, bytes] | None = None) -> bytes:
    """One message."""
    sizes = [[name, len(data)] for name, data in (files or {}).items()]
    line = json.dumps({**head, "files": sizes}, allow_nan=False).encode()
    return b"".join([line, b"\n", *(files or {}).values()])


def unpacked(message: bytes) -> tuple[dict[str, Any], dict[str, memoryview]]:
    """A message's fields, and its files by name. Raises ValueError for what is none."""
    end = message.find(b"\n")
    head = plain(message[: max(end, 0)])
    if not isinstance(head, dict) or not isinstance(head.get("say"), str):
        raise ValueError("not a message of a node")
    body, files, at = memoryview(message)[end + 1 :], {}, 0
    for entry in head.pop("files", []):
        if not (isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str) and type(entry[1]) is int):
            raise ValueError(f"files: {str(entry)[:60]} is no name with a size")
        name, size = entry
        if not 0 <= size <= len(body) - at:
            raise ValueError(f"files: {name[:60]} has {size} bytes, and {len(body) - at} are there")
        files[name] = body[at : at + size]
        at += size
    return head, files


def task_out(task: Task, references: Mapping[Path, str]) -> dict[str, Any]:
    """A task in JSON's types; `references` are the names by which the node knows the folders that it judges against."""
    return {
        "measure": asdict(task.measure),
        "process": task.process,
        "companion": None if task.companion is None else task.companion.to_dict(),
        "settings": [
            {
                "trial": setting.trial.to_dict(),
                "reference": None if setting.reference is None else references[setting.reference],
                "is_reference": setting.is_reference,
                "role": setting.role,
                "of_other_weights": setting.of_other_weights,
                "is_beside": setting.is_beside,
            }
            for setting in task.settings
        ],
    }


def task_in(data: Mapping[str, Any], artifacts: Path, references: Path) -> Task:
    """The same task on a node: its images go to `artifacts/NUMBER`, its references lie in `references/NAME`.

    Raises ValueError for what is no task.
    """
    companion = data["companion"]
    return Task(
        settings=tuple(
            Setting(
                trial=Trial.from_dict(each["trial"]),
                artifacts=artifacts / str(number),
                reference=None if each["reference"] is None else references / Path(each["reference"]).name,
                is_reference=each["is_reference"],
                role=each["role"],
                of_other_weights=each["of_other_weights"],
                is_beside=each["is_beside"],
            )
            for number, each in enumerate(data["settings"])
        ),
        measure=typed(MeasureConfig, data["measure"]),
        process=data["process"],
        companion=None if companion is None else Trial.from_dict(companion),
    )


def results_out(done: Done) -> list[dict[str, Any]]:
    """What came of each setting, in JSON's types."""
    return [_result_out(result) for result in done.results]


def _result_out(result: TaskResult) -> dict[str, Any]:
    if isinstance(result, Completed):
        return {"measurement": asdict(result.measurement)}
    if isinstance(result, Failed):
        return {"reason": asdict(result.reason)}
    return {"unmeasured": next(word for word, each in UNMEASURED.items() if each == result)}


def results_in(data: Iterable[Mapping[str, Any]]) -> tuple[TaskResult, ...]:
    """The same results here. Raises ValueError for what a record could not hold."""
    return tuple(map(_result_in, data))


def _result_in(data: Mapping[str, Any]) -> TaskResult:
    if "measurement" in data:
        return Completed(typed(Measurement, data["measurement"]))
    if "reason" in data:
        return Failed(typed(Reason, data["reason"]))
    if data.get("unmeasured") not in UNMEASURED:
        raise ValueError(f"results: {str(data)[:60]} is none")
    return UNMEASURED[data["unmeasured"]]


def environment_in(data: Any) -> dict[str, Any]:
    """An environment that a record may hold. Raises ValueError for another."""
    if not isinstance(data, dict):
        raise ValueError("environment: must be an object")
    check_untyped(data, "environment")
    check_environment(data)
    return data
