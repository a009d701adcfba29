"""A thread in rank 0 that looks out for its followers: it takes their answers, and sees who died, failed or hangs.

The main thread may sit in a collective that never ends. What is found is therefore first kept for it, and if no call
has raised it within seconds, told to `on_lost` by this thread.
"""

import os
import selectors
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from zbench.engines import LostRank
from zbench.engines.failure import RankError
from zbench.engines.reference.ranks.fellow import LOG_CHARACTERS, LOG_LINES, Fellow
from zbench.engines.reference.ranks.progress import Progress, Reached
from zbench.errors import ZbenchError

POLL_S = 0.5
"""Longest wait between two looks at who is there and how far."""

LONGEST_LOOK_S = 2 * POLL_S
"""More between two looks was no waiting: this process was stopped, or the whole machine slept."""

GRACE_S = 3.0
"""How long the main thread has to find out by itself, and to say so with its own words."""

LONG_AGO_S = -GRACE_S
"""When a rank was lost that hangs: nobody is to find out by himself any more."""


@dataclass
class _Loss:
    """Who fails the trial, since when, and whether the main thread knows."""

    lost: LostRank
    at_s: float  # by `time.perf_counter`
    is_final: bool  # the rank is of no use any more; else it only failed the call
    is_taken: bool = False


