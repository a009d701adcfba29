"""Where and on what the figures were taken: the test environment above a table, and what took effect otherwise.

Refuses to describe one machine where the records come from several: it says so.
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any

from zbench.analysis.labels import flatten
from zbench.config import HardwareConfig
from zbench.environment import differences
from zbench.record import Record

MOST_DIFFERENT = 20
"""Different things that one line names."""


def environment_lines(records: Iterable[Record]) -> list[tuple[str, str]]:
    """Name and value of each line of the block, of the COMPLETE trials if there are any; in one pass."""
    whole, rest = _Setting(), _Setting()
    for record in records:
        if record.state == "COMPLETE":
            whole.add(record)
        elif whole.last is None:
            rest.add(record)
    setting = rest if whole.last is None else whole
    assert setting.last is not None
    environment, hardware = setting.last.environment, setting.last.trial.hardware
    said = setting.said
    lines = [
        ("Hardware", _hardware(environment, hardware)),
        ("Software", _software(environment)),
        ("Pipeline", said["Pipeline"]),
        ("Server", said["Server"]),
        ("Weights", said["Weights"]),
        ("Resolution", said["Resolution"]),
        ("Steps", said["Steps"] + " transformer forwards an image"),
        ("Prompts", said["Prompts"]),
        ("Rounds", said["Rounds"]),
        ("Revision", _revision(environment)),
        ("Command", said["Command"]),
    ]
    changes = _environment_changes(setting.environments.values(), environment)
    if changes:
        lines.append(("Attention", f"the trials were not all measured in one environment: {'; '.join(changes)}"))
    return [(name, value) for name, value in lines if value]


class _Setting:
    """What records say of how they were measured, each thing once."""

    def __init__(self) -> None:
        self.last: Record | None = None
        self.environments: dict[int, dict[str, Any]] = {}
        """By identity: records share theirs (`record.Record.from_data`)."""
        self._said: dict[str, dict[str, None]] = {name: {} for name in DESCRIBED}

    def add(self, record: Record) -> None:
        """In the order in which they were written."""
        self.last = record
        self.environments.setdefault(id(record.environment), record.environment)
        for name, describe in DESCRIBED.items():
            said = self._said[name]
            if len(said) <= MOST_DIFFERENT and (text := describe(record)):
                said[text] = None

    @property
    def said(self) -> dict[str, str]:
        """By line; of very many different things the first."""
        shown = {name: list(said) for name, said in self._said.items()}
        return {
            name: " | ".join([*said[:MOST_DIFFERENT], *(["…"] if len(said) > MOST_DIFFERENT else [])])
            for name, said in shown.items()
        }


def not_as_asked(record: Record) -> list[str]:
    """Config values that took effect otherwise than asked for, such as `dtype: asked bfloat16, took effect float32`.

    `auto` is no wish, so its outcome is no difference. A projected trial was run by a proxy on purpose;
    of it only the cache setting is compared.
    """
    if record.measurement is None:
        return []
    projected = record.measurement.projection is not None
    asked = flatten(record.trial.to_dict())
    leaves = [key.rpartition(".")[2] for key in asked]
    by_leaf = {leaf: key for key, leaf in zip(asked, leaves, strict=True) if leaves.count(leaf) == 1}
    by_leaf |= {"offload": "offload.mode", "cache": "cache.method"}
    found = []
    for key, took in flatten(asdict(record.measurement.effective)).items():
        value = "none" if (key, took) == ("cache", {}) else took
        wanted_key = key if key in asked else by_leaf.get(key)
        if wanted_key is None or (projected and not wanted_key.startswith("cache.")):
            continue
        wanted = asked[wanted_key]
        if wanted in ("auto", None) or value is None or _same(wanted, value):
            continue
        ran = "the proxy ran with" if projected else "took effect"
        found.append(f"{wanted_key}: asked {wanted}, {ran} {value}")
    return found


def _hardware(environment: dict[str, Any], target: HardwareConfig | None) -> str:
    names = [device["name"] for device in environment.get("devices") or []]
    counted = [f"{names.count(name)} × {name}" for name in dict.fromkeys(names)]
    cores = environment.get("cores")
    memory = environment.get("host_memory_bytes")
    host = [str(environment.get("cpu") or "unknown CPU")]
    if cores:
        host.append(f"{cores} {'core' if cores == 1 else 'cores'}")
    if memory:
        host.append(f"{memory / 2**30:.0f} GiB of memory")
    here = ", ".join([*counted, *host])
    if target is None:
        return here
    return f"projected onto {target.title}; cache and quality measured on {here}"


def _software(environment: dict[str, Any]) -> str:
    versions = {k: v for k, v in (environment.get("versions") or {}).items() if v}
    parts = [f"{name} {version}" for name, version in versions.items()]
    if environment.get("python"):
        parts.append(f"Python {environment['python']}")
    if environment.get("driver"):
        parts.append(f"driver {environment['driver']}")
    if environment.get("os"):
        parts.append(str(environment["os"]))
    return ", ".join(parts)


def _pipeline(record: Record) -> str:
    parts, dtype = [record.trial.pipeline.name], record.trial.compute.dtype
    if record.measurement is not None and record.measurement.projection is None:
        effective = record.measurement.effective
        parts += [f"{effective.weights} weights"] if effective.weights else []
        parts += [effective.dtype] if effective.dtype else []
    elif dtype != "auto":
        parts.append(dtype)
    return ", ".join(parts)


def _server(record: Record) -> str:
    """Of a trial that a server made; hardware and software above are its client's."""
    if record.measurement is not None and (started := record.measurement.effective.server) is not None:
        version = f"{record.trial.engine.name} {started.version or 'of a version that is not known'}"
        return f"{version}, {'started by zbench' if started.command else 'which was there'}"
    if record.measurement is None or "server" not in record.measurement.effective.other:
        return ""
    other = record.measurement.effective.other
    models = f", models: {', '.join(map(str, other['models']))}" if other.get("models") else ""
    return f"{other['server']}{models}; hardware and software are its client's"


