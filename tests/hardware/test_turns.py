"""Turns on a device, between turns of one process and between processes."""

import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from zbench.hardware import turns
from zbench.hardware.turns import FOLDER_VARIABLE, TurnOnDevices, turns_folder
from zbench.probes.neighbours import RECENT_S

HOLDS = """
import sys, time
from pathlib import Path
from zbench.hardware.turns import TurnOnDevices
turn = TurnOnDevices(["cpu"], "runs/theirs", folder=Path(sys.argv[1]))
turn.begin()
assert turn.is_ours
print("has it", flush=True)
time.sleep(600)
"""


def until(true: Callable[[], bool]) -> None:
    """Wait for what must come; a test that hangs here has failed."""
    for _ in range(3000):
        if true():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come")


def begun(folder: Path, *devices: str, share: bool = False, run: str = "runs/mine") -> TurnOnDevices:
    turn = TurnOnDevices(devices or ("cpu",), run, share=share, folder=folder)
    turn.begin()
    return turn


def test_the_second_waits_and_says_for_whom_until_the_first_is_over(tmp_path: Path) -> None:
    first = begun(tmp_path, run="runs/first")
    second = begun(tmp_path)
    assert first.is_ours and not second.is_ours and first.waits_for() is None
    said = second.waits_for()
    assert said is not None and said.startswith("waits for its turn on cpu: ") and said.endswith(" measures there")
    assert f"(runs/first, pid {os.getpid()}, " in said and ", since " in said
    assert first.end().kept == "alone"
    until(lambda: second.is_ours)
    assert second.waits_for() is None and second.end().waited_s > 0
    assert begun(tmp_path).is_ours


def test_a_gpu_rests_between_two_turns_so_that_the_former_is_no_neighbour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert turns.AFTER_ANOTHER_S >= RECENT_S
    rests: list[float] = []
    monkeypatch.setattr(turns, "time", SimpleNamespace(monotonic=time.monotonic, sleep=rests.append))
    for device, expected in (("cpu", []), ("server-10.0.0.1-80", []), ("GPU-0", [turns.AFTER_ANOTHER_S])):
        rests.clear()
        first, second = begun(tmp_path, device), begun(tmp_path, device)
        first.end()
        until(lambda waited=second: waited.is_ours)
        assert rests == expected
        second.end()


def test_devices_are_apart(tmp_path: Path) -> None:
    assert begun(tmp_path, "GPU-0").is_ours and begun(tmp_path, "GPU-1").is_ours and begun(tmp_path, "cpu").is_ours


def test_whoever_waits_comes_before_the_one_that_had_it(tmp_path: Path) -> None:
    first = begun(tmp_path)
    second = begun(tmp_path)
    first.end()
    until(lambda: second.is_ours)
    again = begun(tmp_path)
    assert not again.is_ours
    second.end()
    until(lambda: again.is_ours)


