"""One checksum for all weights of a pipeline, from the bytes of their files; it opens no tensor and writes nothing.

Digests are kept for the life of the process by path, size and time of change, so a file is read once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

THREADS = 4
"""hashlib lets other threads run; more than a few of them wait for the disk."""

CHUNK_BYTES = 4 * 2**20
POLL_S = 0.1
"""How often progress is told while files are read."""

Files = Mapping[str, Sequence[Path]]
"""Component to its safetensors files."""

_digests: dict[tuple[str, int, int], str] = {}


def total_bytes(files: Files) -> int:
    """Bytes of all `files` together."""
    return sum(path.stat().st_size for paths in files.values() for path in paths)


def weights_sha256(files: Files, tell: Callable[[int], None] = lambda done_bytes: None) -> str | None:
    """sha256 (hex) over the sorted lines `component/file  sha256-of-file`, each with a line feed; None without files.

    `tell` is called in this thread with the bytes read so far. Raises OSError where a file cannot be read.
    """
    named = {f"{component}/{path.name}": path for component, paths in files.items() for path in paths}
    if not named:
        return None
    read = [0] * len(named)

    def digest(index: int, path: Path) -> str:
        def count(n_bytes: int) -> None:
            read[index] += n_bytes

        return _file_sha256(path, count)

    with ThreadPoolExecutor(THREADS, thread_name_prefix="zbench-checksum") as pool:
        digests = {name: pool.submit(digest, i, path) for i, (name, path) in enumerate(named.items())}
        pending = set(digests.values())
        while pending:
            pending = wait(pending, timeout=POLL_S).not_done
            tell(sum(read))
        lines = sorted(f"{name}  {done.result()}\n" for name, done in digests.items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _file_sha256(path: Path, count: Callable[[int], None]) -> str:
    """sha256 of a file, from memory if it was read before and has not changed since; `count` is told of its bytes."""
    real = path.resolve()
    before = real.stat()
    key = str(real), before.st_size, before.st_mtime_ns
    if key in _digests:
        count(before.st_size)
        return _digests[key]
    hasher = hashlib.sha256()
    with real.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            hasher.update(chunk)
            count(len(chunk))
    _digests[key] = hasher.hexdigest()
    return _digests[key]
