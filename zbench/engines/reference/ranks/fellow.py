"""A follower from rank 0's side: its process, its pipes, its last words; what it is asked is the group's business."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from typing import Any

import psutil

from zbench.engines import LostRank
from zbench.engines.lifeline import WHERE
from zbench.probes.memory import oom_kills

LOG_LINES, LOG_CHARACTERS = 30, 400
"""Of its last words, how many lines are told, and of each how much."""

KEPT_LINES, LEADING_LINES = 200, 8
"""How many are kept, for a trace is long; and how many of those before a trace are told with it."""

TRACE = "(most recent call first):"
"""How the first line of a follower's answer to WHERE ends."""

LAST_WORDS_S = 1.0
"""How long the last words of one that died may take to arrive, and the kernel to say how it died."""


class Fellow:
    """One follower. What it prints is printed here, each line after `[rank N]`."""

    def __init__(self, rank: int, member: str) -> None:
        """Start it, in this process's group; it ends with this process. It imports `member` (`load_member`) at once.

        Raises OSError.
        """
        self.rank = rank
        self.answer: dict[str, Any] | None = {"event": "started"}
        """To the latest command; None while it is at it."""
        self._pending = b""
        self._words: deque[str] = deque(maxlen=KEPT_LINES)
        self._n_words = self._words_before = 0  # lines that it has printed, and had when it was asked where it stands
        self._kills_before = oom_kills()
        theirs_read, self._write_fd = os.pipe()
        self.read_fd, theirs_write = os.pipe()
        try:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-P", "-m", "zbench.engines.reference.ranks.follower"),
                    *(str(theirs_read), str(theirs_write), str(os.getpid()), member),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=(theirs_read, theirs_write),
            )
        except BaseException:
            self._close_pipes()
            raise
        finally:
            os.close(theirs_read)
            os.close(theirs_write)
        self._printing = threading.Thread(target=self._print, name=f"zbench-rank-{rank}", daemon=True)
        self._printing.start()

    def tell(self, command: dict[str, Any]) -> None:
        """Send a command; one that is gone is seen by who looks out for it."""
        self.answer = None
        data = memoryview((json.dumps(command, allow_nan=False) + "\n").encode())
        with suppress(BrokenPipeError):
            while data:
                data = data[os.write(self._write_fd, data) :]

    def read(self) -> bool:
        """Take what it has said, which must not be waited for; False at the end of its pipe."""
        chunk = os.read(self.read_fd, 1 << 20)
        self._pending += chunk
        *lines, self._pending = self._pending.split(b"\n")
        for line in lines:
            self.answer = json.loads(line)
        return bool(chunk)

    @property
    def is_stopped(self) -> bool:
        """Whether somebody stopped it (SIGSTOP)."""
        try:
            return psutil.Process(self.process.pid).status() == psutil.STATUS_STOPPED
        except psutil.Error:
            return False

    def ask_where(self) -> None:
        """Have it print where it stands, even in native code; nothing comes of one that is stopped."""
        self._words_before = self._n_words
        self.process.send_signal(WHERE)

    def where(self) -> tuple[str, ...]:
        """Its answer, its innermost call first; waits for it a moment."""
        until_s, seen = time.monotonic() + LAST_WORDS_S, -1
        while time.monotonic() < until_s and not (seen == self._n_words > self._words_before):
            seen = self._n_words
            time.sleep(0.1)
        words = tuple(self._words)
        said = [place for place, line in enumerate(words) if line.endswith(TRACE)]
        return words[said[-1] + 1 :] if said else ()

    def hear_out(self) -> None:
        """Wait a moment for what it has printed until now."""
        until_s, heard = time.monotonic() + LAST_WORDS_S, -1
        while time.monotonic() < until_s and heard != self._n_words:
            heard = self._n_words
            time.sleep(0.1)

    def last_words(self) -> tuple[str, ...]:
        """The end of what it printed."""
        return tuple(self._words)[-LOG_LINES:]

    def last_words_and_where(self) -> tuple[str, ...]:
        """The end of what it printed until it was asked, and the innermost calls of its answer."""
        where, words = self.where(), tuple(self._words)
        return (*words[: len(words) - len(where)][-LEADING_LINES:], *where)[:LOG_LINES]

    def lost(
        self,
        code: str,
        what: str,
        *,
        tail: tuple[str, ...] | None = None,
        stage: str | None = None,
        memory: dict[str, int] | None = None,
    ) -> LostRank:
        """That it fails the trial; `what` says how, after its number, and `tail` is else its last words."""
        words = (self.last_words() if tail is None else tail) or (f"rank {self.rank} printed nothing",)
        return LostRank(self.rank, code, f"rank {self.rank} {what}", words, stage, memory)

    def death(self) -> LostRank:
        """How it died; its pipe has ended, or its process."""
        try:
            code = self.process.wait(LAST_WORDS_S)
        except subprocess.TimeoutExpired:
            self.kill()
            return self.lost("rank_lost", "closed its pipe and did not end")
        self._printing.join(LAST_WORDS_S)
        if code >= 0:
            return self.lost("rank_lost", f"ended by itself with exit code {code}")
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        if -code == signal.SIGKILL and oom_kills() > self._kills_before:
            return self.lost("out_of_memory", "was killed (signal 9) by the kernel's out-of-memory killer")
        return self.lost("rank_lost", f"died of {name} (signal {-code})")

    def kill(self) -> None:
        """End it now, whatever it is at."""
        self.process.kill()

    def close(self, within_s: float) -> None:
        """Reap it, killed unless it ends by itself; close the pipes."""
        try:
            self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            self.kill()
            self.process.wait()
        self._printing.join(LAST_WORDS_S)
        self._close_pipes()

    def _close_pipes(self) -> None:
        os.close(self._write_fd)
        os.close(self.read_fd)

    def _print(self) -> None:
        """Pass on what it prints, until it has ended."""
        assert self.process.stdout is not None
        with self.process.stdout as printed:
            for line in printed:
                text = line.decode(errors="replace").rstrip("\n")
                self._words.append(text[:LOG_CHARACTERS])
                self._n_words += 1
                with suppress(OSError, ValueError):  # where there is no room for the log
                    print(f"[rank {self.rank}] {text}", file=sys.stderr, flush=True)
