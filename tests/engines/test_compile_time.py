"""What torch says of compiling is what a call says, and a call that compiled nothing says 0."""

import time

import pytest
import torch

from zbench.engines.reference.compiling import compile_seconds, forget_compiled, graphs_compiled, seconds_between


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts as of a process that has compiled nothing, whatever ran in this one before."""
    from torch._dynamo import utils

    monkeypatch.setattr(utils, "compilation_time_metrics", type(utils.compilation_time_metrics)())
    monkeypatch.setitem(utils.counters["stats"], "unique_graphs", 0)


@pytest.mark.usefixtures("fresh")
def test_seconds_are_within_those_of_the_call_that_compiled_and_stand_still_after_it() -> None:
    before, graphs = compile_seconds(), graphs_compiled()
    scaled = torch.compile(lambda x: (x * 2 + 1).relu(), backend="aot_eager", dynamic=False)
    began = time.perf_counter()
    scaled(torch.ones(4))
    call_s = time.perf_counter() - began
    first_s = seconds_between(before, compile_seconds())
    assert first_s is not None and 0 < first_s <= call_s and graphs_compiled() == graphs + 1
    settled = compile_seconds()
    scaled(torch.zeros(4))
    assert compile_seconds() == settled  # the same shape
    scaled(torch.ones(6))
    assert (compile_seconds() or 0) > (settled or 0) and graphs_compiled() == graphs + 2  # another one


@pytest.mark.usefixtures("fresh")
def test_the_next_pipeline_of_a_process_says_its_own_seconds_too() -> None:
    """Its first call begins after torch was reset, when torch has no seconds and would still have graphs."""
    for _ in range(2):
        before, graphs = compile_seconds(), graphs_compiled()
        assert (before, graphs) == (0.0, 0)
        torch.compile(lambda x: (x * 3 + 1).relu(), backend="aot_eager", dynamic=False)(torch.ones(5))
        took_s = seconds_between(before, compile_seconds())
        assert took_s is not None and took_s > 0 and graphs_compiled() == 1
        forget_compiled()


def test_where_torch_tells_no_time_nobody_guesses(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._dynamo import utils

    monkeypatch.setattr(utils, "compilation_time_metrics", {})
    monkeypatch.setitem(utils.counters["stats"], "unique_graphs", 1)
    assert compile_seconds() is None
    monkeypatch.setitem(utils.counters["stats"], "unique_graphs", 0)
    assert compile_seconds() == 0.0
    assert seconds_between(None, 1.0) is None and seconds_between(2.0, 1.0) == 0.0  # torch began anew
