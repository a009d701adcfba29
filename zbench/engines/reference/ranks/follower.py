"""A rank that follows: a process that does what rank 0 tells it and says how that went; it decides nothing.

`python -m zbench.engines.reference.ranks.follower READ_FD WRITE_FD RANK_0 MEMBER` speaks JSON lines over two inherited
pipes. RANK_0 is the process id of the one that started it, with which it ends, however that dies. MEMBER is what makes
its engine, which is imported before the first command is read.

| command | fields | answered by |
|---|---|---|
| `launch` | `rank`, `dims`, `meeting`, `trial` | `done` with `pid`, `devices` (NVML's indices) |
| `configure` | `trial` | `done` |
| `generate` | `call`: prompt, seed, negative prompt | `done` with `part` |
| `communication` | `call` | `done` with `communication`: what of it was, by its profiler |
| `quit` | | the process ends with code 0 |

What fails is answered by `failed`, with `code`, `message`, `stage`, `memory` and `at_s`, when it did.
"""

import gc
import json
import os
import queue
import signal
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

from zbench.engines.failure import failure
from zbench.engines.lifeline import die_with, tell_where_when_asked
from zbench.engines.reference.ranks import MakeMember, Member, RankWorld, load_member
from zbench.engines.reference.ranks.part import profiled, take_part
from zbench.engines.reference.ranks.progress import Progress
from zbench.methods.parallel import ParallelDims
from zbench.probes.watched import Allocator
from zbench.trial import Trial

STAGES = {"launch": "loading", "configure": "cache configuration", "generate": "a call", "communication": "a profile"}


class Follower:
    """Carries out one command after another."""

    def __init__(self, make: MakeMember) -> None:
        """Nothing is launched yet; `make` makes what will be."""
        self._make = make
        self._carry_out = {
            "launch": self._launch,
            "configure": self._configure,
            "generate": self._generate,
            "communication": self._communication,
        }
        self._member: Member | None = None
        self._allocator: Allocator | None = None

    def answer(self, command: dict[str, Any]) -> dict[str, Any]:
        """What came of a command."""
        name = command["command"]
        try:
            return {"event": "done", **self._carry_out[name](command)}
        except Exception as error:
            at_s = time.perf_counter()
            return {"event": "failed", "at_s": at_s, **failure(error, STAGES[name], self._member)}

    def close(self) -> None:
        """Let go of what was launched."""
        if self._member is not None:
            self._member.close()

    @property
    def _launched(self) -> Member:
        if self._member is None:
            raise RuntimeError("nothing was launched")
        return self._member

    def _launch(self, command: dict[str, Any]) -> dict[str, Any]:
        dims = ParallelDims(**command["dims"])
        world = RankWorld(command["rank"], dims, Path(command["meeting"]))
        progress = Progress(world.meeting, dims.devices)

        def beat(doing: str) -> None:
            progress.bump(world.rank, doing)

        beat("starting")
        member = self._member = self._make(world, beat)
        member.launch(Trial.from_dict(command["trial"]), lambda stage, done, total: beat(stage))
        watched = member.watch()
        self._allocator = watched.allocator
        gc.disable()  # as in rank 0
        return {"pid": os.getpid(), "devices": list(watched.devices)}

    def _configure(self, command: dict[str, Any]) -> dict[str, Any]:
        gc.unfreeze()  # of what is let go now, nothing stays
        self._launched.configure(Trial.from_dict(command["trial"]))
        return {}

    def _generate(self, command: dict[str, Any]) -> dict[str, Any]:
        _, part = take_part(self._launched, self._allocator, _call(command))
        gc.collect()  # outside every clock, while rank 0 looks at its image
        if part.compiled or not gc.get_freeze_count():
            gc.freeze()  # rank 0 waits for this answer, and compiled code takes long to look through
        return {"part": asdict(part)}

    def _communication(self, command: dict[str, Any]) -> dict[str, Any]:
        return {"communication": [asdict(each) for each in profiled(self._launched, _call(command))]}


def _call(command: dict[str, Any]) -> tuple[str, int, str]:
    prompt_text, seed, negative_prompt = command["call"]
    return prompt_text, seed, negative_prompt


def _read(fd: int, commands: "queue.SimpleQueue[dict[str, Any]]") -> None:
    """Commands until the pipe ends, and this process with it."""
    with os.fdopen(fd, encoding="utf-8") as lines:
        for line in lines:
            if not line.endswith("\n"):
                break  # rank 0 died while writing
            commands.put(json.loads(line))
    os._exit(1)


def main() -> None:
    """See this module."""
    read_fd, write_fd, rank_0 = (int(argument) for argument in sys.argv[1:4])
    tell_where_when_asked()
    die_with(rank_0)
    for fd in (read_fd, write_fd):
        os.set_inheritable(fd, False)

    def tell_rank_0(number: int, frame: FrameType | None) -> None:
        """It was stopped for a while, so the call is spoilt: rank 0 counts that as it counts its own."""
        os.kill(rank_0, signal.SIGCONT)

    signal.signal(signal.SIGCONT, tell_rank_0)
    commands: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(read_fd, commands), name="zbench-commands", daemon=True).start()
    follower = Follower(load_member(sys.argv[4]))
    with os.fdopen(write_fd, "w", encoding="utf-8", buffering=1) as out:
        while (command := commands.get())["command"] != "quit":
            out.write(json.dumps(follower.answer(command), allow_nan=False) + "\n")
        follower.close()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)  # threads of libraries must not keep the process


if __name__ == "__main__":
    main()
