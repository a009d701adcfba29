"""Turns on a device: measurements of any zbench of this machine, whoever runs it, come one after another there.

A device is a file in a folder that all users share. Whose turn it is holds it with flock(2): the kernel lets go of it
when that process is gone, and wakes those that wait in the order in which they came. Of several devices each is taken
in the order of their names, so that no two wait for one another. Who shares the device (`executor.share_device`) waits
for nobody and leaves its name as a guest, so that the one whose turn it is knows. It measures nothing itself.
"""

import fcntl
import json
import os
import pwd
import re
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Literal

import psutil

from zbench.measurement import DeviceTurn
from zbench.sanitize import printable

FOLDER_VARIABLE = "ZBENCH_TURNS_DIR"
"""Environment variable of the folder that takes the place of FOLDERS; containers that share a device share one."""

FOLDERS = (Path("/run/lock"), Path("/tmp"))
"""The first that anybody may write to and nobody may take another's files from: so all users choose the same one."""

EVERYBODYS = 0o1777
CPU = "cpu"
SERVER = "server-"
"""How the name of a server begins; all others are GPUs."""
LONGEST = 200
"""Characters that are shown of what somebody else wrote."""
MOST_READ = 4096
MOST_GUESTS = 65536
"""Bytes of guests' names that are kept."""
POLL_S = 0.05
AFTER_ANOTHER_S = 1.0
"""Between another's turn on a GPU and one that waited for it: whoever computed so lately still counts as a neighbour
(`probes.neighbours.RECENT_S`)."""
LOOK_S = 1.0
"""Between two looks at who has what is waited for."""


