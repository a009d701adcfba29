"""Dynamo of torch 2.11 has no rule for the end of torch's functional all-gather, which blocks of Ulysses compile."""

from typing import Any

import pytest
import torch
from torch import _utils
from torch._dynamo import trace_rules

from zbench.engines.reference.sharded import patches

NAME = "torch._utils._maybe_view_chunk_cat"


@pytest.fixture
def as_in_torch_211(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.delitem(trace_rules.manual_torch_name_rule_map, NAME)
    trace_rules.get_torch_obj_rule_map.cache_clear()
    torch.compiler.reset()
    yield
    monkeypatch.undo()
    trace_rules.get_torch_obj_rule_map.cache_clear()
    torch.compiler.reset()


def test_it_compiles_whole_all_the_same(as_in_torch_211: None) -> None:
    def ends(gathered: torch.Tensor) -> torch.Tensor:
        return _utils._maybe_view_chunk_cat(gathered, 2, 1)  # two shares, put side by side along dimension 1

    gathered = torch.arange(12.0).reshape(4, 3)
    compiled = torch.compile(ends, fullgraph=True, backend="eager")
    with pytest.raises(torch._dynamo.exc.Unsupported, match="_maybe_view_chunk_cat"):
        compiled(gathered)
    torch.compiler.reset()
    patches._let_dynamo_gather()
    assert torch.equal(torch.compile(ends, fullgraph=True, backend="eager")(gathered), ends(gathered))
