"""sha256 of files, remembered between processes: a file is read again only where it may have changed.

A digest holds for a real path (links are followed) with one size, inode, time of modification and time of change. The
last two see what size and date hide: `cp -p` and rsync keep both, and neither keeps the inode's time of change.

The memory is one small file, `digests.json` under $ZBENCH_DIGESTS_DIR, else in the user's cache folder. It is replaced
whole, so that readers and writers never meet; of two that write at once one is forgotten, and its files are read again.
A memory that is broken, foreign or cannot be written costs time and nothing else.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

FOLDER_VARIABLE = "ZBENCH_DIGESTS_DIR"

FORMAT = "zbench-digests-1"

MOST_FILES = 2000
"""Remembered; the oldest are forgotten. A pipeline has some twenty."""

MOST_BYTES = 4 * 2**20
"""A larger memory is none of ours: paths of the longest kind included, ours stays below it in practice."""

THREADS = 4
"""hashlib lets other threads run; more than a few of them wait for the disk."""

CHUNK_BYTES = 4 * 2**20
POLL_S = 0.1
"""How often progress is told while files are read."""

TICK_S = 0.02
"""Two changes of a file within one tick of the kernel's clock (10 ms at most) have the same time."""

_State = tuple[int, int, int, int]
"""Size, inode, times of modification and of change in ns."""

_Known = dict[str, tuple[_State, str]]
"""Real path to its state and digest, the newest last."""

_known: _Known = {}


def files_sha256(paths: Sequence[Path], tell: Callable[[int], None] = lambda done_bytes: None) -> list[str]:
    """sha256 (hex) of each file, from memory where it has not changed since it was read.

    `tell` is called in this thread with the bytes done so far; those of remembered files are done at once. Raises
    OSError where a file cannot be read.
    """
    real = [path.resolve() for path in paths]
    states = {path: _state(path.stat()) for path in real}
    if any(_remembered(path, state) is None for path, state in states.items()):
        _known.update({**_read_memory(), **_known})  # another process may have read them
    found = {path: digest for path, state in states.items() if (digest := _remembered(path, state)) is not None}
    unread = [path for path in states if path not in found]
    done_bytes = sum(states[path][0] for path in found)
    if unread:
        found |= _read_all(unread, lambda read: tell(done_bytes + read))
    tell(sum(size for size, *_ in states.values()))
    return [found[path] for path in real]


def memory_file() -> Path | None:
    """Where digests are remembered between processes, whether or not it is there; None: there is no such place."""
    own = os.environ.get(FOLDER_VARIABLE)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "")
    try:
        if own:
            folder = Path(os.path.expanduser(own))
        else:
            folder = (cache if cache.is_absolute() else Path.home() / ".cache") / "zbench"
    except RuntimeError:  # nobody's home
        return None
    return folder / "digests.json"


def _remembered(path: Path, state: _State) -> str | None:
    known = _known.get(str(path))
    return known[1] if known is not None and known[0] == state else None


def _read_all(paths: list[Path], tell: Callable[[int], None]) -> dict[Path, str]:
    """Digests of files that are read now; those that did not change meanwhile are remembered."""
    read = [0] * len(paths)

    def one(index: int, path: Path) -> tuple[str, _State | None]:
        def count(n_bytes: int) -> None:
            read[index] += n_bytes

        return _read(path, count)

    with ThreadPoolExecutor(THREADS, thread_name_prefix="zbench-checksum") as pool:
        reading = [pool.submit(one, index, path) for index, path in enumerate(paths)]
        pending = set(reading)
        while pending:
            pending = wait(pending, timeout=POLL_S).not_done
            tell(sum(read))
    results = dict(zip(paths, (future.result() for future in reading), strict=True))
    _remember({str(path): (state, digest) for path, (digest, state) in results.items() if state is not None})
    return {path: digest for path, (digest, _) in results.items()}


def _read(path: Path, count: Callable[[int], None]) -> tuple[str, _State | None]:
    """A file's digest and the state that it holds for; None for a file that changed while it was read."""
    with path.open("rb") as file:
        before = os.fstat(file.fileno())
        if time.time_ns() - before.st_ctime_ns < TICK_S * 1e9:
            time.sleep(TICK_S)  # or a change right after this reading could bear the same time
        hasher = hashlib.sha256()
        while chunk := file.read(CHUNK_BYTES):
            hasher.update(chunk)
            count(len(chunk))
        after = os.fstat(file.fileno())
    return hasher.hexdigest(), _state(before) if _state(before) == _state(after) else None


def _state(stat: os.stat_result) -> _State:
    return stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns


def _remember(new: _Known) -> None:
    """Keep `new` in this process, and for others together with what they have written meanwhile."""
    for path in new:
        _known.pop(path, None)  # so that the newest stay last
    _known.update(new)
    place = memory_file()
    if place is None or not new:
        return
    others = {path: entry for path, entry in _read_memory().items() if path not in new}
    kept = dict(list({**others, **new}.items())[-MOST_FILES:])
    data = {"format": FORMAT, "files": {path: [*state, digest] for path, (state, digest) in kept.items()}}
    with contextlib.suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(prefix=f"{place.name}.", dir=place.parent)
        try:
            with os.fdopen(handle, "w", encoding="ascii") as file:
                json.dump(data, file, indent=0)
            os.replace(partial, place)
        except OSError:
            os.unlink(partial)
            raise


def _read_memory() -> _Known:
    """What processes have remembered; entries that are none of ours are left out."""
    place = memory_file()
    try:
        if place is None or not place.is_file() or place.stat().st_size > MOST_BYTES:
            return {}
        data = json.loads(place.read_text(encoding="ascii"))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(data, dict) or data.get("format") != FORMAT or not isinstance(data.get("files"), dict):
        return {}
    return {path: (tuple(entry[:4]), entry[4]) for path, entry in data["files"].items() if _is_entry(entry)}


def _is_entry(entry: object) -> bool:
    return (
        isinstance(entry, list)
        and len(entry) == 5
        and all(type(number) is int for number in entry[:4])
        and isinstance(entry[4], str)
        and re.fullmatch(r"[0-9a-f]{64}", entry[4]) is not None
    )
