"""What every command does when it is told to end, or its terminal goes. Imports nothing heavy: `--help` comes by."""

import errno
import os
import signal
from types import FrameType

ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


def end_as_ctrl_c_does() -> None:
    """Have SIGTERM, SIGHUP and SIGQUIT raise KeyboardInterrupt, so that cursors are shown and workers let go.

    What was ignored from the start, as nohup has SIGHUP, stays ignored.
    """
    for number in ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)


def leave_lost_terminal() -> None:
    """Where a terminal is gone, what is still to be said goes nowhere, instead of failing what is still to be done."""
    for descriptor in (0, 1, 2):
        try:
            os.ttyname(descriptor)
        except OSError as error:
            if error.errno == errno.EIO:  # ENOTTY: it is a file or a pipe, as before
                nowhere = os.open(os.devnull, os.O_RDWR)
                os.dup2(nowhere, descriptor)
                os.close(nowhere)


def _interrupt(number: int, frame: FrameType | None) -> None:
    if number == signal.SIGHUP:
        leave_lost_terminal()
    raise KeyboardInterrupt