def test_two_that_go_on_and_on_alternate(tmp_path: Path) -> None:
    """What a sweep beside another does: end a turn, write its record, begin the next."""
    had: list[str] = []

    def sweep(name: str) -> None:
        for _ in range(10):
            with TurnOnDevices(["cpu"], name, folder=tmp_path).taken(lambda text: None):
                had.append(name)
                time.sleep(0.05)
            time.sleep(0.01)

    threads = [threading.Thread(target=sweep, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    middle = "".join(had[2:18])
    assert "aaaa" not in middle and "bbbb" not in middle, had


def test_a_turn_ends_with_its_process_however_that_ends(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDS, str(tmp_path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "has it\n"
        mine = begun(tmp_path)
        said = mine.waits_for()
        assert not mine.is_ours and said is not None and f"(runs/theirs, pid {holder.pid}, " in said
        holder.send_signal(signal.SIGSTOP)
        until(lambda: ", which is stopped, measures there" in (mine.waits_for() or ""))
        os.kill(holder.pid, signal.SIGKILL)
        until(lambda: mine.is_ours)


def test_who_waits_no_more_keeps_nobody_waiting(tmp_path: Path) -> None:
    first = begun(tmp_path, "a", "b")
    given_up = begun(tmp_path, "a", "b")
    given_up.end()
    first.end()
    third = begun(tmp_path, "a", "b")
    until(lambda: third.is_ours)


def test_several_devices_in_any_order_never_wait_for_one_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "AFTER_ANOTHER_S", 0.0)

    def sweep(*devices: str) -> None:
        for _ in range(40):
            with TurnOnDevices(devices, "x", folder=tmp_path).taken(lambda text: None):
                pass

    orders = (("GPU-1", "GPU-0", "GPU-2"), ("GPU-0", "GPU-2", "GPU-1"), ("GPU-2", "GPU-1"))
    threads = [threading.Thread(target=sweep, args=devices, daemon=True) for devices in orders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


def test_who_shares_waits_for_nobody_and_the_one_whose_turn_it_is_knows(tmp_path: Path) -> None:
    mine = begun(tmp_path)
    guest = begun(tmp_path, share=True, run="runs/guest")
    assert guest.is_ours and begun(tmp_path, share=True).is_ours
    assert guest.end().kept == "shared"
    turn = mine.end()
    assert turn.kept == "alone" and any("(runs/guest, pid " in who for who in turn.beside)


def test_a_turn_as_a_whole_ends_with_who_came_meanwhile(tmp_path: Path) -> None:
    said: list[str] = []
    for guests in (0, 1):
        with TurnOnDevices(["cpu"], "runs/mine", folder=tmp_path).taken(said.append):
            for _ in range(guests):
                begun(tmp_path, share=True, run="runs/guest").end()
    (told,) = said
    assert told.startswith("others measured on the device meanwhile, ") and "(runs/guest, pid " in told


def test_guests_of_before_are_none_of_a_turn_and_one_that_is_there_is(tmp_path: Path) -> None:
    begun(tmp_path, share=True, run="runs/gone").end()
    assert begun(tmp_path).end().beside == []
    stays = begun(tmp_path, share=True, run="runs/stays")
    (who,) = begun(tmp_path).end().beside
    assert "runs/stays" in who
    stays.end()


@pytest.mark.parametrize("kind", ["link", "hard link", "pipe", "folder"])
def test_what_another_user_may_have_put_there_is_not_followed(kind: str, tmp_path: Path) -> None:
    precious, place = tmp_path / "precious", tmp_path / "zbench-cpu.lock"
    precious.write_text("precious")
    {
        "link": lambda: place.symlink_to(precious),
        "hard link": lambda: place.hardlink_to(precious),
        "pipe": lambda: os.mkfifo(place),
        "folder": place.mkdir,
    }[kind]()
    mine = begun(tmp_path)
    assert mine.is_ours and mine.problem is not None and FOLDER_VARIABLE in mine.problem
    assert mine.end().kept == "unknown" and precious.read_text() == "precious"


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\x00", b"[]", b'{"pid": 1e999}', json.dumps({"command": "x", "pid": 1}).encode()],
)
def test_a_file_that_says_nothing_sensible_names_nobody(content: bytes, tmp_path: Path) -> None:
    first, second = begun(tmp_path), begun(tmp_path)
    (tmp_path / "zbench-cpu.lock").write_bytes(content)
    assert second.waits_for() == "waits for its turn on cpu: another zbench measures there"
    first.end()


def test_what_others_wrote_is_shown_so_that_it_harms_no_terminal(tmp_path: Path) -> None:
    first, second = begun(tmp_path, run="\x1b[2J" + "x" * 5000), begun(tmp_path)
    said = second.waits_for()
    assert said is not None and "\x1b" not in said and len(said) < 1000
    first.end()


def test_every_user_may_use_the_files_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        begun(tmp_path).end()
        begun(tmp_path, share=True).end()
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {"zbench-cpu.lock": 0o666, "zbench-cpu.guests": 0o666}


def test_a_folder_that_only_some_may_write_to_is_not_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the users of a machine would not meet in one and the same."""
    own, shared = tmp_path / "own", tmp_path / "shared"
    own.mkdir(0o755)
    shared.mkdir()
    shared.chmod(0o1777)
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    monkeypatch.setattr(turns, "FOLDERS", (tmp_path / "none", own, shared))
    assert turns_folder() == shared
    monkeypatch.setattr(turns, "FOLDERS", (own,))
    assert turns_folder() is None
    alone = TurnOnDevices(["cpu"], "x")
    alone.begin()
    assert alone.is_ours and alone.problem is not None and alone.end().kept == "unknown"
    monkeypatch.setenv(FOLDER_VARIABLE, str(own))
    assert turns_folder() == own


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    lost = begun(tmp_path / "none")
    assert lost.is_ours and lost.problem is not None and "No such file" in lost.problem
    guest = begun(tmp_path / "none", share=True)
    assert guest.is_ours and guest.end().kept == "unknown"
