"""What runs on another machine: a `LocalExecutor` that measures one task after another, as it is told.

Its folder is one of its own, in the machine's folder for temporary files: images, references and logs lie there while
it lives, and what a run keeps of them goes with each answer. What a node left that was killed is removed by the next.
Who made it carries its messages, and must see that it ends where its pool is gone.
"""

import fcntl
import os
import queue
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from zbench.config import ExecutorConfig
from zbench.errors import ZbenchError, one_line
from zbench.executors import Completed, Done, Task
from zbench.executors.local import LocalExecutor
from zbench.executors.remote import freight, wire

EVENT_S = 1.0
"""Between two events of a kind that a trial's node passes on: who measures is not to be kept busy with talk."""

LOG_BYTES = 64 * 1024
"""Of what workers printed during a task, its end."""

SCRATCH = "zbench-node-"
"""How the name of a node's folder begins."""

SCRATCH_RESTS_S = 60.0
"""So long it is left alone, whether it is held or not."""

REPEATED = ("round", "loading")
"""Events that come again and again."""


class NodeAtWork:
    """One worker of a pool, on its machine."""

    def __init__(
        self,
        begin: bytes,
        say: Callable[[bytes], None],
        *,
        name: str = "",
        about: dict[str, Any] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`begin` is the pool's first message, `say` carries what is said to it, from any thread.

        `name` is the machine's, by default its host name. `about`: what else each environment is to say.
        """
        self._begin, self._say, self._clock = begin, say, clock
        self._about = {"node": name or socket.gethostname(), **(about or {})}
        self._orders: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._told_at: dict[tuple[Any, ...], float] = {}
        self._log_read: dict[Path, int] = {}

    def hear(self, message: bytes) -> None:
        """One message of the pool, in its order; returns at once."""
        kind = wire.unpacked(message)[0]["say"]
        if kind == "run":
            self._stop.clear()
            self._orders.put(message)
        else:
            self._stop.set()
            if kind == "leave":
                self._orders.put(None)

    def work(self) -> None:
        """Until it is told to leave, or its machine fails; nothing is raised."""
        try:
            with _scratch() as folder:
                self._work_in(folder)
            self._say(wire.packed({"say": "bye"}))
        except (ZbenchError, OSError) as error:
            self._say(wire.packed({"say": "broken", "why": one_line(error)}))
        except Exception as error:  # a fault of zbench itself, which must not leave a pool waiting
            self._say(wire.packed({"say": "broken", "why": f"{type(error).__name__}: {one_line(error)}"}))

    def _work_in(self, folder: Path) -> None:
        begin, _ = wire.unpacked(self._begin)
        run = folder / (Path(begin["run"]).name or "run")  # whose name those see who wait for their turn
        config = ExecutorConfig(name="local", target="", concurrent_trials=1, share_device=begin["share_device"])
        with LocalExecutor(config, run / "logs", allow_code=begin["allow_code"]) as executor:
            here = {**executor.environments[0], **self._about}
            self._say(
                wire.packed({"say": "hello", "wire": wire.VERSION, "node": self._about["node"], "environment": here})
            )
            while (message := self._orders.get()) is not None:
                self._run(executor, message, run)

    def _run(self, executor: LocalExecutor, message: bytes, run: Path) -> None:
        """Measure one task and say what came of it."""
        head, files = wire.unpacked(message)
        for name in {name.partition("/")[0] for name in files}:
            freight.unloaded(freight.under(name, files), run / "references" / Path(name).name)
        task = wire.task_in(head["task"], run / "artifacts", run / "references")
        self._told_at.clear()
        executor.submit(task)
        done = executor.next_done(self._pass_on, self._stop.is_set)
        environment = None if done.environment is None else {**done.environment, **self._about}
        told = {"say": "done", "task": head["task"], "results": wire.results_out(done), "environment": environment}
        self._say(wire.packed({**told, "log": self._printed(run / "logs")}, _left_by(done)))
        shutil.rmtree(run / "artifacts", ignore_errors=True)

    def _pass_on(self, _: Task, event: dict[str, Any]) -> None:
        """Say an event, unless the same kind of the same trial was just said."""
        key, now = (event["event"], event.get("trial_id"), event.get("phase")), self._clock()
        if event["event"] in REPEATED and now - self._told_at.get(key, float("-inf")) < EVENT_S:
            return
        self._told_at[key] = now
        self._say(wire.packed({"say": "event", "event": event}))

    def _printed(self, logs: Path) -> str:
        """What its workers printed since it was asked last, if that is not much."""
        said = []
        for path in sorted(logs.glob("*.log")):
            with suppress(OSError), path.open("rb") as log:
                size = os.fstat(log.fileno()).st_size
                log.seek(max(self._log_read.get(path, 0), size - LOG_BYTES))
                said.append(log.read().decode(errors="replace"))
                self._log_read[path] = size
        return "".join(said)


def _left_by(done: Done) -> dict[str, bytes]:
    """The images of each trial that was measured, under its number."""
    return {
        f"{number}/{name}": data
        for number, (setting, result) in enumerate(zip(done.task.settings, done.results, strict=True))
        if isinstance(result, Completed)
        for name, data in freight.collected(setting.artifacts).items()
    }


@contextmanager
def _scratch() -> Iterator[Path]:
    """A folder that this process alone uses, gone at the end; those of nodes that ended otherwise go now."""
    for left in Path(tempfile.gettempdir()).glob(f"{SCRATCH}*"):
        _remove_unheld(left)
    folder = Path(tempfile.mkdtemp(prefix=SCRATCH))
    held = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(held)


def _remove_unheld(folder: Path) -> None:
    """A node's folder that nobody holds any more; another user's stays, and one that was made this very moment."""
    try:
        held = os.open(folder, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_DIRECTORY)
    except OSError:
        return
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        status = os.fstat(held)
        if status.st_uid == os.getuid() and time.time() - status.st_mtime > SCRATCH_RESTS_S:
            shutil.rmtree(folder, ignore_errors=True)
    except OSError:
        pass
    finally:
        os.close(held)
