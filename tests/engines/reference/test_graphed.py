"""A module whose forward is one launch gives what it gives without; needs a GPU."""

from typing import Any

import pytest
import torch

from zbench.engines.reference.graphed import GraphedForward

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


class Sums(torch.nn.Module):
    """Takes lists and a flag, and gives a list in a tuple, as Z-Image's transformer does."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, xs: list[torch.Tensor], t: torch.Tensor, *, twice: bool = False) -> tuple[list[torch.Tensor]]:
        self.calls += 1
        return ([x * (2 if twice else 1) + t for x in xs],)


def inputs(size: int, value: float) -> tuple[list[torch.Tensor], torch.Tensor]:
    return [torch.full((size,), value, device="cuda") for _ in range(2)], torch.tensor([1.0], device="cuda")


def graphed() -> tuple[Any, GraphedForward]:
    module = Sums()
    return module, GraphedForward(module, torch.cuda.graph_pool_handle())


def test_each_shape_is_captured_once_and_takes_new_values() -> None:
    module, handle = graphed()
    for size in (3, 5, 3, 5):
        for value in (1.0, 4.0):
            (made,) = module(*inputs(size, value))
            assert [x.tolist() for x in made] == [[value + 1] * size] * 2
    assert handle.count == 2 and module.calls == 2 * 3  # twice to warm up, once to capture


def test_what_is_no_tensor_is_part_of_the_shape() -> None:
    module, handle = graphed()
    assert module(*inputs(2, 3.0))[0][0].tolist() == [4.0, 4.0]
    assert module(*inputs(2, 3.0), twice=True)[0][0].tolist() == [7.0, 7.0] and handle.count == 2


def test_a_caller_may_change_the_list_that_it_gets() -> None:
    module, _ = graphed()
    (made,) = module(*inputs(2, 1.0))
    made.clear()
    assert len(module(*inputs(2, 1.0))[0]) == 2


def test_closed_it_is_itself_again() -> None:
    module, handle = graphed()
    module(*inputs(2, 1.0))
    handle.close()
    before = module.calls
    assert module(*inputs(2, 2.0))[0][0].tolist() == [3.0, 3.0]
    assert module.calls == before + 1 and handle.count == 0 and "forward" not in vars(module)
