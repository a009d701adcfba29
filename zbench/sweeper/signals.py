"""What signals do to a command that measures: ask it to stop, stop it at once, or let it and its workers pause.

| signal | does |
|---|---|
| SIGINT (Ctrl-C), SIGTERM, SIGHUP | the first asks for a stop, the second stops at once |
| SIGQUIT (Ctrl-\\) | stops at once |
| SIGTSTP (Ctrl-Z) | this process and its workers stop, and go on together (SIGCONT) |

What was ignored from the start, as nohup has SIGHUP, stays so, but for SIGINT, which a script's shell ignores for every
command in the background.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from zbench.executors import Executor
from zbench.executors.client import LIVE
from zbench.streams import talk_from_handler
from zbench.sweeper.terminal import ENDING, leave_lost_terminal

SHOW_CURSOR = b"\x1b[?25h"


class Interrupt:
    """The first signal asks for a stop after the current round, the second ends the round too."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self.asked = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """The signal handler."""
        if self.asked or number == signal.SIGQUIT:
            self.asked = True
            self._executor.abort()
            return
        self.asked = True
        talk_from_handler("stopping after the current round; Ctrl-C again stops at once")


@contextmanager
def on_interrupt(interrupt: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Have signals that ask for a stop call `interrupt` inside, and Ctrl-Z pause the workers too."""

    def stop(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            leave_lost_terminal()
        interrupt(number, frame)

    with _handling({**dict.fromkeys((signal.SIGINT, *ENDING), stop), signal.SIGTSTP: _pause}):
        yield


@contextmanager
def _handling(handlers: dict[signal.Signals, Callable[[int, FrameType | None], None]]) -> Iterator[None]:
    before = {}
    for number, handler in handlers.items():
        if number == signal.SIGINT or signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def _pause(number: int, frame: FrameType | None) -> None:
    """Stop the workers, then this process, until it is continued; then continue them.

    A request that was stopped in its middle is made again: its worker sees that (`probes.disturbance`).
    """
    if sys.stderr.isatty():  # rich hides it
        with suppress(OSError):
            os.write(2, SHOW_CURSOR)
    for client in LIVE:
        client.send(signal.SIGSTOP)
    os.kill(os.getpid(), signal.SIGSTOP)
    for client in LIVE:
        client.send(signal.SIGCONT)
