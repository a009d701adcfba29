"""The clock is read through a fake that counts, so that expected spans are exact and no test waits on time."""

import sys
from typing import Any

import pytest

from zbench.probes.timers import CudaTimer, HostTimer, StageClock


class CountingTimer:
    """The n-th mark is n."""

    def __init__(self) -> None:
        self._marks = 0

    def mark(self) -> int:
        self._marks += 1
        return self._marks

    def synchronize(self) -> None:
        """Nothing to wait for."""

    def seconds(self, begin: int, end: int) -> float:
        return float(end - begin)


class FakeCuda:
    """Stands in for `torch.cuda`: events record at 10 ms steps and may be read only after a synchronise."""

    def __init__(self) -> None:
        self.synchronised = 0
        self._recorded = 0

    def synchronize(self) -> None:
        self.synchronised += 1

    def Event(self, *, enable_timing: bool) -> "FakeEvent":
        assert enable_timing, "an event without timing cannot be read"
        return FakeEvent(self)

    def tick(self) -> int:
        self._recorded += 1
        return self._recorded


class FakeEvent:
    def __init__(self, cuda: FakeCuda) -> None:
        self._cuda = cuda
        self.at = 0

    def record(self) -> None:
        self.at = self._cuda.tick()

    def elapsed_time(self, end: "FakeEvent") -> float:
        assert self._cuda.synchronised, "elapsed_time raises on CUDA before both events are done"
        return (end.at - self.at) * 10.0  # milliseconds


class Painter:
    """Two stages; `decode` is of the class, as the methods of a pipeline are."""

    def encode(self, text: str) -> str:
        return text.upper()

    def decode(self, text: str) -> str:
        raise ValueError(text)


def test_spans_are_between_marks_of_the_same_stage() -> None:
    clock = StageClock(CountingTimer())
    clock.begin("outer")  # mark 1
    for _ in range(2):
        clock.begin("step")  # marks 2 and 4
        clock.end("step")  # marks 3 and 5
    clock.end("outer")  # mark 6
    assert clock.spans_s("step") == [1.0, 1.0]
    assert clock.spans_s("outer") == [5.0]
    assert clock.gap_s("step", "nowhere") is None


def test_gap_is_from_the_last_end_to_the_first_beginning() -> None:
    clock = StageClock(CountingTimer())
    clock.begin("encode")  # 1
    clock.end("encode")  # 2
    clock.timer.mark()  # 3, what lies between
    clock.begin("decode")  # 4
    clock.end("decode")
    assert clock.gap_s("encode", "decode") == 2.0


def test_reset_forgets_the_round_before() -> None:
    clock = StageClock(CountingTimer())
    clock.begin("step")
    clock.end("step")
    clock.reset()
    assert clock.spans_s("step") == []


def test_watched_method_is_timed_and_comes_back_as_it_was() -> None:
    painter = Painter()
    with StageClock(CountingTimer()) as clock:
        clock.watch_method(painter, "encode", "text_encode")
        assert painter.encode("a") == "A"
        assert clock.spans_s("text_encode") == [1.0]
    assert "encode" not in vars(painter)  # the class's own method shows again


def test_method_that_the_instance_had_itself_is_put_back() -> None:
    painter = Painter()
    own = str.lower
    painter.encode = own  # type: ignore[method-assign]
    with StageClock(CountingTimer()) as clock:
        clock.watch_method(painter, "encode", "text_encode")
    assert painter.encode is own


def test_failing_call_closes_its_span_and_raises_on() -> None:
    painter = Painter()
    clock = StageClock(CountingTimer())
    clock.watch_method(painter, "decode", "decode")
    with pytest.raises(ValueError, match="x"):
        painter.decode("x")
    assert clock.spans_s("decode") == [1.0]


def test_module_is_timed_by_hooks_that_survive_a_new_forward() -> None:
    torch = pytest.importorskip("torch")
    module = torch.nn.Identity()
    clock = StageClock(CountingTimer())
    clock.watch_module(module, "step")
    module.forward = lambda x: x + 1  # cache-dit replaces forward in just this way
    assert module(1) == 2
    assert clock.spans_s("step") == [1.0]
    clock.close()
    module(1)
    assert clock.spans_s("step") == [1.0]


def test_cuda_marks_are_events_resolved_after_one_synchronise() -> None:
    cuda = FakeCuda()
    clock: StageClock[Any] = StageClock(CudaTimer(cuda))
    for _ in range(3):
        clock.begin("step")
        clock.end("step")
    assert cuda.synchronised == 0, "marks must not wait for the device"
    clock.timer.synchronize()
    assert clock.spans_s("step") == pytest.approx([0.01] * 3)  # 10 ms apart, in seconds


def test_host_marks_never_run_backwards() -> None:
    timer = HostTimer()
    first, second = timer.mark(), timer.mark()
    assert timer.seconds(first, second) >= 0


def test_timers_need_no_torch() -> None:
    assert "torch" not in vars(sys.modules["zbench.probes.timers"])
