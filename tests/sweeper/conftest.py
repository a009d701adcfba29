"""What tests of the sweep share."""

from pathlib import Path

import pytest
from small_weights import make_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A pipeline folder with weights of one number each."""
    return make_folder(tmp_path / "model")