class Lookout:
    """Over the followers of one group, from their start to their end."""

    def __init__(
        self, fellows: Sequence[Fellow], progress: Progress, hang_s: float, on_lost: Callable[[LostRank], None]
    ) -> None:
        """`hang_s` is how long no rank may give a sign of life while a call is under way; `on_lost` is told once."""
        self._fellows, self._progress, self._hang_s, self._on_lost = fellows, progress, hang_s, on_lost
        self._news = threading.Condition()
        self._loss: _Loss | None = None
        self._calling = False  # whether a call is under way
        self._own_works = False  # whether rank 0 is at its own part of it
        self._caller = 0  # the thread that calls
        self._closing = False
        self._since = progress.read()  # where each rank was when the call began
        self._wake, self._waking = os.pipe()
        self._thread = threading.Thread(target=self._run, name="zbench-lookout", daemon=True)
        self._thread.start()

    def begin(self) -> None:
        """A call begins. Raises RankError where a rank is lost or still at an earlier one."""
        with self._news:
            if self._loss is not None and self._loss.is_final:
                raise self._raised(self._loss)
            late = next((fellow for fellow in self._fellows if fellow.answer is None), None)
            if late is not None:
                raise RankError(late.lost("rank_lost", "is still at a call that failed"))
            self._loss, self._caller = None, threading.get_ident()
            self._since = self._progress.read()
            self._calling = self._own_works = True

    def end(self) -> None:
        """The call is over, however it went."""
        with self._news:
            self._calling = self._own_works = False

    def wait(self) -> None:
        """Until every follower has answered; rank 0's own part is done. Raises RankError.

        Of one that failed: but first it is seen whether another's death was behind it.
        """
        with self._news:
            self._own_works = False
            self._news.wait_for(lambda: self._loss is not None or self._all_answered())
            self._news.wait_for(self._is_settled, GRACE_S)
            if self._loss is not None:
                raise self._raised(self._loss)

    def cause_of(self, error: Exception, at_s: float) -> RankError | None:
        """The follower behind an error of rank 0's own part at that time; None where it is nobody's but its own.

        A rank that died or hangs is always the cause. One that failed the call is, if it did so first; what the user
        can mend all ranks raise alike, and rank 0 says it.
        """
        with self._news:
            self._own_works = False
            self._news.wait_for(self._is_settled, GRACE_S)
            loss = self._loss
            if loss is None:
                return None
            loss.is_taken = True
            is_the_cause = loss.is_final or (loss.at_s <= at_s and not isinstance(error, ZbenchError))
            return RankError(loss.lost) if is_the_cause else None

    def close(self) -> None:
        """No follower is expected to live on, from now on; the thread ends."""
        with self._news:
            self._closing = True
        os.write(self._waking, b"\0")
        if self._thread is not threading.current_thread():
            self._thread.join()
        os.close(self._waking)
        os.close(self._wake)

    def _raised(self, loss: _Loss) -> RankError:
        loss.is_taken = True
        return RankError(loss.lost)

    def _is_settled(self) -> bool:
        """Whether nothing more is to come of the call."""
        return (self._loss is not None and self._loss.is_final) or self._all_answered()

    def _all_answered(self) -> bool:
        return all(fellow.answer is not None for fellow in self._fellows)

    def _run(self) -> None:
        quiet_s, looked_s, before = 0.0, time.monotonic(), self._progress.read()
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake, selectors.EVENT_READ, None)
            for fellow in self._fellows:
                selector.register(fellow.read_fd, selectors.EVENT_READ, fellow)
            while True:
                for key, _ in selector.select(POLL_S):
                    if self._closing:
                        return
                    if key.data is not None and not self._take(key.data):
                        selector.unregister(key.fd)
                now_s, reached = time.monotonic(), self._progress.read()
                quiet_s = quiet_s + min(now_s - looked_s, LONGEST_LOOK_S) if reached == before else 0.0
                quiet_s = quiet_s if self._calling else 0.0
                looked_s, before = now_s, reached
                if quiet_s > self._hang_s and (lost := self._hung(reached)) is not None:
                    self._found(lost, LONG_AGO_S, is_final=True)
                if not self._told():
                    return

    def _take(self, fellow: Fellow) -> bool:
        """Take what a follower says; False where it has died."""
        with self._news:
            is_there = fellow.read()
            answer = fellow.answer
            if answer is not None and answer["event"] == "failed":
                what = f"failed: {answer['message']}"
                said = fellow.lost(answer["code"], what, stage=answer["stage"], memory=answer["memory"])
                self._found(said, answer["at_s"], is_final=False)
            self._news.notify_all()
        if not is_there and not self._closing:
            self._found(fellow.death(), time.perf_counter(), is_final=True)
        return is_there

    def _found(self, lost: LostRank, at_s: float, *, is_final: bool) -> None:
        """Keep the first of what is found; what is final goes before what is not."""
        with self._news:
            if self._loss is None or (is_final and not self._loss.is_final and not self._loss.is_taken):
                self._loss = _Loss(lost, at_s, is_final)
            self._news.notify_all()

    def _told(self) -> bool:
        """Tell who is to be told once the main thread had its time; False once that is done."""
        with self._news:
            loss = self._loss
            if loss is None or loss.is_taken or self._closing:
                return True
            if not loss.is_final and not self._own_works:
                return True  # the main thread waits for it, or the call is over
            if time.perf_counter() - loss.at_s < GRACE_S:
                return True
            loss.is_taken = True
        self._on_lost(loss.lost)
        return False

    def _hung(self, reached: Sequence[Reached]) -> LostRank | None:
        """The rank that has come least far since the call began, of those that are still at it; where each stands is in
        its log. Ranks that wait for one another within a step have all come as far: then none is singled out. None
        where all have ended after all."""
        own_works = self._own_works
        working = {fellow.rank: fellow for fellow in self._fellows if fellow.answer is None}
        if not own_works and not working:
            return None
        for fellow in working.values():
            fellow.ask_where()
        stands = {0: self._where()} if own_works else {}
        stands |= {rank: fellow.where() for rank, fellow in working.items()}
        ranks = [*([0] if own_works else []), *working]
        done = {rank: reached[rank].count - self._since[rank].count for rank in ranks}
        stopped = [rank for rank in working if working[rank].is_stopped]
        lagging = stopped or [rank for rank in ranks if done[rank] == min(done.values())]
        doing = reached[lagging[0]].doing or "none"
        how = f"gave no sign of life for {self._hang_s:g} s; "
        limit = f"; engine.options.hang_s={self._hang_s:g} sets the limit"
        if len(lagging) > 1:
            named = f"ranks {', '.join(map(str, lagging))}"
            each = max(LOG_LINES // len(lagging), 3)
            tail = [f"[rank {rank}] {line}" for rank in lagging for line in stands[rank][:each]]
            return LostRank(lagging[0], "rank_hung", f"{named} {how}the last of each was {doing}{limit}", tuple(tail))
        behind = max(done.values()) - done[lagging[0]]
        how += f"its last was {doing}" + (f", {behind} behind the rank that is farthest" if behind else "")
        how += ", and it is stopped (SIGSTOP)" if stopped else ""
        if lagging[0] in working:
            fellow = working[lagging[0]]
            return fellow.lost("rank_hung", how + limit, tail=fellow.last_words_and_where())
        return LostRank(0, "rank_hung", f"rank 0 {how}{limit}", stands[0])

    def _where(self) -> tuple[str, ...]:
        """Where rank 0 stands, its innermost call first; it is printed, too."""
        frame = sys._current_frames().get(self._caller)
        calls = reversed(traceback.extract_stack(frame, LOG_LINES))
        lines = [f'File "{call.filename}", line {call.lineno} in {call.name}' for call in calls]
        with suppress(OSError, ValueError):
            print("rank 0 stands at", *lines, sep="\n", file=sys.stderr, flush=True)
        return tuple(line[:LOG_CHARACTERS] for line in lines)
