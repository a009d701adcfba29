"""Messages between a pool and a node through a folder that both see, where no connection joins the two.

Each direction has a journal of lines, with one writer; whoever reads keeps its place in it. A line counts once it is
whole. What is large lies in a file of its own, which is there before its line and is removed by whoever has read it,
when that looks again. So what a reader had not dealt with when it was killed is there yet (`left_in`). A journal is
there before anybody reads it and is opened anew for each look: a shared file system may answer from memory whether a
file is there, but shows what was written to one that is.

Each side also rewrites a file of its own now and then. Who does not see that change any more takes the other for gone.
It is the change that counts, and no time, for the clocks of two machines differ.
"""

import json
import os
import threading
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from zbench.decode import plain
from zbench.files import sync_folder

INLINE_BYTES = 4096
"""A message up to this is in its line."""

MOST_READ = 1 << 22
"""Bytes of lines that are read at once."""

LONGEST_LOOK_S = 5.0
"""Who listens looks some times a second. More between two looks was no silence: this process was stopped."""


class SpoolWriter:
    """One direction, from its writer's side."""

    def __init__(self, folder: Path) -> None:
        """Its journal and its files are in `folder`. Raises OSError."""
        self._folder, self._sent, self._lock = folder, 0, threading.Lock()
        self._journal = opened(folder)

    def send(self, message: bytes) -> None:
        """Append one, and wait until it is on disk; from any thread. Raises OSError."""
        with self._lock:
            self._sent += 1
            if len(message) <= INLINE_BYTES:
                line = {"inline": b64encode(message).decode()}
            else:
                name = f"{os.getpid()}-{self._sent}"
                _written(self._folder / name, message)
                line = {"file": name}
            data = memoryview(f"{json.dumps(line)}\n".encode())
            while data:
                data = data[os.write(self._journal, data) :]
            os.fsync(self._journal)

    def close(self) -> None:
        """No more is sent."""
        with self._lock:
            os.close(self._journal)


class SpoolReader:
    """One direction, from its reader's side."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._read = folder, 0
        self._dealt_with: list[Path] = []  # once somebody looks again

    def received(self) -> Iterator[bytes]:
        """What came since the last time, in order. Asking again says that the earlier messages are dealt with. Raises
        OSError for a journal that is not there, ValueError for a line that is none."""
        self.deal_with_all()
        with open(journal(self._folder), "rb") as file:
            file.seek(self._read)
            data = file.read(MOST_READ)
        for line in data[: data.rfind(b"\n") + 1].splitlines(keepends=True):
            message, path = _message(self._folder, line)
            self._read += len(line)
            self._dealt_with += [] if path is None else [path]
            yield message

    def deal_with_all(self) -> None:
        """Remove the files of all messages that were received."""
        while self._dealt_with:
            with suppress(OSError):
                self._dealt_with.pop().unlink()


def left_in(folder: Path) -> Iterator[bytes]:
    """The messages of a direction, but those in files that are gone; whoever is to read them is gone too."""
    try:
        lines = journal(folder).read_bytes().splitlines(keepends=True)
    except OSError:
        return
    for line in lines:
        try:
            message, _ = _message(folder, line)
        except (OSError, ValueError):
            continue
        yield message


def _message(folder: Path, line: bytes) -> tuple[bytes, Path | None]:
    """What a line of a journal holds, and the file that it lies in. Raises as `SpoolReader.received`."""
    match plain(line):
        case {"inline": str(text)}:
            return b64decode(text, validate=True), None
        case {"file": str(name)} if "/" not in name:
            return (folder / name).read_bytes(), folder / name
        case other:
            raise ValueError(f"{journal(folder)}: {str(other)[:60]} is no message")


def journal(folder: Path) -> Path:
    """Of a direction whose folder this is."""
    return folder / "journal.jsonl"


def opened(folder: Path) -> int:
    """The journal of a direction, to append to; made where it is not there, for this user alone. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    made = _private(journal(folder), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC)
    sync_folder(folder)
    return made


def _private(path: str | Path, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _written(path: Path, data: bytes) -> None:
    """A new file that is on disk, for this user alone. Raises OSError."""
    with open(path, "xb", opener=_private) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    sync_folder(path.parent)


class Pulse:
    """A file that its writer rewrites as long as it lives."""

    def __init__(self, path: Path, every_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Written now, for the first time. Raises OSError."""
        self._path, self._every_s, self._clock, self._beats = path, every_s, clock, 0
        self._write(clock())

    def beat(self) -> None:
        """To be called often: writes where it is time to. Raises OSError."""
        now_s = self._clock()
        if now_s - self._last_s >= self._every_s:
            self._write(now_s)

    def _write(self, now_s: float) -> None:
        self._last_s, self._beats = now_s, self._beats + 1
        self._path.write_text(f"{os.getpid()} {self._beats}\n")


class Ear:
    """For how long a `Pulse` elsewhere has been silent."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path, self._clock = path, clock
        self._heard = ""
        self._since_s = self._looked_s = clock()

    def silent_s(self) -> float:
        """Seconds since it changed; to be asked some times a second."""
        now_s = self._clock()
        self._since_s += max(0.0, now_s - self._looked_s - LONGEST_LOOK_S)
        self._looked_s = now_s
        with suppress(OSError):
            said = self._path.read_text()
            if said != self._heard:
                self._heard, self._since_s = said, now_s
        return now_s - self._since_s
