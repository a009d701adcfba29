"""The journal of a sweep: an append-only `records.jsonl`, one fsynced line a trial, artifacts beside it.

One process at a time writes a run folder. The locks are the kernel's, so they cannot outlive their holder, and each is
on a file whose path and descriptor are one inode: who removes or replaces a file while it is written is found out at
the next append. It refuses to rewrite a finished line: the only bytes ever removed are those of a torn end, and a copy
of them is kept beside the journal.
"""

import codecs
import contextlib
import os
import socket
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType

from zbench.decode import plain
from zbench.errors import RecordError, StoreError, cannot_write
from zbench.files import ELSEWHERE, HeldFile, beside, elsewhere, keep, last_line, sync_folder
from zbench.record import Record

RECORDS = "records.jsonl"
LOCK = "lock"
ARTIFACTS = "artifacts"
RECORD_BEGINS = b'{"sweep":'
"""How `Record.to_json` begins every line."""

LINE_ENDS = b"\r\n"
"""Editors and git may have changed a line feed to either or both; within a line JSON escapes them."""

UNWRITTEN = b"\0"
"""What a file system puts where it made room for a line and lost power before it had the line."""


AT_HAND = 256
"""Records that a sweep holds as they are: all of a small one."""


class KeptRecords(Mapping[str, Record]):
    """The last record of each trial by its id, in order of first appearance: those that were wanted lately, and of the
    others the line, compressed, which is a twentieth of it. So a sweep of ten thousand holds as much as one of a
    thousand, and can still write its journal anew where somebody removed it.
    """

    def __init__(self) -> None:
        self._lines: dict[str, bytes | None] = {}  # None: it is at hand alone
        self._at_hand: OrderedDict[str, Record] = OrderedDict()

    def keep(self, record: Record) -> None:
        """In place of an earlier one of its trial."""
        self._lines[record.trial_id] = None
        self._have_at_hand(record)

    def __getitem__(self, trial_id: str) -> Record:
        record = self._at_hand.get(trial_id)
        if record is None:
            line = self._lines[trial_id]
            assert line is not None, "what is not at hand was written down"
            record = Record.from_json(zlib.decompress(line))
        self._have_at_hand(record)
        return record

    def __iter__(self) -> Iterator[str]:
        return iter(self._lines)

    def __len__(self) -> int:
        return len(self._lines)

    def _have_at_hand(self, record: Record) -> None:
        self._at_hand[record.trial_id] = record
        self._at_hand.move_to_end(record.trial_id)
        if len(self._at_hand) > AT_HAND:
            trial_id, oldest = self._at_hand.popitem(last=False)
            if self._lines[trial_id] is None:
                self._lines[trial_id] = zlib.compress(oldest.to_json().encode())


class Store:
    """A run folder held for writing. Use as a context manager; reading needs no Store (`read_records`).

    `latest` is the last record of each trial by its id, kept as records are appended; `appended` the ids of those that
    this store has a record of its own of.
    """

    def __init__(self, folder: Path, notice: Callable[[str], None]) -> None:
        """`notice` is told in a sentence when a torn end was mended, or a lock put back.

        Raises StoreError if the folder cannot be written or another process holds it, RecordError if
        its journal holds a line that is not a record.
        """
        self.folder, self._notice = folder, notice
        self.journal = folder / RECORDS
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(cannot_write(f"run folder {folder}", error, folder, otherwise=ELSEWHERE)) from error
        self._lock = self._hold_lock()
        try:
            self._held = HeldFile(self.journal)
        except BaseException as error:
            self._lock.close()
            if isinstance(error, BlockingIOError):  # its holder's lock file was removed
                raise self._in_use("another process, whose lock file was removed") from error
            raise
        try:
            self.latest, self.appended = KeptRecords(), set[str]()
            for number, _, line in journal_lines(self.journal):
                self.latest.keep(
                    record_in(self.journal, number, line)
                )  # a foreign file is refused before it is touched
            self._mend_end()
            sync_folder(folder)
        except BaseException as error:
            self.close()
            if isinstance(error, OSError):
                told = cannot_write(str(self.journal), error, folder, otherwise=ELSEWHERE)
                raise StoreError(told) from error
            raise

    def _hold_lock(self) -> HeldFile:
        """The folder's lock, which names its holder."""
        path = self.folder / LOCK
        try:
            lock = HeldFile(path)
        except BlockingIOError as error:
            holder = "another process"
            with contextlib.suppress(OSError):
                holder = path.read_text(encoding="utf-8", errors="replace").strip() or holder
            raise self._in_use(holder) from error
        try:
            lock.cut(0)
            lock.append(f"process {os.getpid()} on {socket.gethostname()}")
        except BaseException as error:
            lock.close()
            if isinstance(error, OSError):
                raise StoreError(cannot_write(str(path), error, self.folder, otherwise=ELSEWHERE)) from error
            raise
        return lock

    def _in_use(self, holder: str) -> StoreError:
        way_out = "wait for it, or choose another name with sweep.name="
        return StoreError(f"run folder {self.folder} is in use by {holder}; {way_out}")

    def append(self, record: Record) -> None:
        """Write one line and wait until it is on disk. Raises StoreError; what was finished stays."""
        line = record.to_json()
        self.check(record)
        try:
            self._held.append(line)
        except StoreError as error:
            kept = keep(line.encode() + b"\n", elsewhere(self.journal))
            way_out = (
                "; its trial runs again"
                if kept is None
                else f"; the line is kept in {kept}: append it, or its trial runs again"
            )
            raise StoreError(f"{error}{way_out}") from error
        self.latest.keep(record)
        self.appended.add(record.trial_id)

    def check(self, unsaved: Record | None = None) -> None:
        """Raise StoreError where somebody removed, replaced or changed the journal; what it held is saved first.

        With `unsaved`, which was to be appended. A lock that was removed is put back.
        """
        problem = self._held.changed()
        if problem is None and self._lock.moved() is not None:
            try:
                lock = self._hold_lock()
            except StoreError as error:
                problem = f"cannot be written any more: its lock was removed, and {error}"
            else:
                self._lock.close()
                self._lock = lock
                self._notice(f"{lock.path} was removed while this sweep holds it; it was put back")
        if problem is not None:
            records = {**self.latest, **({unsaved.trial_id: unsaved} if unsaved else {})}
            raise StoreError(f"{self.journal} {problem}, so the sweep stops; {self._rescued(records)}")

    def _rescued(self, records: dict[str, Record]) -> str:
        """Write them where the journal was, or beside it; says where they are now."""
        if not records:
            return "it held nothing yet"
        data = b"".join(record.to_json().encode() + b"\n" for record in records.values())
        with contextlib.suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
        kept = keep(data, [self.journal], beside(self.journal, "rescued"), elsewhere(self.journal))
        if kept is None:
            return f"its {len(records)} trials could not be saved anywhere else"
        go_on = "the same command goes on" if kept == self.journal else f"move it to {self.journal} to go on"
        return f"its {len(records)} trials are in {kept}; {go_on}"

    def _mend_end(self) -> None:
        """Make the journal end with a line end; what is cut off is kept beside it. Raises OSError, StoreError."""
        start, end = last_line(self._held.file)
        line = end.rstrip(UNWRITTEN)
        if not end:
            return
        whole = bool(line) and not _is_torn(line)
        cut = end[len(line) :] if whole else end
        if cut:
            kept = keep(cut, beside(self.journal, "torn"))
            if kept is None:
                raise StoreError(f"cannot keep a copy of the torn end of {self.journal} beside it; free some space")
            self._held.cut(start + len(end) - len(cut))
            what = "the last line was torn" if line and not whole else "its end was never written"
            again = "" if whole else "; its trial runs again"
            self._notice(f"{self.journal}: {what} ({len(cut)} bytes) and has been removed, a copy is in {kept}{again}")
        if whole:
            self._held.append("")  # whole but for its line feed: nothing was lost

    def artifacts(self, trial_id: str) -> Path:
        """Folder for a trial's images and latents; made by whoever writes there."""
        return artifacts_folder(self.folder, trial_id)

    def close(self) -> None:
        """Let go of the folder."""
        try:
            self._held.close()
        finally:
            self._lock.close()

    def __enter__(self) -> "Store":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def artifacts_folder(run_folder: Path, trial_id: str) -> Path:
    """Where a trial's images and latents lie."""
    return run_folder / ARTIFACTS / trial_id


