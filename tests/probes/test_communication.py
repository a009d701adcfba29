"""Shares of communication, from intervals that can be added up by hand; and where a profile begins and ends."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from zbench.probes import communication
from zbench.probes.communication import KernelSpan, between_marks, communication_share, kernels_of, profiled_kernels

GATHER = "ncclDevKernel_AllGather_RING_LL(ncclDevKernelArgsStorage<4096ul>)"
GEMM = "nvjet_hsh_256x128_64x4_2x1_v_bz_coopA_TNT"
SPIN = "at::cuda::(anonymous namespace)::spin_kernel(long)"


def compute(start_s: float, end_s: float, name: str = GEMM) -> KernelSpan:
    return KernelSpan(name, start_s, end_s)


def gather(start_s: float, end_s: float, name: str = GATHER) -> KernelSpan:
    return KernelSpan(name, start_s, end_s)


def test_communication_beside_compute_is_hidden_and_the_rest_is_exposed() -> None:
    """2 to 6 communicates; 0 to 3 and 5 to 8 compute: so 3 to 5 is exposed."""
    assert communication_share([compute(0, 3), gather(2, 6), compute(5, 8)]) == (8, 4, 2)


def test_the_order_of_kernels_is_nothing() -> None:
    kernels = [gather(2, 6), compute(5, 8), compute(0, 3)]
    assert communication_share(kernels) == communication_share(kernels[::-1]) == (8, 4, 2)


def test_what_lies_within_another_counts_once() -> None:
    """A short collective within a long one, on two streams; a GEMM within both."""
    assert communication_share([gather(0, 10), gather(2, 4), compute(3, 5)]) == (10, 10, 8)
    assert communication_share([compute(0, 10), compute(2, 4), gather(3, 5)]) == (10, 2, 0)


def test_several_streams_hide_together_what_none_hides_alone() -> None:
    assert communication_share([gather(1, 5), compute(0, 3), compute(2, 4), compute(4, 6)]) == (6, 4, 0)


def test_one_compute_kernel_may_hide_several_collectives_and_a_gap_between_them() -> None:
    assert communication_share([gather(0, 2), gather(3, 5), gather(7, 8), compute(1, 4)]) == (8, 5, 3)


def test_kernels_that_meet_do_not_overlap() -> None:
    assert communication_share([compute(0, 1), gather(1, 2), compute(2, 3)]) == (3, 1, 1)


def test_nothing_is_nothing() -> None:
    assert communication_share([]) == (0, 0, 0)
    assert communication_share([compute(2, 5)]) == (3, 0, 0)
    assert communication_share([gather(2, 5)]) == (3, 3, 3)


@pytest.mark.parametrize(
    ("name", "communicates"),
    [
        (GATHER, True),
        ("ncclDevKernel_SendRecv(ncclDevKernelArgsStorage<4096ul>)", True),
        ("ncclKernel_AllReduce_RING_LL_Sum_float(ncclDevComm*, unsigned long, ncclWork*)", True),
        ("Memcpy PtoP (Device -> Device)", True),
        ("void multimem_all_reduce_kernel<c10::BFloat16>", True),
        ("Memcpy DtoD (Device -> Device)", False),
        ("Memset (Device)", False),
        ("triton_red_fused_multimem_all_gather_into_tensor_mean_0", False),
        (GEMM, False),
    ],
)
def test_a_kernel_is_told_by_its_name(name: str, communicates: bool) -> None:
    """Inductor names kernels by the operators around them, and they exchange nothing."""
    assert KernelSpan(name, 0, 1).communicates is communicates


def test_only_what_lies_between_the_first_and_the_last_mark_counts() -> None:
    """Text encoding before it and the decode, which communicates too, after it are left out."""
    forwards = [compute(2, 4), gather(3, 5), compute(7, 8)]
    marks = [KernelSpan(SPIN, at, at + 0.001) for at in (1, 6, 6.5, 9)]
    kernels = [compute(0, 0.5), *marks, *forwards, gather(10, 12)]
    assert between_marks(kernels[::-1]) == forwards
    assert between_marks([*forwards, marks[0]]) == between_marks(forwards) == []


@dataclass
class Event:
    """As torch's profiler tells of one."""

    name: str
    device_type: Any
    start: float
    end: float
    is_user_annotation: bool = False

    @property
    def time_range(self) -> Any:
        return SimpleNamespace(start=self.start, end=self.end)


def test_of_a_profilers_events_those_on_the_device_are_kernels() -> None:
    cuda, cpu = torch.autograd.DeviceType.CUDA, torch.autograd.DeviceType.CPU  # type: ignore[attr-defined]
    events = [Event(GEMM, cuda, 5.0, 7.5), Event("cudaLaunchKernel", cpu, 1, 2), Event("forward", cuda, 0, 9, True)]
    assert kernels_of(events) == [KernelSpan(GEMM, 5e-6, 7.5e-6)]


class Profiler:
    """As torch's, of a call that marked one forward of two kernels."""

    def __init__(self, activities: list[Any]) -> None:
        assert activities == [torch.profiler.ProfilerActivity.CUDA]

    def __enter__(self) -> "Profiler":
        return self

    def __exit__(self, *_: object) -> None:
        """The call is over."""

    def events(self) -> list[Event]:
        cuda = torch.autograd.DeviceType.CUDA  # type: ignore[attr-defined]
        times = [(SPIN, 10, 11), (GEMM, 12, 20), (GATHER, 16, 24), (SPIN, 30, 31), (GATHER, 40, 90)]
        return [Event(name, cuda, start, end) for name, start, end in times]


def test_a_call_is_profiled_and_what_it_raises_comes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.profiler, "supported_activities", lambda: {torch.profiler.ProfilerActivity.CUDA})
    monkeypatch.setattr(torch.profiler, "profile", Profiler)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    called: list[str] = []
    share = communication_share(profiled_kernels(lambda: called.append("once")))
    assert called == ["once"] and share == pytest.approx((12e-6, 8e-6, 4e-6))

    def broken() -> None:
        raise ValueError("no image")

    with pytest.raises(ValueError, match="no image"):
        profiled_kernels(broken)


def test_a_torch_that_cannot_profile_a_device_makes_no_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.profiler, "supported_activities", lambda: {torch.profiler.ProfilerActivity.CPU})
    called: list[str] = []
    assert profiled_kernels(lambda: called.append("once")) == [] and called == []


def test_marks_are_kernels_that_do_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[int] = []
    monkeypatch.setattr(torch.cuda, "_sleep", slept.append)
    communication.mark()
    assert slept == [1]


def test_a_copy_hides_no_waiting_for_a_peer() -> None:
    kernels = [
        KernelSpan("gemm", 0.0, 1.0),
        KernelSpan("Memcpy DtoD (Device -> Device)", 0.5, 3.0),
        KernelSpan("wait_signal_kernel", 1.0, 3.0),
    ]
    assert communication_share(kernels) == (3.0, 2.0, 2.0)
