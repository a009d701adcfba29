"""Where and on what the figures were taken: the test environment above a table, and what took effect otherwise.

Refuses to describe one machine where the records come from several: it says so.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from zbench.analysis.labels import flatten
from zbench.config import HardwareConfig
from zbench.environment import differences
from zbench.record import Record


def environment_lines(records: Sequence[Record]) -> list[tuple[str, str]]:
    """Name and value of each line of the block."""
    last = [r for r in records if r.state == "COMPLETE"] or list(records)
    environment, hardware = last[-1].environment, last[-1].trial.hardware
    lines = [
        ("Hardware", _hardware(environment, hardware)),
        ("Software", _software(environment)),
        ("Pipeline", _each(last, _pipeline)),
        ("Weights", _each(last, _weights)),
        ("Resolution", _each(last, lambda r: f"{r.trial.pipeline.width}×{r.trial.pipeline.height}")),
        ("Steps", _each(last, lambda r: str(r.trial.pipeline.steps)) + " transformer forwards an image"),
        ("Prompts", _each(last, _workload)),
        ("Rounds", _each(last, _measure)),
        ("Revision", _revision(environment)),
        ("Command", _each(last, lambda r: r.command or "")),
    ]
    changes = _environment_changes(last)
    if changes:
        lines.append(("Attention", f"the trials were not all measured in one environment: {'; '.join(changes)}"))
    return [(name, value) for name, value in lines if value]


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
    return f"{len(workload.prompts)} × {seeds} ({workload.name})"


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


def _environment_changes(records: Sequence[Record]) -> list[str]:
    newest = records[-1].environment
    found: list[str] = []
    for record in records:
        found += [d for d in differences(record.environment, newest) if d not in found]
    return found


def _each(records: Sequence[Record], describe: Callable[[Record], str]) -> str:
    return " | ".join(dict.fromkeys(text for text in map(describe, records) if text))


def _same(wanted: object, value: object) -> bool:
    return wanted == value or str(wanted).lower() == str(value).lower().removeprefix("torch.")
