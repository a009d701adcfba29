"""The reference engine in as many processes as a trial has devices: this one is rank 0, and the others follow it.

What is asked of the group every rank does at the same time, and the group answers for all of them. A request is as slow
as its slowest rank; what ranks saw is kept for each and never pooled. On one device there is nobody else.
"""

import os
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, replace
from typing import Any, TypeVar

from zbench.engines import Batched, Generation, LostRank, OnProgress
from zbench.engines.failure import RankError
from zbench.engines.reference import HANG_S
from zbench.engines.reference.ranks import MakeMember, Member, RankWorld, load_member
from zbench.engines.reference.ranks.agreement import disagreement
from zbench.engines.reference.ranks.fellow import Fellow
from zbench.engines.reference.ranks.lookout import Lookout
from zbench.engines.reference.ranks.meeting import Meeting
from zbench.engines.reference.ranks.part import RankPart, profiled, take_part
from zbench.engines.reference.ranks.progress import Progress
from zbench.measurement import Communication, Effective
from zbench.methods.parallel import ParallelDims
from zbench.probes.watched import Allocator, Watched
from zbench.trial import Trial

T = TypeVar("T")

CLOSE_S = 3.0
"""How long followers may take to leave when asked, all together."""


class RankGroup:
    """See `zbench.engines.Engine` and `Grouped`."""

    def __init__(self, member: str, hang_s: float = HANG_S) -> None:
        """`member` is `module:Name` of what makes a rank's engine (`MakeMember`).

        `hang_s` is how long no rank may give a sign of life during a call, in seconds.
        """
        self._place, self._hang_s = member, hang_s
        self._make: MakeMember | None = None
        self._world: RankWorld | None = None
        self._member: Member | None = None
        self._dims = ParallelDims()
        self._fellows: list[Fellow] = []
        self._lookout: Lookout | None = None
        self._running = ExitStack()
        self._allocator: _FullestAllocator | None = None
        self._beat: Callable[[str], None] = lambda doing: None
        self._dtype = ""
        self._told: list[dict[str, Any]] = []  # what followers said of their launch
        self.on_lost: Callable[[LostRank], None] = lambda lost: self._kill()

    def call_together(self, trial: Trial) -> None:
        """See `Grouped`."""
        self._dims = ParallelDims.of(trial.parallel)
        if self._dims.devices > 1:
            self._world = self._start(self._dims)
        self._make = load_member(self._place)

    def launch(self, trial: Trial, on_progress: OnProgress | None = None) -> None:
        """In every rank. Raises what a rank's engine does, and RankError."""
        make, world = self._make, self._world
        if make is None:
            raise RuntimeError("the group was not called together")
        if world is None:
            self._member = make(None, self._beat)
            self._member.launch(trial, on_progress)
            return
        dims = asdict(world.dims)
        command = {"command": "launch", "dims": dims, "meeting": str(world.meeting)}

        def told(stage: str, done_bytes: int, total_bytes: int) -> None:
            self._beat(stage)
            if on_progress is not None:
                on_progress(stage, done_bytes, total_bytes)

        def launch() -> None:
            self._beat("starting")
            self._member = make(world, self._beat)
            self._member.launch(trial, told)

        commands = [{**command, "rank": fellow.rank, "trial": trial.to_dict()} for fellow in self._fellows]
        _, self._told = self._together(commands, launch)
        allocator = self._own.watch().allocator
        self._allocator = None if allocator is None else _FullestAllocator(allocator)
        self._dtype = self._own.effective().dtype or ""

    def configure(self, trial: Trial) -> None:
        """In every rank."""
        self._mirrored({"command": "configure", "trial": trial.to_dict()}, lambda: self._own.configure(trial))

    def generate(self, prompt_text: str, seed: int, negative_prompt: str = "") -> Generation:
        """Every replica makes the images of one call; the first one's first is returned. Raises RankError too."""
        call = (prompt_text, seed, negative_prompt)
        if not self._fellows:
            return self._own.generate(*call)
        own = None if self._allocator is None else self._allocator.own
        (made, part), answers = self._mirrored(
            {"command": "generate", "call": call}, lambda: take_part(self._own, own, call)
        )
        parts = [part, *(RankPart(**answer["part"]) for answer in answers)]
        self._hold_together(parts)
        if self._allocator is not None:
            self._allocator.note(parts)
        slowest = max(parts, key=lambda each: each.ended_s)
        return replace(
            made,
            latency_s=slowest.ended_s - min(each.began_s for each in parts),
            stages_s=slowest.stages_s,
            steps_s=slowest.steps_s,
            images=self._dims.dp * made.images,
            device_s=slowest.device_s,
            compiled=any(each.compiled for each in parts),
            compile_s=_longest([each.compile_s for each in parts]),
            invalid_reasons=list(dict.fromkeys(reason for each in parts for reason in each.invalid_reasons)),
            ranks=[each.view(rank) for rank, each in enumerate(parts)],
        )

    def generate_batch(self, calls: Sequence[tuple[str, int, str]]) -> list[Generation]:
        """See `Batched`. Of one device alone: `ReferenceEngine.batching_problem`."""
        own = self._own
        if self._fellows or not isinstance(own, Batched):
            raise RuntimeError(f"{self._place}: makes one request's images at a time")
        return own.generate_batch(calls)

    def communication(self, prompt_text: str, seed: int, negative_prompt: str = "") -> list[Communication]:
        """See `Profiled`: that of every rank whose engine can say."""
        call = (prompt_text, seed, negative_prompt)
        own, answers = self._mirrored({"command": "communication", "call": call}, lambda: profiled(self._own, call))
        return [*own, *(Communication(**each) for answer in answers for each in answer["communication"])]

    def effective(self) -> Effective:
        """Rank 0's."""
        return self._own.effective()

    def watch(self) -> Watched:
        """All ranks: their processes and their devices."""
        own = Watched((os.getpid(),)) if self._member is None else self._member.watch()
        if not self._fellows:
            return own
        devices = [*own.devices, *(index for told in self._told for index in told["devices"])]
        return Watched(
            pids=(*own.pids, *(fellow.process.pid for fellow in self._fellows)),
            devices=tuple(dict.fromkeys(devices)),
            allocator=self._allocator,
            context_bytes=own.context_bytes,
        )

    def unwatched(self) -> AbstractContextManager[None]:
        """Of one device: the pipeline as if zbench were not there, to measure what watching costs."""
        made: AbstractContextManager[None] = self._own.unwatched()  # type: ignore[attr-defined]
        return made

    def close(self) -> None:
        """In every rank; those that are still at a call are killed. Their processes end."""
        for fellow in self._fellows:
            if fellow.answer is None or self._lookout is None:
                fellow.kill()
        if self._lookout is not None:
            self._lookout.close()
        for fellow in self._fellows:
            fellow.tell({"command": "quit"})
        member, self._member = self._member, None
        if member is not None:
            member.close()
        until_s = time.monotonic() + CLOSE_S
        for fellow in self._fellows:
            fellow.close(max(until_s - time.monotonic(), 0.0))
        self._fellows, self._lookout, self._told, self._allocator = [], None, [], None
        self._world = None
        self._running.close()

    @property
    def _own(self) -> Member:
        if self._member is None:
            raise RuntimeError("the group was not launched")
        return self._member

    def _start(self, dims: ParallelDims) -> RankWorld:
        """Followers, which import their stack at once, and who looks out for them; rank 0's own place."""
        meeting = Meeting()
        self._running.callback(meeting.close)
        progress = Progress(meeting.folder, dims.devices)
        self._running.callback(progress.close)
        self._beat = lambda doing: progress.bump(0, doing)
        for rank in range(1, dims.devices):
            self._fellows.append(Fellow(rank, self._place))
        self._lookout = Lookout(self._fellows, progress, self._hang_s, lambda lost: self.on_lost(lost))
        return RankWorld(0, dims, meeting.folder)

    def _mirrored(self, command: dict[str, Any], own: Callable[[], T]) -> tuple[T, list[dict[str, Any]]]:
        """The same command for every follower, and rank 0's own part of it."""
        return self._together([command] * len(self._fellows), own)

    def _together(self, commands: Sequence[dict[str, Any]], own: Callable[[], T]) -> tuple[T, list[dict[str, Any]]]:
        """Rank 0's own part of a call while the followers do theirs; what it gave and what they answered.

        Raises RankError where a follower fails it, else what rank 0's own part raises.
        """
        if self._lookout is None:
            return own(), []
        self._lookout.begin()
        try:
            for fellow, command in zip(self._fellows, commands, strict=True):
                fellow.tell(command)
            try:
                made = own()
            except Exception as error:
                cause = self._lookout.cause_of(error, time.perf_counter())
                if cause is None:
                    raise
                raise cause from error
            self._lookout.wait()
        finally:
            self._lookout.end()
        return made, [fellow.answer or {} for fellow in self._fellows]

    def _hold_together(self, parts: Sequence[RankPart]) -> None:
        """Raise RankError for a rank that made another image than the others of its replica."""
        found = disagreement(parts, self._dims.ranks, self._dtype)
        if found is not None:
            rank, what = found
            fellow = self._fellows[rank - 1]
            fellow.hear_out()
            raise RankError(fellow.lost("ranks_disagree", what))

    def _kill(self) -> None:
        for fellow in self._fellows:
            fellow.kill()


