"""Files that others may be at: held by one process, appended to line by line, whole or not there at all.

What cannot be written is one line that says what is needed. It knows no format.
"""

import contextlib
import fcntl
import os
import re
import stat
import tempfile
from collections.abc import Iterable, Iterator
from io import FileIO
from itertools import count
from pathlib import Path

from zbench.errors import StoreError, cannot_write

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


def beside(path: Path, kind: str) -> Iterator[Path]:
    """Names that may be free: `records.jsonl.torn-1` and so on."""
    return (path.with_name(f"{path.name}.{kind}-{n}") for n in count(1))


def elsewhere(path: Path) -> Iterator[Path]:
    """Names that may be free in the folder for temporary files, which is mostly on another disk."""
    name = re.sub(r"\W+", "_", f"zbench_{path.parent.name}")
    return (Path(tempfile.gettempdir()) / f"{name}-{os.getpid()}-{n}.jsonl" for n in count(1))


def keep(data: bytes, *places: Iterable[Path]) -> Path | None:
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


def sync_folder(folder: Path) -> None:
    """Wait until a new journal's name is on disk too; not every file system can be asked to."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def last_line(file: FileIO, block: int = 1 << 16) -> tuple[int, bytes]:
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
