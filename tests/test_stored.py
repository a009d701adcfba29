"""Records that stay in their journals are those that reading them all gives."""

import codecs
from dataclasses import replace
from pathlib import Path

import pytest
from factories import complete, demo_records, failed, trial

from zbench.analysis.view import view_of
from zbench.config import DBCacheConfig
from zbench.errors import RecordError
from zbench.record import Record
from zbench.store import RECORDS
from zbench.stored import StoredRecords, open_runs


def written(folder: Path, *records: Record) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RECORDS).write_text("".join(r.to_json() + "\n" for r in records), encoding="utf-8")
    return folder / RECORDS


def test_a_view_of_a_journal_is_that_of_its_records(tmp_path: Path) -> None:
    records = demo_records()
    again = replace(records[3], label="measured again")
    stored = StoredRecords([written(tmp_path / "demo", *records, again)])
    view, whole = view_of(stored), view_of([*records, again])
    assert view.trials == whole.trials
    assert [r.to_json() for r in view.records] == [r.to_json() for r in whole.records]
    assert [r.to_json() for r in view.journal] == [r.to_json() for r in whole.journal]
    assert stored.newest.label == "measured again" and stored.labels[again.sweep, again.trial_id] == "measured again"


def test_a_record_behind_a_byte_order_mark_and_unwritten_bytes_is_found_again(tmp_path: Path) -> None:
    first, second, *_ = demo_records()
    journal = written(tmp_path / "demo", first, second)
    whole = journal.read_bytes()
    journal.write_bytes(codecs.BOM_UTF8 + whole.replace(b"\n", b"\r\n\0\0\0", 1))
    assert [record.to_json() for record in StoredRecords([journal]).values()] == [first.to_json(), second.to_json()]


def test_only_what_is_asked_for_is_held(tmp_path: Path) -> None:
    stored = StoredRecords([written(tmp_path / "demo", *demo_records())])
    key = next(iter(stored))
    assert stored[key] is stored[key], "a small run is read once"
    few = view_of(stored).only({key})
    assert [row.key for row in few.trials] == [key] and [r.trial_id for r in few.journal] == [key[1]]


def test_a_line_that_a_later_one_replaced_is_checked_too(tmp_path: Path) -> None:
    old, new = failed(trial()), complete(trial())
    journal = written(tmp_path / "run", new)
    journal.write_text(old.to_json().replace('"FAILED"', '"LOST"') + "\n" + new.to_json() + "\n", encoding="utf-8")
    with pytest.raises(RecordError, match=r"line 1: .*state='LOST'"):
        StoredRecords([journal])


def test_a_bad_line_is_named_with_its_number_and_field(tmp_path: Path) -> None:
    good, bad = complete(trial()), complete(trial(DBCacheConfig()))
    journal = written(tmp_path / "run", good, bad)
    text = journal.read_text(encoding="utf-8")
    at = text.rindex('"ssim"')
    journal.write_text(text[:at] + text[at:].replace('"ssim":1.0', '"ssim":"high"', 1), encoding="utf-8")
    with pytest.raises(RecordError, match=r"records\.jsonl, line 2: .*measurement\.quality\[1\]\.ssim='high'"):
        view_of(StoredRecords([journal]))


def test_a_journal_without_a_record_is_said(tmp_path: Path) -> None:
    journal = written(tmp_path / "run")
    with pytest.raises(RecordError, match="holds no records yet"):
        open_runs([str(journal)], tmp_path)


def test_a_journal_that_went_away_is_one_error(tmp_path: Path) -> None:
    journal = written(tmp_path / "run", *demo_records())
    stored = StoredRecords([journal])
    journal.unlink()
    with pytest.raises(RecordError, match="cannot read"):
        view_of(stored)
