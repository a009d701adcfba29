"""Images and latents of trials as they travel: names with bytes, one after another; it writes nothing but such files.

What comes from another machine is not trusted: a name is that of a PNG, of safetensors or of `made_by.json`, has no
folder in it, and each file is written as a plain one.
"""

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from zbench.errors import StoreError, cannot_write
from zbench.quality.artifacts import LATENTS, MADE_BY

Files = Mapping[str, bytes | memoryview]
"""Name to content."""

ALLOWED = re.compile(rf"[^/\0]+\.png|{re.escape(LATENTS)}|{re.escape(MADE_BY)}")


def collected(folder: Path) -> dict[str, bytes]:
    """What a trial left in its folder; nothing of one that is not there. Links and other files are left out."""
    if not folder.is_dir():
        return {}
    with os.scandir(folder) as entries:
        names = sorted(e.name for e in entries if ALLOWED.fullmatch(e.name) and e.is_file(follow_symlinks=False))
    return {name: (folder / name).read_bytes() for name in names}


def content_key(folder: Path) -> str:
    """Another one whenever a file in `folder` is another: by names, sizes and times."""
    told = (folder / MADE_BY, folder / LATENTS)
    stats = [path.stat() for path in told if path.is_file()]
    return "-".join([folder.name, *(f"{stat.st_size:x}.{stat.st_mtime_ns:x}" for stat in stats)])


def unloaded(files: Files, folder: Path) -> None:
    """Put `files` in place of `folder` and all that is in it: it holds them all or, if this is killed, none.

    Raises ValueError for a name that no such file has, before anything is written, and StoreError where they cannot be
    written.
    """
    for name in files:
        if not ALLOWED.fullmatch(name):
            raise ValueError(f"a file called {name[:60]!r}, which no trial leaves")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        coming = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
        shutil.rmtree(coming, ignore_errors=True)
        coming.mkdir()
        try:
            for name, data in files.items():
                (coming / name).write_bytes(data)
            shutil.rmtree(folder, ignore_errors=True)
            coming.replace(folder)
        except BaseException:
            shutil.rmtree(coming, ignore_errors=True)
            raise
    except OSError as error:
        needed_bytes = sum(map(len, files.values()))
        told = cannot_write(
            f"images to {folder}", error, folder, needed_bytes, "see that the run folder can be written"
        )
        raise StoreError(told) from error


def under(prefix: str, files: Mapping[str, memoryview]) -> dict[str, memoryview]:
    """Of files named `prefix/name` the names without it."""
    return {name.removeprefix(f"{prefix}/"): data for name, data in files.items() if name.startswith(f"{prefix}/")}