class TurnOnDevices:
    """One turn on some devices: `begin`, wait until `is_ours`, and `end`, also instead of waiting."""

    def __init__(self, devices: Sequence[str], run: str, *, share: bool = False, folder: Path | None = None) -> None:
        """`run` is what others are told of it. `folder` is by default `turns_folder()`."""
        self.devices = tuple(sorted(set(devices)))
        self._run, self._share = run, share
        self._folder = turns_folder() if folder is None else folder
        self._taken: list[_DeviceFile] = []
        self._awaited: _DeviceFile | None = None
        self._changing = threading.Lock()
        self._ours, self._over = threading.Event(), False
        self._problem: str | None = None
        self._began_s = self._waited_s = self._looked_s = 0.0
        self._holder = ""
        self._guests: list[int] = []  # file descriptors

    def begin(self) -> None:
        """Take the devices if nobody has them, else wait for them in a thread."""
        self._began_s = time.monotonic()
        if self._folder is None:
            self._give_up("no folder is there that all users may write to")
        elif self._share:
            self._visit(self._folder)
        elif not self._take(self._folder, wait=False):
            threading.Thread(target=self._take, args=(self._folder,), name="zbench-turn", daemon=True).start()

    @property
    def is_ours(self) -> bool:
        """Whether to measure now."""
        return self._ours.is_set()

    @property
    def problem(self) -> str | None:
        """A sentence that says why it is not known whether others measure there too."""
        return self._problem

    def waits_for(self) -> str | None:
        """A sentence that says for whom it waits; None where it does not."""
        awaited, now_s = self._awaited, time.monotonic()
        if awaited is None:
            return None
        if now_s - self._looked_s >= LOOK_S:
            self._looked_s, self._holder = now_s, awaited.holder()
        return f"waits for its turn on {awaited.device}: {self._holder}"

    def about(self) -> dict[str, object]:
        """What it is so far, JSON-ready."""
        return asdict(DeviceTurn(list(self.devices), self._kept(), self._waited_s))

    def end(self) -> DeviceTurn:
        """Let others have the devices, and say what this turn was."""
        kept = self._kept()
        with self._changing:
            beside = self._guests_meanwhile() if self.is_ours and kept == "alone" else []
            self._over = True
            if self.is_ours:  # else the thread that waits lets go, once it has what it waits for
                self._let_go()
        return DeviceTurn(list(self.devices), kept, self._waited_s, beside)

    def _kept(self) -> Literal["alone", "shared", "unknown"]:
        return "unknown" if self._problem is not None else "shared" if self._share else "alone"

    @contextmanager
    def taken(self, tell: Callable[[str], None]) -> Iterator[None]:
        """Wait for it, have it, and end it; `tell` hears for whom it waits, and who came meanwhile. Any signal's
        exception ends the wait."""
        self.begin()
        said = None
        try:
            while not self._ours.wait(POLL_S):
                if (now := self.waits_for()) is not None and now != said:
                    said = now
                    tell(now)
            if self._problem is not None:
                tell(self._problem)
            yield
        finally:
            beside = self.end().beside
        if beside:
            tell(f"others measured on the device meanwhile, with executor.share_device=true: {'; '.join(beside)}")

    def _take(self, folder: Path, wait: bool = True) -> bool:
        """Every device that is left, in turn; whether that came to an end. Where it cannot be, measure without."""
        try:
            while len(self._taken) < len(self.devices) and not self._over:
                if not self._take_next(folder, wait):
                    return False
        except OSError as error:
            self._give_up(f"{folder}, {error.strerror or error}")
            return True
        if wait and any(device != CPU and not device.startswith(SERVER) for device in self.devices):
            time.sleep(AFTER_ANOTHER_S)
        with self._changing:
            if self._over:  # nobody waits for it any more
                self._let_go()
                return True
            me = _myself(self._run)
            for file in self._taken:
                file.begin(me)
            self._waited_s = time.monotonic() - self._began_s
            self._ours.set()
        return True

    def _take_next(self, folder: Path, wait: bool) -> bool:
        """Whether it is taken; what it was waited for in vain is waited for again by the next call."""
        file = self._awaited or _DeviceFile(folder, self.devices[len(self._taken)])
        self._awaited = file
        if not file.lock(wait):
            return False
        self._awaited = None
        if file.is_in_place():
            self._taken.append(file)
        else:  # somebody cleared the folder
            file.close()
        return True

    def _let_go(self) -> None:
        for file in self._taken:
            file.close()
        for guest in self._guests:
            os.close(guest)
        self._taken, self._guests = [], []

    def _visit(self, folder: Path) -> None:
        try:
            for device in self.devices:
                self._guests.append(_leave_name(_path(folder, device, "guests"), _myself(self._run)))
        except OSError as error:
            self._give_up(f"{folder}, {error.strerror or error}")
        self._ours.set()

    def _give_up(self, problem: str) -> None:
        self._problem = f"takes no turns with other measurements: {problem}; {FOLDER_VARIABLE} names another folder"
        self._ours.set()

    def _guests_meanwhile(self) -> list[str]:
        return list(dict.fromkeys(who for file in self._taken for who in file.guests()))


