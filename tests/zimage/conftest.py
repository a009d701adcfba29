"""The tiny pipeline, loaded once, and how these tests generate with it."""

from __future__ import annotations

import os

os.environ.setdefault("CACHE_DIT_LOG_LEVEL", "error")  # read when cache_dit is imported; it logs to stdout otherwise

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from zbench.zimage.layout import preset_folder


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Two threads on two shared cores wait for each other; one is steady, and its sums never change their order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny() -> Any:
    from zbench.zimage.loading import load_pipeline

    return load_pipeline(preset_folder("zimage_tiny"), dtype=torch.float32, device="cpu")
