"""The folder in which the ranks of a trial find one another: nobody else's, and gone when the trial is.

A worker that is killed leaves its folder behind. It is held by a lock that ends with its process, so whoever makes the
next one can tell and removes it.
"""

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

PREFIX = "zbench-ranks-"


class Meeting:
    """A folder with mode 700 under the system's folder for temporary files."""

    def __init__(self) -> None:
        """Make and hold it; remove those that nobody holds any more."""
        _remove_left_behind()
        while True:
            self.folder = Path(tempfile.mkdtemp(prefix=PREFIX))
            with suppress(FileNotFoundError, BlockingIOError):  # taken for one left behind before it was held
                self._held = _hold(self.folder)
                if self.folder.is_dir():
                    return
                os.close(self._held)

    def close(self) -> None:
        """Remove it, with all that is in it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self._held)


def _hold(folder: Path) -> int:
    """A descriptor with a lock. Raises BlockingIOError where another has it, FileNotFoundError where it is gone."""
    held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(held)
        raise
    return held


def _remove_left_behind() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):  # held, another user's, or gone
            if folder.stat().st_uid != os.getuid():
                continue
            held = _hold(folder)
            shutil.rmtree(folder, ignore_errors=True)
            os.close(held)
