"""The arithmetic of a cap; that an allocator keeps to it is seen on a card alone."""

from types import SimpleNamespace

import pytest
import torch

from zbench.engines.reference import vram_limit
from zbench.engines.reference.vram_limit import GIB, set_vram_limit
from zbench.errors import ConfigError

CARD_GIB = 80
CONTEXT = 700 * 2**20


@pytest.fixture
def fractions(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the allocator was told, on a card whose context takes 700 MiB."""
    told: list[float] = []
    card = SimpleNamespace(total_memory=CARD_GIB * GIB)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: card)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", told.append)
    monkeypatch.setattr(vram_limit, "context_bytes", lambda device: CONTEXT)
    return told


def test_the_allocator_gets_the_cap_less_context_and_reserve(fractions: list[float]) -> None:
    limit = set_vram_limit(16)
    assert limit.limit_bytes == 16 * GIB
    assert limit.allocator_bytes == 16 * GIB - CONTEXT - GIB // 2
    assert fractions == [limit.allocator_bytes / (CARD_GIB * GIB)]


@pytest.mark.parametrize(("cap_gib", "why"), [(81, "cannot make it larger"), (1.1, "leave nothing")])
def test_a_cap_that_cannot_be_kept_is_refused(cap_gib: float, why: str, fractions: list[float]) -> None:
    with pytest.raises(ConfigError, match=f"hardware.vram_limit_gib={cap_gib:g}.*{why}"):
        set_vram_limit(cap_gib)
    assert not fractions


def test_without_a_measured_context_nothing_is_claimed(fractions: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vram_limit, "context_bytes", lambda device: None)
    with pytest.raises(ConfigError, match="nothing can be proven"):
        set_vram_limit(16)
