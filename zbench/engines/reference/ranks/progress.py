"""How far each rank is, in a file that all of a trial map: a rank bumps its own count and reads nobody's.

A bump is two stores into memory, so it stands inside timed calls. A count that is read while it is written is off by
one bump at most, and is read again.
"""

import mmap
import os
import struct
from dataclasses import dataclass
from pathlib import Path

_PLACE = struct.Struct("<Q56s")
FILE_NAME = "progress"


@dataclass(frozen=True)
class Reached:
    """Where a rank is."""

    count: int  # of its signs of life so far
    doing: str  # what the last one said


class Progress:
    """The signs of life of all ranks of a trial."""

    def __init__(self, meeting: Path, ranks: int) -> None:
        """Map the file in `meeting`, made where it is not there. Raises OSError where there is no room for it: a store
        into a page that the disk has no room for would end the process (SIGBUS)."""
        self._ranks = ranks
        fd = os.open(meeting / FILE_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, ranks * _PLACE.size)
            self._memory = mmap.mmap(fd, ranks * _PLACE.size)
        finally:
            os.close(fd)
        self._counts = [0] * ranks

    def bump(self, rank: int, doing: str) -> None:
        """A sign of life of a rank; its own process alone gives one."""
        self._counts[rank] += 1
        _PLACE.pack_into(self._memory, rank * _PLACE.size, self._counts[rank], doing.encode()[:56])

    def read(self) -> list[Reached]:
        """Of every rank."""
        places = (_PLACE.unpack_from(self._memory, rank * _PLACE.size) for rank in range(self._ranks))
        return [Reached(count, doing.rstrip(b"\0").decode(errors="replace")) for count, doing in places]

    def close(self) -> None:
        """Unmap it."""
        self._memory.close()
