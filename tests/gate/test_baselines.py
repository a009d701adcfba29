"""A gate baseline comes back whole, for the machine it was made on, or not at all."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from factories import ENVIRONMENT, complete, failed, trial

from zbench.config import DBCacheConfig
from zbench.errors import ConfigError, RecordError
from zbench.gate.baselines import machine_of, read_baseline, save_baseline
from zbench.record import Record

RECORDS = [complete(trial()), complete(trial(DBCacheConfig()), latency_s=0.7, ssim=0.97)]
MACHINE = machine_of(ENVIRONMENT)


def elsewhere(record: Record, **environment: Any) -> Record:
    return replace(record, environment={**record.environment, **environment})


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    path = save_baseline([*RECORDS, failed(trial(DBCacheConfig(max_warmup_steps=1)))], "main", tmp_path)
    for name in ("main", str(path)):
        baseline = read_baseline(name, tmp_path, MACHINE)
        assert list(baseline.records) == RECORDS and baseline.machine == MACHINE


def test_another_revision_of_zbench_is_the_same_machine_and_another_torch_is_not(tmp_path: Path) -> None:
    save_baseline(RECORDS, "main", tmp_path)
    newer = {**ENVIRONMENT, "git_revision": "f" * 40, "git_dirty": True}
    assert read_baseline("main", tmp_path, machine_of(newer)).records
    other = {**ENVIRONMENT, "versions": {**ENVIRONMENT["versions"], "torch": "2.14.0"}}
    with pytest.raises(ConfigError, match="1 kept under that name are of other machines"):
        read_baseline("main", tmp_path, machine_of(other))


def test_an_edited_file_is_refused(tmp_path: Path) -> None:
    path = save_baseline(RECORDS, "main", tmp_path)
    content = json.loads(path.read_text())
    content["records"][0]["measurement"]["window"]["requests"][0]["latency_s"] *= 0.5
    path.write_text(json.dumps(content))
    with pytest.raises(RecordError, match="checksum"):
        read_baseline("main", tmp_path, MACHINE)


def test_a_reformatted_file_is_still_the_same(tmp_path: Path) -> None:
    path = save_baseline(RECORDS, "main", tmp_path)
    path.write_text(json.dumps(json.loads(path.read_text())))
    assert read_baseline("main", tmp_path, MACHINE).records


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": "other"}'])
def test_a_file_that_is_none_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_text(text)
    with pytest.raises(RecordError, match="not a gate baseline"):
        read_baseline(str(path), tmp_path, MACHINE)


def test_there_is_no_baseline_of_nothing_or_of_two_machines(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="nothing to keep"):
        save_baseline([failed(trial())], "main", tmp_path)
    with pytest.raises(RecordError, match="2 machines"):
        save_baseline([RECORDS[0], elsewhere(RECORDS[1], driver="580.1")], "main", tmp_path)
    with pytest.raises(ConfigError, match="none of that name"):
        read_baseline("main", tmp_path, MACHINE)
