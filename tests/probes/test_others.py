"""What other programs keep cores busy: a real one, and none."""

import os
import subprocess
import sys
import time
from types import SimpleNamespace

import psutil
import pytest

from zbench.probes import others
from zbench.probes.others import OthersOnCores

CORES = 4


class Machine:
    """Seconds that all cores and each process have computed so far."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.busy_s, self.cpu_s = 0.0, {os.getpid(): 0.0, 11: 0.0, 22: 0.0, 33: 0.0}
        monkeypatch.setattr(others, "_busy_s", lambda: self.busy_s)
        monkeypatch.setattr(others, "_cpu_s", lambda pid, **_: self.cpu_s.get(pid, 0.0))
        monkeypatch.setattr(others, "_own", lambda: {os.getpid(), 33})
        monkeypatch.setattr(others, "_name", lambda pid: f"program{pid}")
        stand_in = SimpleNamespace(cpu_count=lambda: CORES, pids=lambda: list(self.cpu_s), Error=psutil.Error)
        monkeypatch.setattr(others, "psutil", stand_in)

    def compute(self, **seconds: float) -> None:
        """By `own` and by processes `p11` and so on; `hidden` is nobody's that can be seen."""
        for who, s in seconds.items():
            self.busy_s += s
            pid = {"own": 33, "hidden": -1}.get(who) or int(who[1:])
            if pid > 0:
                self.cpu_s[pid] += s


def test_who_uses_the_cores_is_named_the_busiest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    machine, watch = Machine(monkeypatch), OthersOnCores()
    assert watch.look(0.0) is None
    machine.compute(own=10.0, p11=5.0, p22=10.0)
    assert watch.look(10.0) == "other programs use 1.5 of 4 cores", "who they are is asked for now"
    machine.compute(own=10.0, p11=5.0, p22=10.0)
    assert watch.look(20.0) == "2 other processes use 1.5 of 4 cores: program22 (pid 22), program11 (pid 11)"
    machine.compute(own=10.0, p11=0.5, p22=8.0)
    assert watch.look(30.0) == "1 other process uses 0.8 of 4 cores: program22 (pid 22)"


def test_what_is_computed_for_the_trial_is_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    machine, watch = Machine(monkeypatch), OthersOnCores()
    watch.look(0.0)
    machine.compute(own=40.0)
    assert watch.look(10.0) is None


def test_load_of_nobody_that_can_be_seen_is_load_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    machine, watch = Machine(monkeypatch), OthersOnCores()
    for at_s in (0.0, 10.0, 20.0):
        said = watch.look(at_s)
        machine.compute(hidden=20.0)
    assert said == "other programs use 2.0 of 4 cores"


def test_a_child_of_this_process_is_its_own() -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as child:
        assert child.pid in others._own() and os.getpid() in others._own()
        child.kill()


def test_what_a_child_computed_that_is_gone_is_still_this_processs_own() -> None:
    def own_s() -> float:
        return sum(others._cpu_s(pid, of_children=True) for pid in others._own())

    before_s, code = own_s(), "import time\nwhile time.process_time() < 0.5: pass"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert own_s() - before_s > 0.4


def test_a_look_at_the_real_machine_raises_nothing() -> None:
    watch = OthersOnCores()
    assert watch.look(time.monotonic()) is None
    said = watch.look(time.monotonic() + 1e-3)
    assert said is None or "cores" in said
