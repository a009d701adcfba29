"""Ends a worker's process group once the parent that started the worker is gone, however that went; it does no more.

A program of its own beside each worker: `python -I -S watcher.py GROUP`, with the end of a pipe for stdin that the
parent alone can write to. It is no thread of the worker, so neither native code that holds the interpreter nor a stop
(SIGSTOP) of the worker keeps it. It has a session of its own, so what a terminal sends does not reach it, and it is
nobody's child: whoever started it is answered at once.
"""

import os
import signal
import sys
from contextlib import suppress

if __name__ == "__main__":
    if os.fork():
        os._exit(0)
    os.setsid()
    while os.read(0, 4096):
        pass
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(int(sys.argv[1]), signal.SIGKILL)
