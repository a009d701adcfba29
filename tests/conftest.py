"""What every test shares: digests of files are remembered in a folder of this test run, not in the user's, turns on
devices are taken among its own measurements alone, and configs are composed once."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:  # read when torch is imported, here and in the processes that tests start
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # else the threads of each side wait for those of the other

from collections.abc import Iterator
from pathlib import Path

import pytest
from composed_once import composed_once
from outside_code import Outside, forget

from zbench.hardware.turns import FOLDER_VARIABLE as TURNS
from zbench.zimage.digests import FOLDER_VARIABLE as DIGESTS


@pytest.fixture(scope="session", autouse=True)
def own_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(DIGESTS, str(tmp_path_factory.mktemp("digests")))
        patch.setenv(TURNS, str(tmp_path_factory.mktemp("turns")))
        yield


@pytest.fixture(scope="session", autouse=True)
def one_composition_of_the_same_words() -> Iterator[None]:
    with composed_once():
        yield


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Outside]:
    """A folder for code from outside zbench, beside which commands run; they can import tests too."""
    folder, tests = tmp_path / "outside", Path(__file__).parent
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    path = (folder, tests / "engines", tests, tests.parent)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, path)))
    monkeypatch.chdir(tmp_path)
    yield Outside(folder)
    forget(folder)
