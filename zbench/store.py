"""The journal of a sweep: an append-only `records.jsonl`, one fsynced line a trial, artifacts beside it.

One process at a time writes a run folder. The locks are the kernel's, so they cannot outlive their holder, and each is
on a file whose path and descriptor are one inode: who removes or replaces a file while it is written is found out at
the next append. It refuses to rewrite a finished line: the only bytes ever removed are those of a torn end, and a copy
of them is kept beside the journal.
"""

import contextlib
import fcntl
import json
import os
import re
import socket
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from io import FileIO
from itertools import count
from pathlib import Path
from types import TracebackType

from zbench.errors import RecordError, StoreError, cannot_write
from zbench.record import Record

RECORDS = "records.jsonl"
LOCK = "lock"
RECORD_BEGINS = b'{"sweep":'
"""How `Record.to_json` begins every line."""

LINE_ENDS = b"\r\n"
"""Editors and git may have changed a line feed to either or both; within a line JSON escapes them."""

UNWRITTEN = b"\0"
"""What a file system puts where it made room for a line and lost power before it had the line."""

TRIES = 20
"""How often a file may be replaced between being opened and being locked."""

ELSEWHERE = "choose another with sweep.runs_dir="


class HeldFile:
    """A file to append to that this process alone holds: path and descriptor are one inode, and stay so."""

    def __init__(self, path: Path) -> None:
        """Open it, made where it is not there. Raises BlockingIOError where another holds it, StoreError else."""
        self.path = path
        try:
            for _ in range(TRIES):
                self.file = FileIO(path, "a+")
                if not stat.S_ISREG(os.fstat(self.file.fileno()).st_mode):
                    self.file.close()
                    raise StoreError(f"{path} is not a regular file; remove it, or {ELSEWHERE}")
                try:
                    fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BaseException:
                    self.file.close()
                    raise
                if self.moved() is None:  # nobody replaced it before it was locked
                    self._end = os.fstat(self.file.fileno()).st_size
                    return
                self.file.close()
        except BlockingIOError:
            raise
        except OSError as error:
            raise StoreError(cannot_write(str(path), error, path.parent, otherwise=ELSEWHERE)) from error
        raise StoreError(f"{path} is replaced again and again by another program; end that, or {ELSEWHERE}")

    def moved(self) -> str | None:
        """What happened to the file at its path; None where it is still this one, and can be read.

        It is opened for that: a shared file system may answer `stat` from memory, but not `open`.
        """
        try:
            there = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (FileNotFoundError, NotADirectoryError):
            return "was removed or renamed"
        except OSError as error:
            return f"cannot be read any more ({error.strerror})"
        try:
            same = os.path.samestat(os.fstat(there), os.fstat(self.file.fileno()))
        except OSError as error:
            return f"cannot be reached any more ({error.strerror})"
        finally:
            os.close(there)
        return None if same else "was replaced"

    def changed(self) -> str | None:
        """What others did to the file: as `moved`, or to its length; None where they did nothing."""
        moved = self.moved()
        if moved is not None:
            return moved
        return None if os.fstat(self.file.fileno()).st_size == self._end else "was changed by another program"

    def append(self, text: str) -> None:
        """Write one line and wait until it is on disk. Raises StoreError; whole lines stay."""
        append_line(self.file, text)
        self._end = os.fstat(self.file.fileno()).st_size

    def cut(self, length: int) -> None:
        """Keep the first `length` bytes. Raises OSError."""
        self.file.truncate(length)
        os.fsync(self.file.fileno())
        self._end = length

    def close(self) -> None:
        """Let go of it."""
        self.file.close()


