"""Ranks of a benchmark end together: one that fails does not leave the others waiting."""

import importlib
import sys
import time
from collections.abc import Iterator
from multiprocessing import resource_tracker
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
FOREVER_S = 3600


@pytest.fixture
def ranks(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The module; the process that Python starts beside spawned ones is ended, for other tests count children."""
    monkeypatch.syspath_prepend(str(FOLDER))
    yield importlib.import_module("ranks")
    resource_tracker._resource_tracker._stop()


def writes(rank: int, word: str, folder: str) -> None:
    (Path(folder).parent / f"{word}-{rank}").write_text(folder)


def second_fails(rank: int, _word: str, _folder: str) -> None:
    if rank == 1:
        sys.exit(3)
    time.sleep(FOREVER_S)


def test_every_rank_has_the_arguments_and_one_folder(
    ranks: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranks.tempfile, "tempdir", str(tmp_path))
    assert ranks.run_ranks(writes, 2, "said") == 0
    said = [(tmp_path / f"said-{rank}").read_text() for rank in range(2)]
    assert said[0] == said[1] and not Path(said[0]).exists()


def test_one_that_fails_ends_the_others(ranks: ModuleType) -> None:
    assert ranks.run_ranks(second_fails, 2, "") == 3
