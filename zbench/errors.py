"""The errors a user can meet, each one line that names the key, the value and the way out.

Everything raised on purpose derives from `ZbenchError` and carries its exit code; anything else
that reaches the command line is a fault of zbench itself (exit 70). What the machine fails at, such as a full disk, is
told from what a trial fails at (`MACHINE_FAULTS`): it says nothing about any trial, and is never kept as an answer.
"""

import errno
import os
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Exit(IntEnum):
    """Exit codes of every command; `meaning` is what `zbench --help` says of each."""

    meaning: str

    DONE = 0, "done"
    REGRESSION = 1, "a regression"
    BAD_INPUT = 2, "bad input"
    INCONCLUSIVE = 3, "inconclusive"
    FAILED = 4, "failed trials or nothing feasible"
    FAULT = 70, "a fault of zbench"
    INTERRUPTED = 130, "interrupted"

    def __new__(cls, code: int, meaning: str) -> "Exit":
        """A code with its meaning beside it."""
        member = int.__new__(cls, code)
        member._value_ = code
        member.meaning = meaning
        return member


class ZbenchError(Exception):
    """A condition that the user can mend."""

    exit_code: Exit = Exit.BAD_INPUT

    def __str__(self) -> str:
        """One line, whatever was typed."""
        return super().__str__().replace("\r", "\\r").replace("\n", "\\n")


class ConfigError(ZbenchError):
    """A config value that cannot be used."""

    def __init__(self, key: str, value: object, problem: str) -> None:
        """`key` is the dotted config key, `problem` says what is wrong and what to do instead."""
        super().__init__(f"{key}={value}: {problem}")
        self.key = key


class OverrideError(ZbenchError):
    """A command line that does not parse or does not compose."""


class RecordError(ZbenchError):
    """A record file that cannot be read, or is not one of zbench's."""


class StoreError(ZbenchError):
    """A run folder that cannot be used: unwritable, missing, or held by another sweep."""


class MachineError(ZbenchError):
    """The machine cannot go on, whatever it is asked for: a full disk, no process left, a lost GPU."""


class WeightsUnavailableError(ZbenchError):
    """Weights that are missing, corrupt or not on this machine."""


class HardwareError(ZbenchError):
    """Hardware that was asked for and is not here."""


class NothingFeasibleError(ZbenchError):
    """No trial satisfies every constraint."""

    exit_code = Exit.FAILED


MACHINE_FAULTS = {
    "No space left on device": "free some space",
    "Disk quota exceeded": "free some space, or have the quota raised",
    "File too large": "free some space, or raise the limit on the size of a file (ulimit -f)",
    "Read-only file system": "make it writable; dmesg says why it is not",
    "Input/output error": "the disk or its connection fails; see dmesg",
    "Remote I/O error": "the disk or its connection fails; see dmesg",
    "Structure needs cleaning": "the file system is damaged; have it checked",
    "Stale file handle": "the shared file system lost the file; mount it anew",
    "Transport endpoint is not connected": "the shared file system is gone; mount it anew",
    "Host is down": "the shared file system is gone; mount it anew",
    "No locks available": "the file system keeps no locks; use a folder on another",
    "Too many open files": "raise the limit on open files (ulimit -n)",
    "Resource temporarily unavailable": "raise the limit on processes (ulimit -u), or end some",
    "can't start new thread": "raise the limit on processes (ulimit -u), or end some",
    "CUDA error: unknown error": "the GPU or its driver fails; see nvidia-smi and dmesg",
    "CUDA unknown error": "the GPU or its driver fails; see nvidia-smi and dmesg",
    "no CUDA-capable device is detected": "the GPU is gone; see nvidia-smi and dmesg",
    "CUDA-capable device(s) is/are busy or unavailable": "another program holds the GPU; see nvidia-smi",
    "all CUDA-capable devices are busy or unavailable": "another program holds the GPU; see nvidia-smi",
    "CUDA error: system not yet initialized": "wait for the fabric manager, or start it",
    "CUDA driver initialization failed": "the GPU or its driver fails; see nvidia-smi and dmesg",
    "uncorrectable ECC error": "the GPU's memory fails; see nvidia-smi -q -d ECC",
    "uncorrectable NVLink error": "the link between GPUs fails; see nvidia-smi nvlink -e",
    "GPU is lost": "reset the GPU or restart the machine; see dmesg",
    "fallen off the bus": "reset the GPU or restart the machine; see dmesg",
    "Driver/library version mismatch": "restart the machine, or load the driver that was installed",
}
"""What a machine says when it fails and no trial is to blame, in the words of errno(3), CUDA and NVML; the way out."""


def machine_fault(said: str) -> str | None:
    """The way out of what the machine fails at, by what was said of it; None where no such thing was said."""
    lower = said.lower()
    return next((way_out for words, way_out in MACHINE_FAULTS.items() if words.lower() in lower), None)


def path_fault(error: OSError) -> str | None:
    """What is wrong with a path that no file can have, or that is not this user's, and the way out; else None.

    Commands look at what the user names with `is_file` and the like, which say False of what is not there, and
    raise for these alone.
    """
    if error.filename is None:
        return None
    ways_out = {
        errno.ENAMETOOLONG: "no path is so long; give a shorter one",
        errno.EACCES: "it, or a folder above it, is not yours to read; see its permissions",
        errno.ELOOP: "its links lead in a circle; give another path",
    }
    way_out = ways_out.get(error.errno or 0)
    path = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else str(error.filename)
    shown = path if len(path) <= 100 else f"{path[:100]}…"
    return None if way_out is None else f"{shown}: {error.strerror}; {way_out}"


def with_causes(error: BaseException) -> "Iterator[BaseException]":
    """An error, what it was raised from or because of, and so on."""
    seen: set[int] = set()
    at: BaseException | None = error
    while at is not None and id(at) not in seen:
        seen.add(id(at))
        yield at
        at = at.__cause__ or at.__context__


def cannot_write(what: str, error: OSError, folder: "Path", needed_bytes: int = 0, otherwise: str = "") -> str:
    """One line: what cannot be written and why, and how much space that takes where there is none.

    `what` names the file, `folder` is where it lies, `otherwise` is the way out where the machine is not at fault.
    """
    said = error.strerror or str(error)
    way_out = machine_fault(said) or otherwise
    if error.errno in (errno.ENOSPC, errno.EDQUOT) and needed_bytes:
        way_out = way_out.replace("free some space", f"free some space: about {megabytes(needed_bytes)} are needed", 1)
        free = _free_bytes(folder)
        way_out += "" if free is None else f", {megabytes(free)} are free"
    return f"cannot write {what}: {said}" + (f"; {way_out}" if way_out else "")


def one_line(error: BaseException) -> str:
    """An exception's message without line breaks."""
    return " ".join(str(error).split())


def megabytes(n_bytes: int) -> str:
    """`0.1 MB`, `12 MB`: never less than what is meant."""
    tenths = -(-n_bytes // 100_000)
    return f"{tenths / 10:.1f} MB" if tenths < 100 else f"{-(-tenths // 10)} MB"


def _free_bytes(folder: "Path") -> int | None:
    for at in (folder, *folder.parents):
        try:
            stat = os.statvfs(at)
        except OSError:
            continue
        return stat.f_bavail * stat.f_frsize
    return None
