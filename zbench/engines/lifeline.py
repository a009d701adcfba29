"""That a process ends with the one that started it, by the kernel; where there is no Linux, nothing happens."""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
"""Of prctl(2). It is the end of the thread that started the process which counts: a main thread must have."""


def die_with(parent: int) -> None:
    """Be killed once the process `parent`, which started this one, is gone; end at once if it is."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != parent:  # it went before it could be asked for
            os._exit(1)
