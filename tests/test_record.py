"""Records of every zbench there was stay readable, and what is read is typed."""

from dataclasses import replace
from pathlib import Path

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


def test_a_record_that_names_a_baseline_alone_has_it_for_its_reference_too() -> None:
    record = complete(trial())
    older = record.to_json().replace(f'"reference_id":"{record.reference_id}",', "")
    assert "reference_id" not in older
    assert Record.from_json(older) == record


def test_what_nothing_ever_filled_is_left_out_and_what_is_filled_is_refused() -> None:
    line = complete(trial()).to_json()
    older = line.replace('"image_sha256":', '"ranks":[],"queue_s":null,"server_s":null,"image_sha256":')
    older = older.replace('"cold":{', '"cold":{"compile_s":null,')
    assert older != line and Record.from_json(older) == Record.from_json(line)
    with pytest.raises(RecordError, match="queue_s"):
        Record.from_json(line.replace('"image_sha256":', '"queue_s":1.5,"image_sha256":'))


@pytest.mark.parametrize(
    ("change", "told"),
    [({"pipeline": {"name": "x"}}, "preset"), ({"cache": {"method": "teacache"}}, "teacache"), ({"offload": 3}, "int")],
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
