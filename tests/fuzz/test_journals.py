"""Damaged journals: reading says one line or gives records, and mending loses no whole one."""

import random
from pathlib import Path

import pytest
from damage import SCALE
from factories import complete, demo_records, failed, trial

from zbench.errors import ZbenchError
from zbench.record import Record
from zbench.store import RECORDS, Store, read_records
from zbench.stored import StoredRecords

JOURNALS = int(150 * SCALE)
LINES = [record.to_json().encode() for record in [*demo_records()[:3], complete(trial()), failed(trial())]]
NOISE = (
    b"\0",
    b"\0" * 4096,
    b"\r",
    b"\r\n",
    b"\n\n",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"{",
    b"}",
    b"]",
    b"null\n",
    b'{"a":1}\n',
)


def spoilt(chance: random.Random) -> bytes:
    """A journal of some records, to which one to three things have happened."""
    data = b"".join(line + b"\n" for line in chance.sample(LINES, chance.randint(1, len(LINES))))
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(data) + 1)
        kind = chance.choice(["torn", "cut", "noise", "splice", "byte", "repeat", "tail", "crlf"])
        if kind == "torn":
            data = data[:at]
        elif kind == "cut":
            data = data[:at] + data[at + chance.randint(1, 2000) :]
        elif kind == "noise":
            data = data[:at] + chance.choice(NOISE) + data[at:]
        elif kind == "splice":
            data = data[:at] + chance.choice(LINES) + data[at:]
        elif kind == "byte" and data:
            at = min(at, len(data) - 1)
            data = data[:at] + bytes([chance.randrange(256)]) + data[at + 1 :]
        elif kind == "repeat":
            data += data[max(0, at - 50) :]
        elif kind == "tail":
            data += chance.choice(NOISE)
        elif kind == "crlf":
            data = data.replace(b"\n", b"\r\n")
    return data


def whole_lines(data: bytes) -> list[Record]:
    """The records that stand on lines of their own, whatever lies between them."""
    found = []
    for line in data.replace(b"\0", b"\n").splitlines():
        try:
            found.append(Record.from_json(line))
        except ZbenchError:
            continue
    return found


def test_a_damaged_journal_is_read_or_refused_in_one_line(tmp_path: Path) -> None:
    read = 0
    for seed in range(JOURNALS):
        data = spoilt(random.Random(seed))
        journal = tmp_path / f"{seed}" / RECORDS
        journal.parent.mkdir()
        journal.write_bytes(data)
        for reader in (read_records, lambda path: StoredRecords([path]).values()):
            try:
                records = list(reader(journal))
            except ZbenchError as error:
                assert "\n" not in str(error) and str(journal) in str(error), f"seed {seed}"
            except Exception as error:
                raise AssertionError(f"seed {seed}") from error
            else:
                read += 1
                known = {record.to_json() for record in whole_lines(data)}
                assert {record.to_json() for record in records} <= known, f"seed {seed}: something was invented"
    assert read, "some damage is that of a crash, which is mended"


def test_mending_loses_no_whole_record(tmp_path: Path) -> None:
    for seed in range(JOURNALS):
        data = spoilt(random.Random(seed))
        folder = tmp_path / f"{seed}"
        folder.mkdir()
        (folder / RECORDS).write_bytes(data)
        try:
            with Store(folder, lambda text: None) as store:
                store.append(failed(trial()))
        except ZbenchError:
            assert (folder / RECORDS).read_bytes() == data, f"seed {seed}: refused, and touched all the same"
            continue
        except Exception as error:
            raise AssertionError(f"seed {seed}") from error
        kept = [record.to_json() for record in read_records(folder / RECORDS)]
        assert kept == [record.to_json() for record in [*whole_lines(data), failed(trial())]], f"seed {seed}"


@pytest.mark.parametrize("line", LINES[:1])
def test_every_beginning_of_a_record_is_a_torn_line(tmp_path: Path, line: bytes) -> None:
    journal = tmp_path / RECORDS
    for length in [*range(12), *range(12, len(line), 97)]:
        journal.write_bytes(LINES[1] + b"\n" + line[:length])
        assert len(read_records(journal)) == 1 and len(StoredRecords([journal])) == 1, length
