"""What ties a process to the one that started it: it ends with that one, and says where it stands when it is asked.

The former is the kernel's work; where there is no Linux, nothing happens.
"""

import ctypes
import faulthandler
import os
import signal
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1
"""Of prctl(2). It is the end of the thread that started the process which counts: a main thread must have."""

WHERE = signal.SIGUSR1
"""Asks a process of ours where it stands."""


def tell_where_when_asked() -> None:
    """Print this process's stack on stderr at each WHERE, its innermost call first, even from native code."""
    faulthandler.enable()
    faulthandler.register(WHERE, all_threads=False)


def answers(pid: int, number: signal.Signals) -> bool:
    """Whether a process does something of its own at a signal (Linux); else it may end by it."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return False
    caught = next((line for line in status.splitlines() if line.startswith("SigCgt:")), "SigCgt: 0")
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)


def die_with(parent: int) -> None:
    """Be killed once the process `parent`, which started this one, is gone; end at once if it is."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != parent:  # it went before it could be asked for
            os._exit(1)
