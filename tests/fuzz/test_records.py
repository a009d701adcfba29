"""Records with one field changed are read, or refused in one line; never a traceback in any reader."""

import random
from pathlib import Path

from damage import SCALE, damaged, is_read, pool, read_everywhere

MUTATIONS = int(400 * SCALE)
AT_ONCE = 40
"""Records of one journal: so many a report draws."""


def test_one_field_changed_is_never_a_traceback(tmp_path: Path) -> None:
    records = pool()
    waiting: list[tuple] = []
    taken = 0
    for seed in range(MUTATIONS):
        whole, broken, what = damaged(records, random.Random(seed), seed)
        try:
            if is_read(broken):
                waiting.append((whole, broken, f"seed {seed}: {what}"))
        except Exception as error:
            raise AssertionError(f"seed {seed}: {what}") from error
        if len(waiting) == AT_ONCE or (seed == MUTATIONS - 1 and waiting):
            _all_readers(tmp_path / str(seed), waiting)
            taken += len(waiting)
            waiting = []
    assert MUTATIONS / 50 < taken < MUTATIONS / 2, "most are refused where they are read, and some mean nothing"


def _all_readers(folder: Path, waiting: list[tuple]) -> None:
    try:
        read_everywhere(folder, [broken for _, broken, _ in waiting], [whole for whole, _, _ in waiting])
    except Exception as error:
        if len(waiting) == 1:
            raise AssertionError(waiting[0][2]) from error
        for place, one in enumerate(waiting):  # which of them it is
            _all_readers(folder / str(place), [one])
        raise AssertionError(f"together: {[what for _, _, what in waiting]}") from error