class _DeviceFile:
    """The file of one device."""

    def __init__(self, folder: Path, device: str) -> None:
        self.device, self._folder = device, folder
        self._path = _path(folder, device, "lock")
        self._fd = _opened(self._path)

    def lock(self, wait: bool) -> bool:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            return False
        return True

    def is_in_place(self) -> bool:
        """Whether its path still leads to it."""
        try:
            return os.path.samestat(os.stat(self._path, follow_symlinks=False), os.fstat(self._fd))
        except OSError:
            return False

    def begin(self, me: dict[str, str | int]) -> None:
        """Write who has it, and forget the guests of before, if none is here."""
        with suppress(OSError):
            _write(self._fd, json.dumps(me).encode())
        with suppress(OSError):
            guests = _opened(_path(self._folder, self.device, "guests"))
            try:
                fcntl.flock(guests, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.ftruncate(guests, 0)
            finally:
                os.close(guests)

    def guests(self) -> list[str]:
        """Who came as a guest since the turn began, or was there then."""
        with suppress(OSError):
            guests = _opened(_path(self._folder, self.device, "guests"))
            try:
                return [_described(line) for line in os.pread(guests, MOST_READ, 0).splitlines()]
            finally:
                os.close(guests)
        return []

    def holder(self) -> str:
        """Who has it, in words."""
        try:
            return f"{_described(os.pread(self._fd, MOST_READ, 0))} measures there"
        except OSError:
            return "another zbench measures there"

    def close(self) -> None:
        """Let go of it."""
        with suppress(OSError):
            _write(self._fd, b"")
        os.close(self._fd)


def turns_folder() -> Path | None:
    """The folder of the devices' files; None where there is none that all users may write to."""
    named = os.environ.get(FOLDER_VARIABLE)
    if named:
        return Path(named)
    for folder in FOLDERS:
        with suppress(OSError):
            if stat.S_IMODE(folder.stat().st_mode) & EVERYBODYS == EVERYBODYS and os.access(folder, os.W_OK):
                return folder
    return None


def _path(folder: Path, device: str, kind: str) -> Path:
    return folder / f"zbench-{re.sub(r'[^0-9A-Za-z.-]', '_', device)[:LONGEST]}.{kind}"


def _opened(path: Path) -> int:
    """A regular file of this name alone, that anybody may write. Raises OSError for a link, and whatever else it is.

    A file that is there is opened without O_CREAT, which Linux refuses for another user's in such a folder
    (fs.protected_regular).
    """
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    while True:
        try:
            fd = os.open(path, flags)
        except FileNotFoundError:
            try:
                fd = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o666)
            except FileExistsError:
                continue
            os.fchmod(fd, 0o666)  # whatever the umask
        except PermissionError:  # another user made it a moment ago; to hold it, reading is enough
            fd = os.open(path, flags & ~os.O_RDWR)
        found = os.fstat(fd)
        if stat.S_ISREG(found.st_mode) and found.st_nlink <= 1:
            return fd
        os.close(fd)
        raise OSError(None, f"{path.name} is no file of its own; remove it")


def _leave_name(path: Path, me: dict[str, str | int]) -> int:
    """The open file of a device's guests, with this one's name at its end."""
    guests = _opened(path)
    fcntl.flock(guests, fcntl.LOCK_SH)
    if os.fstat(guests).st_size > MOST_GUESTS:
        os.ftruncate(guests, 0)
    fcntl.fcntl(guests, fcntl.F_SETFL, os.O_APPEND)
    os.write(guests, json.dumps(me).encode() + b"\n")
    return guests


def _write(fd: int, data: bytes) -> None:
    os.ftruncate(fd, 0)
    os.pwrite(fd, data, 0)


def _myself(run: str) -> dict[str, str | int]:
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        user = str(os.getuid())
    program = Path(sys.argv[0] if sys.argv else "").stem
    words = ["zbench" if program == "__main__" else program]
    words += [word for word in sys.argv[1:2] if re.fullmatch("[a-z]+", word)]
    since = datetime.now().astimezone().isoformat(timespec="seconds")
    return {"command": " ".join(words), "run": run, "pid": os.getpid(), "user": user, "since": since}


def _described(data: bytes) -> str:
    """What a file says of its holder, in words: anybody may have written it."""
    try:
        said = json.loads(data)
        pid, since = int(said["pid"]), datetime.fromisoformat(said["since"]).astimezone()
        command, run, user = (printable(str(said[name]))[:LONGEST] for name in ("command", "run", "user"))
    except (ValueError, KeyError, TypeError, OverflowError):
        return "another zbench"
    when = since.strftime("%H:%M:%S" if since.date() == datetime.now().date() else "%Y-%m-%d %H:%M:%S")
    state = ", which is stopped," if _is_stopped(pid) else ""
    return f"{command} ({run}, pid {pid}, {user}, since {when}){state}"


def _is_stopped(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_STOPPED)
    except (psutil.Error, ValueError, OverflowError):
        return False
