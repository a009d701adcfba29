"""A forward that is replayed: no GPU, so a graph is played by the module itself, which writes where it wrote before."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from zbench.engines.reference import graphed
from zbench.engines.reference.graphed import GraphedForward


class Graph:
    """Replays as CUDA's do: from the tensors that were captured into the tensors that were made."""

    def __init__(self, own: Any, leaf: Tensor, made: list[Tensor]) -> None:
        self._own, self._leaf, self._made = own, leaf, made

    def replay(self) -> None:
        self._made[0].copy_(self._own(self._leaf)[0])


class Doubled(nn.Module):
    def forward(self, x: Tensor) -> list[Tensor]:
        return [2 * x]


@pytest.fixture
def pools(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Into which pool each capture went."""
    seen: list[Any] = []

    def capture(self: Any, leaves: list[Any], _structure: Any) -> Any:
        seen.append(self._pool)
        kept = leaves[0].clone()
        made = [torch.zeros_like(kept)]
        return graphed._Captured(Graph(self._own, kept, made), [kept], made)  # type: ignore[arg-type]

    monkeypatch.setattr(GraphedForward, "_capture", capture)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)  # a capture is timed
    return seen


def test_what_a_call_gave_stays_when_the_next_is_replayed(pools: list[Any]) -> None:
    """As tiles and slices of a decode must."""
    module = Doubled()
    handle = GraphedForward(module, "pool")
    first, second = module(torch.ones(2)), module(torch.full((2,), 5.0))
    assert first[0].tolist() == [2, 2] and second[0].tolist() == [10, 10]
    assert handle.count == 1 and pools == ["pool"]
    module(torch.ones(3))
    assert handle.count == 2
    handle.close()
    assert "forward" not in vars(module) and handle.count == 0


def test_closed_it_has_the_forward_that_others_had_given_it(pools: list[Any]) -> None:
    module: Any = Doubled()
    hooked = module.forward = lambda x: [3 * x]
    handle = GraphedForward(module, "pool")
    module(torch.ones(2))
    handle.close()
    assert module.forward is hooked and module(torch.ones(2))[0].tolist() == [3, 3]


def test_what_is_captured_anew_has_another_pool(pools: list[Any]) -> None:
    module = Doubled()
    handle = GraphedForward(module, "first")
    module(torch.ones(2))
    handle.forget("second")
    assert module(torch.ones(2))[0].tolist() == [2, 2]
    assert pools == ["first", "second"]
    handle.close()