class Store:
    """A run folder held for writing. Use as a context manager; reading needs no Store (`read_records`).

    `latest` is the last record of each trial by its id, kept as records are appended.
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
            self.latest = latest(read_records(self.journal))  # a foreign file is refused before a byte is touched
            self._mend_end()
            _sync_folder(folder)
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
            kept = _keep(line.encode() + b"\n", _elsewhere(self.journal))
            way_out = (
                "; its trial runs again"
                if kept is None
                else f"; the line is kept in {kept}: append it, or its trial runs again"
            )
            raise StoreError(f"{error}{way_out}") from error
        self.latest[record.trial_id] = record

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
        kept = _keep(data, [self.journal], _beside(self.journal, "rescued"), _elsewhere(self.journal))
        if kept is None:
            return f"its {len(records)} trials could not be saved anywhere else"
        go_on = "the same command goes on" if kept == self.journal else f"move it to {self.journal} to go on"
        return f"its {len(records)} trials are in {kept}; {go_on}"

    def _mend_end(self) -> None:
        """Make the journal end with a line end; what is cut off is kept beside it. Raises OSError, StoreError."""
        start, end = _last_line(self._held.file)
        line = end.rstrip(UNWRITTEN)
        if not end:
            return
        whole = bool(line) and not _is_torn(line)
        cut = end[len(line) :] if whole else end
        if cut:
            kept = _keep(cut, _beside(self.journal, "torn"))
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


def append_line(journal: FileIO, text: str) -> None:
    """Write one line to an unbuffered file and wait until it is on disk. Raises StoreError; whole lines stay."""
    data = text.encode() + b"\n"
    line = memoryview(data)
    end = None
    try:
        end = os.fstat(journal.fileno()).st_size
        while line:
            line = line[journal.write(line) :]
        os.fsync(journal.fileno())
    except OSError as error:
        with contextlib.suppress(OSError):
            if end is not None:
                journal.truncate(end)  # half a line must not stand before the next one
        told = cannot_write(str(journal.name), error, Path(str(journal.name)).parent, len(data))
        raise StoreError(f"{told.replace('cannot write', 'cannot append to', 1)}; what was finished is kept") from error


def write_whole(path: Path, data: bytes, otherwise: str = "") -> None:
    """Write a file that appears whole or not at all, its folder made where it is not there.

    Raises StoreError that names the file and the space it needs, or `otherwise` as the way out.
    """
    try:
        replace_file(path, data)
    except OSError as error:
        raise StoreError(cannot_write(str(path), error, path.parent, len(data), otherwise)) from error


def replace_file(path: Path, data: bytes) -> None:
    """As `write_whole`. Raises OSError; nothing stays of what could not be written whole."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        partial.write_bytes(data)
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink()  # it would take the space that is short
        raise


def _beside(path: Path, kind: str) -> Iterator[Path]:
    """Names that may be free: `records.jsonl.torn-1` and so on."""
    return (path.with_name(f"{path.name}.{kind}-{n}") for n in count(1))


def _elsewhere(path: Path) -> Iterator[Path]:
    """Names that may be free in the folder for temporary files, which is mostly on another disk."""
    name = re.sub(r"\W+", "_", f"zbench_{path.parent.name}")
    return (Path(tempfile.gettempdir()) / f"{name}-{os.getpid()}-{n}.jsonl" for n in count(1))


def _keep(data: bytes, *places: Iterable[Path]) -> Path | None:
    """Write a file of its own at the first name that is free, of the first of `places` that can be written."""
    for names in places:
        for path in names:
            try:
                with open(path, "xb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
            except FileExistsError:
                continue
            except OSError:
                with contextlib.suppress(OSError):
                    path.unlink()
                break
            return path
    return None


def _sync_folder(folder: Path) -> None:
    """Wait until a new journal's name is on disk too; not every file system can be asked to."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def artifacts_folder(run_folder: Path, trial_id: str) -> Path:
    """Where a trial's images and latents lie."""
    return run_folder / "artifacts" / trial_id


def read_records(journal: Path) -> list[Record]:
    """Every record of a journal, in order. A torn last line is left out; any other bad line raises RecordError."""
    try:
        lines = journal.read_bytes().splitlines(keepends=True)
    except OSError as error:
        raise RecordError(f"cannot read {journal}: {error.strerror}") from error
    records = []
    for number, ended in enumerate(lines, start=1):
        line = ended.strip(UNWRITTEN + LINE_ENDS)
        if not line.strip() or (not ended.endswith((b"\n", b"\r")) and _is_torn(line)):
            continue
        try:
            records.append(Record.from_json(line.decode("utf-8")))
        except UnicodeDecodeError as error:
            raise RecordError(f"{journal}, line {number}: not a zbench journal: {error}") from error
        except RecordError as error:
            raise RecordError(f"{journal}, line {number}: {error}") from error
    return records


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
        json.loads(line)
    except ValueError:
        return False
    return True


def _last_line(file: FileIO, block: int = 1 << 16) -> tuple[int, bytes]:
    """Where the bytes after the last line end begin, and these bytes."""
    start = os.fstat(file.fileno()).st_size
    end = b""
    while start > 0:
        size = min(block, start)
        part = os.pread(file.fileno(), size, start - size)
        found = max(part.rfind(b"\n"), part.rfind(b"\r"))
        if found >= 0:
            return start - size + found + 1, part[found + 1 :] + end
        start, end = start - size, part + end
    return 0, end


def read_run(run: str, runs_dir: Path) -> tuple[Path, list[Record]]:
    """The journal that RUN names and its records; RecordError if it holds none."""
    journal = find_run(run, runs_dir)
    records = read_records(journal)
    if not records:
        raise RecordError(f"{journal} holds no records yet")
    return journal, records
