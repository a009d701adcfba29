"""Records from when a forward's graph was one flag: they are read, mean the same, and keep their ids."""

import json
from collections import Counter
from pathlib import Path

import pytest
from factories import trial

from zbench.composition.aliases import meant
from zbench.config import ComputeConfig
from zbench.record import Record
from zbench.trial import Trial

REPORTS = Path(__file__).parents[1] / "reports"


def of_before() -> list[str]:
    """Committed lines that know `cuda_graph`."""
    lines = [line for path in sorted(REPORTS.rglob("records.jsonl")) for line in path.read_text().splitlines()]
    return [line for line in lines if '"cuda_graph"' in line]


def test_a_committed_record_is_read_and_captured_what_it_says() -> None:
    asked: Counter[str] = Counter()
    for line in of_before():
        raw, record = json.loads(line), Record.from_json(line)
        flag = raw["config"]["compute"].get("cuda_graph", False)
        assert record.trial.compute.graphs == ("all" if flag else "none")
        assert record.trial.trial_id == raw["trial_id"] == record.trial_id, record.label
        took = None if record.measurement is None else record.measurement.effective.graphs
        told = ((raw["measurement"] or {}).get("effective") or {}).get("cuda_graph")
        assert took == (None if told is None else "all" if told else "none")
        asked[record.trial.compute.graphs] += 1
    assert asked["all"] > 10 and asked["none"] > 10


def test_a_graph_of_all_is_the_trial_that_the_flag_was() -> None:
    now = trial(compute=ComputeConfig(device="cuda", compile=True, graphs="all"))
    written = now.to_dict()
    before = {**written, "compute": {**written["compute"], "cuda_graph": True}}
    del before["compute"]["graphs"]
    assert Trial.from_dict(before) == now and Trial.from_dict(before).trial_id == now.trial_id
    others = [trial(compute=ComputeConfig(device="cuda", compile=True, graphs=g)) for g in ("none", "stages", "auto")]
    assert len({now.trial_id, *(other.trial_id for other in others)}) == 4
    assert "graphs" not in others[0].to_dict()["compute"], "trials that capture nothing keep their ids"


def test_what_was_no_flag_is_refused() -> None:
    written = trial().to_dict()
    written["compute"]["cuda_graph"] = "yes"
    with pytest.raises(ValueError, match=r"compute\.cuda_graph='yes': must be true or false"):
        Trial.from_dict(written)


def test_the_flag_as_it_was_typed_leads_to_the_new_key() -> None:
    assert meant("cuda_graph") == "compute.graphs=all"
