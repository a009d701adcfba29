"""Records of every zbench there was stay readable, and what is read is typed."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from factories import complete, trial

from zbench.errors import RecordError
from zbench.measurement import Effective
from zbench.record import Record
from zbench.store import read_records

REPORTS = Path(__file__).parent.parent / "reports"
JOURNALS = sorted(path for path in REPORTS.rglob("*.jsonl") if "trial_id" in path.read_text(encoding="utf-8")[:400])


def test_there_are_committed_records() -> None:
    assert len(JOURNALS) >= 10


@pytest.mark.parametrize("journal", JOURNALS, ids=lambda path: str(path.relative_to(REPORTS)))
def test_every_committed_record_is_readable_and_typed(journal: Path) -> None:
    records = read_records(journal)
    assert records
    for record in records:
        assert record.trial.pipeline.steps > 0 and record.measure.max_rounds > 0
        assert record.reference_id and record.baseline_id
        if record.measurement is not None:
            assert record.measurement.effective.device in ("cpu", "cuda")


def of_version_1() -> dict[str, Any]:
    """The first committed record of the demo, as it was written."""
    with (REPORTS / "cpu" / "demo" / "records.jsonl").open(encoding="utf-8") as lines:
        data: dict[str, Any] = json.loads(next(lines))
    assert data["schema_version"] == 1
    return data


def test_rounds_of_version_1_become_requests_of_a_window() -> None:
    older = of_version_1()
    record = Record.from_json(json.dumps(older))
    assert record.schema_version == 2 and Record.from_json(record.to_json()) == record
    measured, rounds = record.measurement, older["measurement"]["rounds"]
    assert measured is not None and len(measured.requests) == len(rounds)
    assert measured.window.stop_reason == older["measurement"]["stop_reason"]
    assert measured.memory.host_peak_rss_bytes == older["measurement"]["memory"]["host_peak_rss_bytes"]
    assert (measured.window.wall_s, measured.reasons["wall_s"]) == (None, "schema_1")
    for request, r in zip(measured.requests, rounds, strict=True):
        assert (request.trial_id, request.role) == (record.trial_id, "baseline")
        assert (request.latency_s, request.steps_s) == (r["latency_s"], r["steps_s"])
        assert measured.window.at(request.due_s) == r["started_at"]
        assert request.queue_s == 0 and request.done_s == pytest.approx(request.due_s + r["latency_s"])


def test_a_record_of_version_1_that_names_a_baseline_alone_has_it_for_its_reference_too() -> None:
    older = of_version_1()
    reference_id = older.pop("reference_id")
    assert Record.from_json(json.dumps(older)).reference_id == reference_id


def test_what_nothing_ever_filled_is_left_out_and_what_is_filled_is_refused() -> None:
    older = of_version_1()
    record = Record.from_json(json.dumps(older))
    older["measurement"]["cold"]["compile_s"] = None
    for r in older["measurement"]["rounds"]:
        r |= {"queue_s": None, "ranks": []}
    assert Record.from_json(json.dumps(older)) == record
    older["measurement"]["rounds"][0]["ranks"] = [3]
    with pytest.raises(RecordError, match="ranks"):
        Record.from_json(json.dumps(older))


@pytest.mark.parametrize("damage", [{"rounds": 3}, {"rounds": [{}]}, {"rounds": [{"started_at": "x"}]}, {"energy": 1}])
def test_a_broken_record_of_version_1_is_one_error(damage: dict[str, Any]) -> None:
    older = of_version_1()
    older["measurement"] |= damage
    with pytest.raises(RecordError):
        Record.from_json(json.dumps(older))


@pytest.mark.parametrize("version", [0, 3, "2", None])
def test_a_schema_that_is_not_known_says_the_way_out(version: object) -> None:
    with pytest.raises(RecordError, match="read it with the zbench that wrote it"):
        Record.from_json(json.dumps({**of_version_1(), "schema_version": version}))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"pipeline": {"name": "x"}}, "preset"),
        ({"cache": {"method": "teacache"}}, "teacache"),
        ({"offload": 3}, "offload: expected object, got int"),
    ],
)
def test_a_config_that_is_none_of_this_zbench_is_one_error_that_names_the_trial(change: dict, told: str) -> None:
    record = complete(trial())
    with pytest.raises(RecordError, match=f"trial {record.trial_id}: .*{told}"):
        _ = replace(record, config={**record.config, **change}).trial


def test_content_differs_where_both_sides_know_it_and_it_is_another() -> None:
    old, new, unknown = Effective(weights_sha256="a"), Effective(weights_sha256="b"), Effective()
    assert new.differs_in_content(old) == "weights"
    assert new.differs_in_content(new) is None and new.differs_in_content(unknown) is None
    assert unknown.differs_in_content(old) is None
    assert Effective(configs_sha256="a").differs_in_content(Effective(configs_sha256="b")) == "configs"
