"""Who else computes on a device is told from this process's own children, and never where a container hides it."""

import os
import subprocess
import sys
import time

import pytest
from fake_nvml import GIB, FakeGpu, FakeNvml

from zbench.hardware.nvml import Nvml
from zbench.probes.neighbours import EVERY_S, REMEMBERED_S, Neighbours

PID = os.getpid()


class Asked(FakeNvml):
    """Counts how often it is asked who computes."""

    times = 0

    def __init__(self, gpu: FakeGpu) -> None:
        super().__init__(gpu)
        listed = self.calls["nvmlDeviceGetComputeRunningProcesses"]

        def counted(of: FakeGpu) -> object:
            self.times += 1
            return listed(of)

        self.calls["nvmlDeviceGetComputeRunningProcesses"] = counted


def seen(compute: dict[int, int | None]) -> set[int] | None:
    neighbours = Neighbours(Nvml(FakeNvml(FakeGpu(compute=compute))), 0, [PID])
    neighbours.start()
    return neighbours.seen()


def test_a_foreign_process_is_seen_and_this_one_is_not() -> None:
    assert seen({PID: GIB}) == set()
    assert seen({PID: GIB, 1: GIB}) == {1}


@pytest.mark.parametrize(
    ("utilisation", "foreign"),
    [
        (None, {1, 2}),  # nobody says who is busy
        ({PID: 90, 1: 5, 2: 0}, {1}),
        ({PID: 90, 1: 0}, set()),
        ({1: 0}, {1, 2}),  # an answer without this process, whose kernels do run, is none
    ],
)
def test_a_process_that_holds_memory_and_computes_nothing_is_no_foreign_one(
    utilisation: dict[int, int] | None, foreign: set[int]
) -> None:
    gpu = FakeGpu(compute={PID: GIB, 1: GIB, 2: GIB}, utilisation=utilisation)
    neighbours = Neighbours(Nvml(FakeNvml(gpu)), 0, [PID])
    neighbours.start()
    assert neighbours.seen() == foreign


def test_children_and_grandchildren_are_never_foreign() -> None:
    """A worker's own helpers compute for it."""
    waits = "[sys.executable, '-c', 'input()']"
    nested = f"import subprocess, sys; p = subprocess.Popen({waits}); print(p.pid, flush=True); p.wait()"
    with subprocess.Popen(
        [sys.executable, "-c", nested], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None and child.stdin is not None
        grandchild = int(child.stdout.readline())
        assert seen({PID: GIB, child.pid: GIB, grandchild: GIB}) == set()
        child.stdin.close()


def test_what_a_container_hides_is_unknown_and_not_claimed() -> None:
    assert seen({4_000_001: GIB}) is None
    assert seen({}) == set()  # nobody at all computes


def test_a_visitor_counts_while_it_is_there_and_a_little_longer() -> None:
    """The driver's answer leaves out a busy process now and then."""
    now, gpu = [0.0], FakeGpu(compute={PID: GIB, 1: GIB}, utilisation={PID: 100, 1: 0})
    neighbours = Neighbours(Nvml(FakeNvml(gpu)), 0, [PID], lambda: now[0])
    neighbours.start()
    answers = []
    for now[0], share in ((1.0, 0), (2.0, 30), (3.0, 0), (4.0, 0), (5.0 + REMEMBERED_S, 0)):
        gpu.utilisation = {PID: 100 - share, 1: share}
        neighbours.look()
        answers.append(neighbours.seen(now[0] - 1))
    assert answers == [set(), {1}, {1}, {1}, set()]
    assert neighbours.seen() == {1}


def test_a_visitor_that_no_list_shows_is_seen_by_its_kernels() -> None:
    """It came after one look and was gone before the next."""
    gpu = FakeGpu(compute={PID: GIB}, utilisation={PID: 100})
    neighbours = Neighbours(Nvml(FakeNvml(gpu)), 0, [PID])
    neighbours.start()
    assert neighbours.seen() == set()
    gpu.utilisation = {PID: 60, 4_000_001: 40, 4_000_002: 0}
    neighbours.look()
    assert neighbours.seen() == {4_000_001}


def test_what_ran_before_the_block_or_the_last_look_is_not_asked_for_again() -> None:
    """A measurement that had its turn before is no neighbour of this one."""
    asked: list[int] = []
    gpu = FakeGpu(compute={PID: GIB}, utilisation={PID: 100})
    library = FakeNvml(gpu)
    answer = library.calls["nvmlDeviceGetProcessUtilization"]

    def noted(of: FakeGpu, since_us: int) -> object:
        asked.append(since_us)
        return answer(of, since_us)

    library.calls["nvmlDeviceGetProcessUtilization"] = noted
    neighbours = Neighbours(Nvml(library), 0, [PID])
    before_us = time.time() * 1e6 - 1
    neighbours.start()
    neighbours.look()
    neighbours.look()
    assert before_us <= asked[0] <= asked[1] <= asked[2] <= time.time() * 1e6 + 1


def test_a_helper_of_the_trial_that_has_ended_is_no_visitor() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, text=True) as helper:
        gpu = FakeGpu(compute={helper.pid: GIB}, utilisation={helper.pid: 50})
        neighbours = Neighbours(Nvml(FakeNvml(gpu)), 0, [PID])
        neighbours.start()
        helper.communicate("\n")
    gpu.compute, gpu.utilisation = {PID: GIB}, {PID: 100, helper.pid: 50}
    neighbours.look()
    assert neighbours.seen() == set()


def test_looks_are_kept_apart() -> None:
    """Asking may cost milliseconds, so that rounds of a tenth of a second share an answer."""
    now, library = [0.0], Asked(FakeGpu(compute={PID: GIB}))
    neighbours = Neighbours(Nvml(library), 0, [PID], lambda: now[0])
    neighbours.start()
    once = library.times
    for tenth in range(1, 5):
        now[0] = tenth / 10
        neighbours.look_if_due()
        assert neighbours.seen(now[0] - 0.05) == set()
    assert library.times == once
    now[0] = EVERY_S
    neighbours.seen(EVERY_S - 0.05)  # the last look is old
    assert library.times == 2 * once
