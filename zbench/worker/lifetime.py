"""That a worker ends with its parent: by the kernel, and by a watcher that takes along what the worker started.

Linux alone has the first (prctl(2), PR_SET_PDEATHSIG). There it is the end of the thread that started the worker which
counts, so it is asked for only where that was the parent's main thread.
"""

import os
import subprocess
import sys

from zbench.engines.lifeline import die_with
from zbench.worker import watcher

VARIABLE = "ZBENCH_WORKER_OF"
"""In a worker's environment, `PID:FD`: its parent's process id, empty where no main thread started it, and the end of a
pipe that the parent alone can write to."""


def end_with_parent() -> None:
    """Never outlive the parent; end at once if it is gone.

    Raises OSError or CalledProcessError where no watcher can be started.
    """
    parent, _, life = os.environ.get(VARIABLE, "").partition(":")
    if parent.isdecimal():
        die_with(int(parent))
    if not life.isdecimal():
        return
    subprocess.run(
        [sys.executable, "-I", "-S", watcher.__file__, str(os.getpgrp())],
        stdin=int(life),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    os.close(int(life))