def _longest(told_s: Sequence[float | None]) -> float | None:
    """Ranks compile at the same time; None where one does not say."""
    known_s = [seconds for seconds in told_s if seconds is not None]
    return max(known_s) if len(known_s) == len(told_s) else None


class _FullestAllocator:
    """See `Allocator`: peaks are those of the rank that held most since the last reset, and never a sum.

    Ranks reset their own with each call, so what they said of each is kept here.
    """

    def __init__(self, own: Allocator) -> None:
        """`own` is rank 0's."""
        self.own = own
        self._peaks = (0, 0)

    def reset_peaks(self) -> None:
        """Of both peaks."""
        self.own.reset_peaks()
        self._peaks = (0, 0)

    def note(self, parts: Sequence[RankPart]) -> None:
        """What the ranks held at most during a call."""
        held = [(part.peak_allocated_bytes or 0, part.peak_reserved_bytes or 0) for part in parts]
        self._peaks = max(self._peaks[0], *(each[0] for each in held)), max(self._peaks[1], *(each[1] for each in held))

    def peak_allocated_bytes(self) -> int:
        """Of tensors."""
        return max(self._peaks[0], self.own.peak_allocated_bytes())

    def peak_reserved_bytes(self) -> int:
        """Of the blocks that tensors are placed in."""
        return max(self._peaks[1], self.own.peak_reserved_bytes())

    def now(self) -> dict[str, int]:
        """Of rank 0."""
        return self.own.now()
