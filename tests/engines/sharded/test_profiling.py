"""A profiled call: its forwards are marked, and nothing stays behind. No GPU: the profiler's answer is written down."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from zbench.engines.reference.sharded import profiling
from zbench.engines.reference.sharded.profiling import measure_communication
from zbench.measurement import Communication
from zbench.probes.communication import KernelSpan


@pytest.fixture
def marks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What happens on the device, in order."""
    happened: list[str] = []
    monkeypatch.setattr(profiling, "mark", lambda: happened.append("mark"))
    return happened


def profiler(monkeypatch: pytest.MonkeyPatch, kernels: list[KernelSpan]) -> None:
    def answer(call: Callable[[], object]) -> list[KernelSpan]:
        call()
        return kernels

    monkeypatch.setattr(profiling, "profiled_kernels", answer)


def test_the_first_forward_is_left_out(monkeypatch: pytest.MonkeyPatch, marks: list[str]) -> None:
    """In it ranks also wait for the one that comes last."""
    profiler(monkeypatch, [KernelSpan("gemm", 1.0, 3.0), KernelSpan("ncclDevKernel_AllGather", 2.0, 5.0)])
    transformer = nn.Linear(2, 2)
    transformer.register_forward_pre_hook(lambda *_: marks.append("forward"))

    def call() -> None:
        marks.append("text")
        for _ in range(2):
            transformer(torch.zeros(1, 2))
        marks.append("decode")

    seen = measure_communication(transformer, call, rank=1)
    assert marks == ["text", "forward", "mark", "forward", "mark", "decode"]
    assert seen == Communication(rank=1, forwards_s=4.0, communication_s=3.0, exposed_s=2.0)
    transformer(torch.zeros(1, 2))
    assert marks[-2:] == ["decode", "forward"]


def test_without_a_profiler_there_is_no_answer(monkeypatch: pytest.MonkeyPatch, marks: list[str]) -> None:
    profiler(monkeypatch, [])
    assert measure_communication(nn.Linear(2, 2), lambda: None, rank=0) is None


def test_a_call_that_fails_leaves_no_hook(monkeypatch: pytest.MonkeyPatch, marks: list[str]) -> None:
    profiler(monkeypatch, [])
    transformer = nn.Linear(2, 2)

    def call() -> None:
        raise RuntimeError("a rank is gone")

    with pytest.raises(RuntimeError, match="a rank is gone"):
        measure_communication(transformer, call, rank=0)
    transformer(torch.zeros(1, 2))
    assert marks == []
