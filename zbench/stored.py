"""Records that stay in their journals: where the last one of each trial lies, and each read when it is asked for.

So a hundred thousand of them take as much memory as their index. It refuses to leave a bad line unread: what a later
record of the same trial replaced is checked too.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import msgspec

from zbench.errors import RecordError
from zbench.record import Record
from zbench.store import find_run, journal_lines, record_in

KEPT = 256
"""Records that are held once they were read: a small run's all, and the references of a large one."""

TrialKey = tuple[str, str]
"""Sweep and trial id."""


class _Place(NamedTuple):
    """Of a line."""

    journal: Path
    number: int
    offset: int
    length: int


class _Head(msgspec.Struct):
    """What the index needs of a line; the rest of it is skipped unread."""

    sweep: str
    trial_id: str
    label: str


class StoredRecords(Mapping[TrialKey, Record]):
    """The last record of each trial of each sweep of some journals, in order of first appearance."""

    def __init__(self, journals: Sequence[Path]) -> None:
        """Raises RecordError naming file and line of what is no record, two journals that share a sweep's name, and a
        journal that holds none."""
        self.labels: dict[TrialKey, str] = {}
        self.folders: dict[str, Path] = {}
        """Sweep name to run folder."""
        self._places: dict[TrialKey, _Place] = {}
        self._record = lru_cache(maxsize=KEPT)(_read)
        with uncollected():
            for journal in dict.fromkeys(journals):
                self._newest = self._add(journal)

    def _add(self, journal: Path) -> TrialKey:
        decoder = msgspec.json.Decoder(_Head)
        key = None
        for number, offset, line in journal_lines(journal):
            try:
                head = decoder.decode(line)
            except (ValueError, RecursionError):
                record = record_in(journal, number, line)  # which says what is wrong
                head = _Head(record.sweep, record.trial_id, record.label)
            if key is None or head.sweep != key[0]:
                self._refuse_another(head.sweep, journal)
            key = head.sweep, head.trial_id
            if key in self._places:
                self._record(self._places[key])
            self._places[key] = _Place(journal, number, offset, len(line))
            self.labels[key] = head.label
        if key is None:
            raise RecordError(f"{journal} holds no records yet")
        return key

    def _refuse_another(self, sweep: str, journal: Path) -> None:
        """Trials of two journals that share a sweep's name could not be told apart."""
        first = self.folders.setdefault(sweep, journal.parent)
        if first.resolve() != journal.parent.resolve():
            raise RecordError(
                f"{first / journal.name} and {journal} both hold records of the sweep {sweep!r}; report them apart, or "
                "measure one of them under another sweep.name="
            )

    @property
    def newest(self) -> Record:
        """The record that was written last, of the last journal."""
        return self[self._newest]

    def __getitem__(self, key: TrialKey) -> Record:
        return self._record(self._places[key])

    def __iter__(self) -> Iterator[TrialKey]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def _read(place: _Place) -> Record:
    """Raises RecordError, also where the journal has changed since it was indexed."""
    try:
        with open(place.journal, "rb") as file:
            file.seek(place.offset)
            line = file.read(place.length)
    except OSError as error:
        raise RecordError(f"cannot read {place.journal}: {error.strerror}") from error
    return record_in(place.journal, place.number, line)


@contextmanager
def uncollected() -> Iterator[None]:
    """No search for cycles while many records pass: they have none, and it would look at all that is held each time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def open_runs(runs: Sequence[str], runs_dir: Path) -> StoredRecords:
    """The records of the journals that `runs` name (`store.find_run`). Raises StoreError, RecordError."""
    return StoredRecords([find_run(run, runs_dir) for run in runs])
