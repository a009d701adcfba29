"""Where and on what the figures were taken: the test environment above a table, and what took effect otherwise.

Refuses to describe one machine where the records come from several: it says so.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from zbench.analysis.labels import flatten
from zbench.environment import differences
from zbench.record import Record
from zbench.store import latest_records


def environment_lines(records: Sequence[Record]) -> list[tuple[str, str]]:
    """Name and value of each line of the block."""
    last = _described(records)
    record = last[-1]
    environment, config = record.environment, record.config
    lines = [
        ("Hardware", _hardware(environment, config)),
        ("Software", _software(environment)),
        ("Pipeline", _each(last, _pipeline)),
        ("Resolution", _each(last, lambda r: _joined(r, "pipeline", "{width}×{height}"))),
        ("Steps", _each(last, lambda r: _joined(r, "pipeline", "{steps}")) + " transformer forwards an image"),
        ("Prompts", _each(last, _workload)),
        ("Rounds", _each(last, _measure)),
        ("Revision", _revision(environment)),
    ]
    lines.append(("Command", _each(last, lambda r: r.command or "")))
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
    asked = {key: value for key, value in flatten(record.config).items() if not key.startswith("measure.")}
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


def _described(records: Sequence[Record]) -> list[Record]:
    last = latest_records(records)
    return [r for r in last if r.state == "COMPLETE"] or last


def _hardware(environment: dict[str, Any], config: dict[str, Any]) -> str:
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
    target = config.get("hardware")
    if not target:
        return here
    return f"projected onto {target.get('title') or target.get('name')}; cache and quality measured on {here}"


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
    pipeline, compute = record.config.get("pipeline", {}), record.config.get("compute", {})
    parts = [str(pipeline.get("name", "?"))]
    if record.measurement is not None and record.measurement.projection is None:
        effective = record.measurement.effective
        parts += [f"{effective.weights} weights"] if effective.weights else []
        parts += [effective.dtype] if effective.dtype else []
    elif compute.get("dtype", "auto") != "auto":
        parts.append(str(compute["dtype"]))
    return ", ".join(parts)


def _workload(record: Record) -> str:
    workload = record.config.get("workload", {})
    prompts, seeds = workload.get("prompts", []), workload.get("seeds", [])
    if not prompts:
        return ""
    return f"{len(prompts)} × {len(seeds)} {'seed' if len(seeds) == 1 else 'seeds'} ({workload.get('name', '?')})"


def _measure(record: Record) -> str:
    measure = record.config.get("measure", {})
    if not measure:
        return ""
    least, most = measure.get("min_rounds"), measure.get("max_rounds")
    count = f"{least}" if least == most else f"{least} to {most}"
    return f"{count} after at most {measure.get('max_warmup_rounds')} of warm-up"


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


def _each(records: Sequence[Record], describe: Any) -> str:
    return " | ".join(dict.fromkeys(text for text in map(describe, records) if text))


def _joined(record: Record, group: str, form: str) -> str:
    try:
        return form.format(**record.config.get(group, {}))
    except KeyError:
        return ""


def _same(wanted: object, value: object) -> bool:
    return wanted == value or str(wanted).lower() == str(value).lower().removeprefix("torch.")
