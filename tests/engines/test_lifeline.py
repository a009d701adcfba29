"""Who answers a signal: a process that does not would end by it."""

import signal
import subprocess
import sys

from zbench.engines.lifeline import WHERE, answers

TOLD = """
import sys, time
from zbench.engines.lifeline import tell_where_when_asked
if sys.argv[1] == "tells":
    tell_where_when_asked()
print("ready", flush=True)
time.sleep(600)
"""


def test_only_who_can_tell_is_asked() -> None:
    seen = {}
    for kind in ("tells", "dies"):
        with subprocess.Popen([sys.executable, "-c", TOLD, kind], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None and process.stdout.readline() == b"ready\n"
            seen[kind] = answers(process.pid, WHERE)
            process.kill()
    assert seen == {"tells": True, "dies": False}
    assert not answers(process.pid, signal.SIGUSR1), "nobody is there any more"
