"""Signs of life of ranks in a file that all of them map."""

import errno
import os
from pathlib import Path

import pytest

from zbench.engines.reference.ranks.progress import FILE_NAME, Progress, Reached


def test_a_rank_sees_how_far_another_is(tmp_path: Path) -> None:
    ours, theirs = Progress(tmp_path, 2), Progress(tmp_path, 2)
    theirs.bump(1, "step")
    theirs.bump(1, "decode")
    assert ours.read() == [Reached(0, ""), Reached(2, "decode")]
    ours.close()
    theirs.close()


def test_its_room_is_taken_before_it_is_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Progress(tmp_path, 64).close()
    assert (tmp_path / FILE_NAME).stat().st_blocks * 512 >= 64 * 64, "a hole would be SIGBUS on a full disk"

    def full(fd: int, offset: int, length: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left on device"):
        Progress(tmp_path, 64)
