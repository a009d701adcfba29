"""What every test shares: digests of files are remembered in a folder of this test run, not in the user's."""

import os
from collections.abc import Iterator

import pytest

from zbench.zimage.digests import FOLDER_VARIABLE


@pytest.fixture(scope="session", autouse=True)
def digests_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    before = os.environ.get(FOLDER_VARIABLE)
    os.environ[FOLDER_VARIABLE] = str(tmp_path_factory.mktemp("digests"))
    yield
    del os.environ[FOLDER_VARIABLE]
    if before is not None:
        os.environ[FOLDER_VARIABLE] = before