def _weights(record: Record) -> str:
    """How they are stored where that is not what they compute in, and what else a reader should know of them."""
    if record.measurement is None or record.measurement.projection is not None:
        return ""
    effective = record.measurement.effective
    stored: dict[str, list[str]] = {}
    for component, dtypes in (effective.stored_dtypes or {}).items():
        if dtypes != [effective.dtype]:
            stored.setdefault(" + ".join(dtypes), []).append(component)
    parts = [f"{', '.join(components)} stored as {dtypes}" for dtypes, components in stored.items()]
    return "; ".join([*parts, *([effective.weights_note] if effective.weights_note else [])])


def _workload(record: Record) -> str:
    workload = record.trial.workload
    seeds = "1 seed" if len(workload.seeds) == 1 else f"{len(workload.seeds)} seeds"
    load = "" if workload.load_label is None else f", {workload.load_label}"
    return f"{len(workload.prompts)} × {seeds} ({workload.name}{load})"


def _measure(record: Record) -> str:
    measure = record.measure
    least, most = measure.min_rounds, measure.max_rounds
    count = f"{least}" if least == most else f"{least} to {most}"
    return f"{count} after at most {measure.max_warmup_rounds} of warm-up"


def _revision(environment: dict[str, Any]) -> str:
    revision = environment.get("git_revision")
    if not revision:
        return ""
    return f"{revision[:12]}{' with uncommitted changes' if environment.get('git_dirty') else ''}"


def _environment_changes(environments: Iterable[dict[str, Any]], newest: dict[str, Any]) -> list[str]:
    found: dict[str, None] = {}
    for environment in environments:
        if len(found) < MOST_DIFFERENT:
            found |= dict.fromkeys(differences(environment, newest))
    return list(found)


DESCRIBED: dict[str, Callable[[Record], str]] = {
    "Pipeline": _pipeline,
    "Server": _server,
    "Weights": _weights,
    "Resolution": lambda r: f"{r.trial.pipeline.width}×{r.trial.pipeline.height}",
    "Steps": lambda r: str(r.trial.pipeline.steps),
    "Prompts": _workload,
    "Rounds": _measure,
    "Command": lambda r: r.command or "",
}


def _same(wanted: object, value: object) -> bool:
    return wanted == value or str(wanted).lower() == str(value).lower().removeprefix("torch.")
