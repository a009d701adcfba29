"""Records of every zbench there was stay readable, and what is read is typed."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from factories import complete, failed, of_invalid_images, spoilt, trial

from zbench.config import ServedEngineConfig
from zbench.errors import RecordError
from zbench.measurement import Effective
from zbench.record import Record
from zbench.store import read_records

REPORTS = Path(__file__).parent.parent / "reports"
JOURNALS = sorted(path for path in REPORTS.rglob("*.jsonl") if "trial_id" in path.read_text(encoding="utf-8")[:400])


def test_there_are_committed_records() -> None:
    assert len(JOURNALS) >= 10


@pytest.mark.parametrize("journal", JOURNALS, ids=lambda path: str(path.relative_to(REPORTS)))
def test_no_committed_record_says_in_which_folder_zbench_lay(journal: Path) -> None:
    """A failure's log tail holds a traceback, whose paths are those of whoever measured."""
    assert not re.search(r'File \\"/[^"]*/zbench/', journal.read_text(encoding="utf-8"))


def is_elsewhere(record: Record) -> bool:
    """Whether it was measured on a server that was there, which need not say its device."""
    return isinstance(record.trial.engine, ServedEngineConfig) and record.trial.engine.base_url is not None


@pytest.mark.parametrize("journal", JOURNALS, ids=lambda path: str(path.relative_to(REPORTS)))
def test_every_committed_record_is_readable_and_typed(journal: Path) -> None:
    records = read_records(journal)
    assert records
    for record in records:
        assert record.trial.pipeline.steps > 0 and record.measure.max_rounds > 0
        assert record.reference_id and record.baseline_id
        if record.measurement is not None and not is_elsewhere(record):
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
        assert measured.window.queued_s(request) == 0
        assert request.done_s == pytest.approx(request.due_s + r["latency_s"])


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


def test_a_trial_that_failed_for_its_images_keeps_its_requests() -> None:
    record = of_invalid_images(trial(), 2)
    again = Record.from_json(record.to_json())
    assert again == record and again.state == "FAILED" and again.source is None
    assert again.measurement is not None and again.measurement.requests[2].invalid_reasons == ["black_image"]


def test_what_an_older_zbench_called_complete_is_held_to_its_images() -> None:
    whole = complete(trial())
    for why, state in (
        ("non_finite_latents", "FAILED"),
        ("throttled:sw_thermal", "COMPLETE"),
        ("compiled", "COMPLETE"),
    ):
        older = replace(whole, measurement=spoilt(whole.measurement, 0, why=why))
        assert Record.from_json(older.to_json()).state == state


def test_no_other_failure_has_a_measurement() -> None:
    for record in (replace(failed(trial()), measurement=complete(trial()).measurement), failed(trial(), "x")):
        wrong = replace(record, state="COMPLETE") if record.measurement is None else record
        with pytest.raises(RecordError, match="does not fit a measurement that is"):
            Record.from_json(wrong.to_json())


def test_content_differs_where_both_sides_know_it_and_it_is_another() -> None:
    old, new, unknown = Effective(weights_sha256="a"), Effective(weights_sha256="b"), Effective()
    assert new.differs_in_content(old) == "weights"
    assert new.differs_in_content(new) is None and new.differs_in_content(unknown) is None
    assert unknown.differs_in_content(old) is None
    assert Effective(configs_sha256="a").differs_in_content(Effective(configs_sha256="b")) == "configs"


def of_version_2() -> dict[str, Any]:
    data: dict[str, Any] = json.loads(Record.from_json(json.dumps(of_version_1())).to_json())
    return data


REQUEST = ("measurement", "window", "requests", 0)


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("sweep",), 3, "sweep=3: expected str"),
        (("trial_id",), "../../etc", "trial_id='../../etc'"),
        (("reference_id",), "/etc/passwd", "reference_id='/etc/passwd'"),
        (("beside",), [".."], "beside[0]='..'"),
        (("state",), "DONE", "state='DONE'"),
        (("state",), "FAILED", "state=FAILED does not fit a measurement that is there"),
        (("reason",), {"code": "x", "message": "y"}, "state=COMPLETE does not fit a reason that is there"),
        (("source",), "projected", "source=projected: the weakest of measurement.sources is measured"),
        (("misspelt",), 1, "misspelt: no such field"),
        (("schema_version",), "2", "schema_version '2' cannot be upgraded"),
        (("schema_version",), 2.0, "schema_version 2.0 cannot be upgraded"),
        (("schema_version",), True, "schema_version True cannot be upgraded"),
        ((*REQUEST, "latency_s"), -1, "measurement.window.requests[0].latency_s=-1: expected float >= 0.0"),
        ((*REQUEST, "latency_s"), 1e-300, "must be 0 or at least 1e-09 s"),
        ((*REQUEST, "stages_s"), {"denoise": "x"}, "measurement.window.requests[0].stages_s.denoise='x'"),
        ((*REQUEST, "residual_diffs"), {"first": 0.1}, "measurement.window.requests[0].residual_diffs"),
        ((*REQUEST, "cached_steps"), [-1], "measurement.window.requests[0].cached_steps[0]=-1"),
        ((*REQUEST, "seed"), 2**70, "measurement.window.requests[0].seed=1180591620717411303424"),
        (("measurement", "window", "started_at"), "yesterday", "'yesterday'"),
        (("measurement", "window", "started_at"), "9999-12-31T00:00:00", "must lie after 1970"),
        (("measurement", "sources"), {}, "measurement.sources: must be of latency, memory, cached_steps, quality"),
        (
            ("measurement", "noise_floor", 0, "prompt_id"),
            "?",
            "measurement.noise_floor: config.workload has no",
        ),
        (("config", "pipeline", "steps"), "8", "pipeline: steps='8': expected int"),
        (("config", "pipeline", "height"), 17, "pipeline.height=17"),
        (("config", "measure", "min_rounds"), None, "measure: min_rounds=null"),
        (("environment", "devices"), [{"nam": "x"}], "environment.devices[0].name: is missing"),
        (("environment", "versions"), {"torch": 2}, "environment.versions.torch=2"),
        (("environment", "host_memory_bytes"), "8 GiB", "environment.host_memory_bytes='8 GiB'"),
    ],
)
def test_one_wrong_field_is_one_line_that_names_it(path: tuple[Any, ...], value: object, says: str) -> None:
    data = of_version_2()
    node: Any = data
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    with pytest.raises(RecordError) as caught:
        Record.from_json(json.dumps(data))
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_equal_environments_and_config_groups_are_one_object() -> None:
    one, other = (Record.from_json(json.dumps(of_version_2())) for _ in range(2))
    assert one.environment is other.environment and one.trial.pipeline is other.trial.pipeline


def test_what_a_record_of_version_1_does_not_know_of_compiling_has_a_reason() -> None:
    measured = Record.from_json(json.dumps(of_version_1())).measurement
    assert measured is not None and (measured.cold.compile_s, measured.compile_s) == (None, None)
    assert measured.reasons["cold.compile_s"] == "schema_1"
