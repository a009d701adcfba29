"""The journal of a sweep: an append-only `records.jsonl`, one fsynced line a trial, artifacts beside it.

One process at a time writes a run folder; the lock is the kernel's, so it cannot outlive its holder.
It refuses to rewrite a finished line: the only bytes ever removed are those of a torn last line.
"""

import contextlib
import fcntl
import os
import socket
from collections.abc import Callable, Iterable, Iterator
from io import FileIO
from pathlib import Path
from types import TracebackType

from zbench.decode import plain
from zbench.errors import RecordError, StoreError
from zbench.record import Record

RECORDS = "records.jsonl"
ARTIFACTS = "artifacts"
RECORD_BEGINS = b'{"sweep":'
"""How `Record.to_json` begins every line."""


class Store:
    """A run folder held for writing. Use as a context manager; reading needs no Store (`read_records`).

    `latest` is the last record of each trial by its id, kept as records are appended.
    """

    def __init__(self, folder: Path, notice: Callable[[str], None]) -> None:
        """`notice` is told in a sentence when a torn last line was repaired.

        Raises StoreError if the folder cannot be written or another process holds it, RecordError if
        its journal holds a line that is not a record.
        """
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = open(folder / "lock", "a+", encoding="utf-8")  # noqa: SIM115 (held until close)
        except OSError as error:
            raise StoreError(
                f"cannot write run folder {folder}: {error.strerror}; choose another with sweep.runs_dir="
            ) from error
        self._hold()
        try:
            self.journal = folder / RECORDS
            torn = _repair(self.journal)
            if torn:
                notice(
                    f"{self.journal}: the last line was torn ({torn} bytes) and has been removed; its trial runs again"
                )
            self.latest = latest(read_records(self.journal) if self.journal.exists() else [])
            self._out = open(self.journal, "ab", buffering=0)  # noqa: SIM115 (held until close)
        except OSError as error:
            self._lock.close()
            raise StoreError(
                f"cannot write {self.journal}: {error.strerror}; choose another with sweep.runs_dir="
            ) from error
        except BaseException:
            self._lock.close()
            raise

    def _hold(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.seek(0)
            holder = self._lock.read().strip() or "another process"
            self._lock.close()
            raise StoreError(
                f"run folder {self.folder} is in use by {holder}; wait for it, or choose another name with sweep.name="
            ) from error
        self._lock.truncate(0)
        self._lock.write(f"process {os.getpid()} on {socket.gethostname()}")
        self._lock.flush()

    def append(self, record: Record) -> None:
        """Write one line and wait until it is on disk. Raises StoreError; what was finished stays."""
        append_line(self._out, record.to_json())
        self.latest[record.trial_id] = record

    def artifacts(self, trial_id: str) -> Path:
        """Folder for a trial's images and latents; made by whoever writes there."""
        return artifacts_folder(self.folder, trial_id)

    def close(self) -> None:
        """Let go of the folder."""
        try:
            self._out.close()
        finally:
            self._lock.close()

    def __enter__(self) -> "Store":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def append_line(journal: FileIO, text: str) -> None:
    """Write one line to an unbuffered file and wait until it is on disk. Raises StoreError; whole lines stay."""
    line = memoryview(text.encode() + b"\n")
    end = journal.tell()
    try:
        while line:
            line = line[journal.write(line) :]
        os.fsync(journal.fileno())
    except OSError as error:
        with contextlib.suppress(OSError):
            journal.truncate(end)  # half a line must not stand before the next one
        raise StoreError(
            f"cannot append to {journal.name!s}: {error.strerror}; what was finished is kept, free some space first"
        ) from error


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
            for ended in file:
                number += 1
                line = ended.rstrip(b"\n")
                if line.strip() and (ended.endswith(b"\n") or not _is_torn(line)):
                    yield number, offset, line
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


def _repair(journal: Path) -> int:
    """Make the journal end with a line feed; returns the number of torn bytes cut off."""
    if not journal.exists():
        return 0
    with open(journal, "r+b") as file:
        data = file.read()
        if not data or data.endswith(b"\n"):
            return 0
        start = data.rfind(b"\n") + 1
        read_records(journal)  # a foreign file is refused before a byte of it is touched
        if not _is_torn(data[start:]):
            file.write(b"\n")  # whole but for its line feed: nothing was lost
            return 0
        file.truncate(start)
        os.fsync(file.fileno())
        return len(data) - start