def journal_lines(journal: Path) -> Iterator[tuple[int, int, bytes]]:
    """Number, offset in bytes, and bytes of each line that holds something, in order; a torn last one is left out.

    Raises RecordError for a file that cannot be read.
    """
    number = offset = 0
    try:
        with open(journal, "rb") as file:
            for fed in file:
                for ended in fed.splitlines(keepends=True) if b"\r" in fed else (fed,):
                    number += 1
                    text = ended.removeprefix(codecs.BOM_UTF8) if number == 1 else ended
                    begins = offset + len(ended) - len(text.lstrip(UNWRITTEN))
                    line = text.strip(UNWRITTEN + LINE_ENDS)
                    if line.strip() and (ended.endswith((b"\n", b"\r")) or not _is_torn(line)):
                        yield number, begins, line
                    offset += len(ended)
    except OSError as error:
        raise RecordError(f"cannot read {journal}: {error.strerror}") from error


def record_in(journal: Path, number: int, line: bytes) -> Record:
    """The record in a line of a journal. Raises RecordError that names both."""
    try:
        return Record.from_json(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise RecordError(f"{journal}, line {number}: not a zbench journal: {error}") from error
    except RecordError as error:
        raise RecordError(f"{journal}, line {number}: {error}") from error


def read_records(journal: Path) -> list[Record]:
    """Every record of a journal, in order. A torn last line is left out; any other bad line raises RecordError."""
    return [record_in(journal, number, line) for number, _, line in journal_lines(journal)]


def latest_records(records: Iterable[Record]) -> list[Record]:
    """The last record of each trial of each sweep, in order of first appearance."""
    return list({(record.sweep, record.trial_id): record for record in records}.values())


def latest(records: Iterable[Record]) -> dict[str, Record]:
    """`latest_records` of one sweep by trial id."""
    return {record.trial_id: record for record in latest_records(records)}


def find_run(run: str, runs_dir: Path) -> Path:
    """The journal that RUN names: a sweep's name under `runs_dir`, a run folder, or a records.jsonl.

    Raises StoreError naming the runs that exist.
    """
    candidates = [Path(run), Path(run) / RECORDS, runs_dir / run / RECORDS]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    known = sorted(p.parent.name for p in runs_dir.glob(f"*/{RECORDS}"))
    have = f"{runs_dir} has: {', '.join(known)}" if known else f"{runs_dir} has no runs yet; make one with zbench sweep"
    raise StoreError(f"no run {run!r}: not a folder with {RECORDS}, not a journal, not a sweep's name; {have}")


def _is_torn(line: bytes) -> bool:
    """Whether a line without a line feed is the beginning of a record; a foreign file's last line is not."""
    return not _is_json(line) and (line.startswith(RECORD_BEGINS) or RECORD_BEGINS.startswith(line))


def _is_json(line: bytes) -> bool:
    try:
        plain(line)
    except ValueError:
        return False
    return True
