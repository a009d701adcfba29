"""Damage to records, from a seed: one field of a committed record changed, and what every reader makes of it."""

import contextlib
import io
import json
import os
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from zbench.analysis.view import view_of
from zbench.errors import RecordError, ZbenchError
from zbench.export import BINARY_FORMATS, FORMATS
from zbench.gate import show
from zbench.gate.baselines import machine_of, read_baseline, save_baseline
from zbench.gate.judge import assess
from zbench.gate.limits import parse_limit
from zbench.quality.artifacts import image_path
from zbench.recommend import Limits, recommend
from zbench.record import Record
from zbench.report.page.write import write_report
from zbench.report.tables.main import FORMS, render
from zbench.store import RECORDS, artifacts_folder
from zbench.stored import StoredRecords

REPORTS = Path(__file__).parent.parent.parent / "reports"
SCALE = float(os.environ.get("ZBENCH_FUZZ_EXAMPLES", "1"))
"""How many times as many examples as `make test` has; `make fuzz` sets it."""

NESTED: Any = []
for _ in range(200):
    NESTED = [NESTED]
NASTY: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 3, 2**31, 2**63 - 1, 2**63, -(2**63) - 1, 10**400, 10**6),
    *(0.5, -0.5, 1e-300, 5e-324, 1e15, 1e308, -1e308, float("nan"), float("inf")),
    *("", "x", " ", "\0", "\ud800", "a\nb", "\x1b[2J", "::error::x", "=1+1", "$x$ $", "<script>", "|", "紅" * 60),
    *("/etc/passwd", "../../../etc", "..", "~root/x", "${oc.env:HOME}", "random", "auto", "a" * 190, "٣"),
    *("2026-13-45T00:00:00", "9999-12-31T23:59:59+00:00", "0001-01-01", "NaN", "1e999", "COMPLETE", "projected"),
    *([], {}, [[]], [None], [1, 2, 3], ["x"], {"a": 1}, {"": None}, {"x": {"y": []}}, [{}], NESTED, {"1": 1e308}),
)
SAID = (
    "latency.median:3%",
    "throughput:3%",
    "memory.host_peak_rss:2%",
    "quality.ssim:-0.01",
    "stages.denoise.median:5%",
)


def pool() -> list[dict[str, Any]]:
    """Committed records of every kind, of schema 1 as they are and brought to schema 2."""
    found = []
    for name in ("cpu/demo", "h100/offload", "h100/caps", "h100/masks"):
        for line in (REPORTS / name / RECORDS).read_text(encoding="utf-8").splitlines():
            found += [json.loads(line), json.loads(Record.from_json(line).to_json())]
    return found


def damaged(
    records: list[dict[str, Any]], chance: random.Random, number: int
) -> tuple[dict[str, Any], dict[str, Any], str]:
    """A record under an id of its own, the same with one field changed, and what was done to it."""
    data = chance.choice(records)
    text = json.dumps(data)
    if data["trial_id"] != data["baseline_id"]:
        text = text.replace(data["trial_id"], f"{number:012x}")
    whole = json.loads(text)
    broken = json.loads(text)
    places = list(_places(broken))
    if chance.random() < 0.4:  # most of a record are the numbers of its requests
        places = [place for place in places if "requests" not in place[1] and "rounds" not in place[1]]
    node, path, key = chance.choice(places)
    kind = chance.choice(["set", "set", "set", "set", "drop", "rename", "add"])
    value = chance.choice(NASTY)
    if kind == "set":
        node[key] = value
    elif kind == "drop":
        del node[key]
    elif isinstance(node, list):
        node.insert(key, value)
    elif kind == "rename":
        node[f"{key}_"] = node.pop(key)
    else:
        node["unheard_of"] = value
    return whole, broken, f"{kind} {path}.{key} {str(value)[:60]!r}"


def _places(node: Any, path: str = "") -> Iterator[tuple[Any, str, Any]]:
    items = list(node.items()) if isinstance(node, dict) else list(enumerate(node)) if isinstance(node, list) else []
    for key, value in items:
        yield node, path, key
        yield from _places(value, f"{path}.{key}")


def is_read(data: Any) -> bool:
    """Whether it is taken for a record; anything but a RecordError of one line is a fault."""
    try:
        Record.from_json(json.dumps(data))
    except RecordError as error:
        assert "\n" not in str(error) and len(str(error)) < 2000, str(error)[:3000]
        return False
    return True


def read_everywhere(folder: Path, broken: list[dict[str, Any]], whole: list[dict[str, Any]]) -> list[str]:
    """What every reader makes of records that are taken for such: the names of those that said no, in one line each.

    Raises what is no ZbenchError.
    """
    runs = {name: folder / name / RECORDS for name in ("new", "base")}
    for (name, run), records in zip(runs.items(), (broken, whole), strict=True):
        run.parent.mkdir(parents=True)
        run.write_text("".join(json.dumps(data) + "\n" for data in records), encoding="utf-8")
        for data in records[:3]:
            _draw(folder / name, data)
    refused: list[str] = []

    @contextlib.contextmanager
    def reader(name: str) -> Iterator[None]:
        try:
            yield
        except ZbenchError as error:
            assert "\n" not in str(error), str(error)
            refused.append(f"{name}: {error}")

    records = StoredRecords([runs["new"]])
    view = view_of(records)
    for form in FORMS:
        with reader(form):
            render(view, form)
    with contextlib.redirect_stderr(io.StringIO()):
        for form, write in {**FORMATS, **BINARY_FORMATS}.items():
            with reader(form):
                list(write(view))
    with reader("report"):
        write_report(view, records.folders, folder / "report")
    for limits in (Limits(), Limits(min_ssim=0.9, max_vram_gib=60.0)):
        for allow_proxy in (False, True):
            with reader("recommend"):
                advice = recommend(view, limits, allow_proxy=allow_proxy)
                few = replace(advice, answers=advice.answers[:2])  # Hydra composes each launch line anew
                few.to_text(), few.to_json()
    base = StoredRecords([runs["base"]])
    for said in SAID:
        with reader(f"compare {said}"):
            assessment = assess(records.values(), base.values(), [parse_limit(said)])
            for form in show.FORMS:
                show.render(assessment, form)
    with reader("baseline"):
        saved = save_baseline(list(records.values()), "kept", folder)
        read_baseline(str(saved), folder, machine_of(records.newest.environment))
    return refused


def _draw(folder: Path, data: dict[str, Any]) -> None:
    """Images of a record's first requests."""
    record = Record.from_json(json.dumps(data))
    for request in record.measurement.requests[:2] if record.measurement else ():
        path = image_path(artifacts_folder(folder, record.trial_id), request.prompt_id, request.seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (request.index % 256, 0, 0)).save(path)
