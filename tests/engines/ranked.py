"""An engine of several ranks without torch, for tests of what holds a group of them together.

Each rank paints, and after each step waits for all others in native code that no lost rank ends, as NCCL does.
`engine.options` say which rank misbehaves and how, in its second call; a trial has as many ranks as devices.
"""

import ctypes
import os
import signal
import stat
import time
from contextlib import suppress

import numpy as np

from zbench.engines import Engine, Generation, OnProgress, Residency, residency_by_keys
from zbench.engines.reference.ranks import Beat, RankWorld
from zbench.engines.reference.ranks.group import RankGroup
from zbench.errors import ConfigError
from zbench.measurement import Effective
from zbench.probes.watched import Watched
from zbench.trial import Trial

SIDE = 16  # pixels
GOES_WRONG_IN = 2  # of the calls, from 1


class RankedEngine:
    """Describes a group of `Ranked`. `bad_rank` does `misdeed` in its second call."""

    def __init__(self, misdeed: str = "", bad_rank: int = 0, hang_s: float = 60.0) -> None:
        self._hang_s = hang_s

    def supports(self, trial: Trial) -> str | None:
        return None

    def residency(self, trial: Trial) -> Residency:
        return residency_by_keys(trial, ("cache", "workload", "pipeline.steps"))

    def engine(self) -> Engine:
        return RankGroup("ranked:Ranked", self._hang_s)


class Ranked:
    """One rank of it."""

    device = "cpu"

    def __init__(self, world: RankWorld | None, beat: Beat) -> None:
        self.span_s = (0.0, 0.0)
        self._world, self._beat = world, beat
        self._rank, self._ranks = (0, 1) if world is None else (world.rank, world.dims.devices)
        self._calls, self._steps = 0, 8
        self._doors: list[int] = []

    def launch(self, trial: Trial, on_progress: OnProgress | None = None) -> None:
        print(f"rank {self._rank} of {self._ranks} is {os.getpid()}", flush=True)
        options = trial.engine.options
        self._misdeed = options.get("misdeed") if options.get("bad_rank", 0) == self._rank else None
        self._notices = options.get("misdeed") == "die and be noticed"
        if self._misdeed == "break loose":
            raise RuntimeError("cannot load")
        if self._misdeed == "cannot be imported":
            os._exit(3)
        if self._world is not None:
            assert stat.S_IMODE(self._world.meeting.stat().st_mode) == 0o700
            self._doors = [self._door(rank) for rank in range(self._ranks)]

    def configure(self, trial: Trial) -> None:
        self._steps = trial.pipeline.steps
        if trial.pipeline.steps == 13:
            raise ConfigError("pipeline.steps", 13, "brings bad luck")

    def generate(self, prompt_text: str, seed: int, negative_prompt: str = "") -> Generation:
        self._calls += 1
        began_s = time.perf_counter()
        misdeed = self._misdeed if self._calls == GOES_WRONG_IN else None
        steps_s = [self._step(misdeed if step == 0 else None) for step in range(self._steps)]
        self.span_s = began_s, time.perf_counter()
        rng = np.random.default_rng([seed, *prompt_text.encode()])
        latents = rng.standard_normal((16, 4, 4)).astype(np.float32)
        image = rng.integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)
        if misdeed == "paint another image":
            latents[:8] = latents[8:]
        if misdeed == "round otherwise":
            latents *= np.float32(1 + 1e-4)
        return Generation(
            image=image * np.uint8(misdeed != "paint nothing"),
            latents=latents,
            latency_s=self.span_s[1] - began_s,
            stages_s={"denoise": sum(steps_s)},
            steps_s=steps_s,
            cached_steps=[3] if misdeed == "skip a step" else [],
            text_tokens=[7],
        )

    def effective(self) -> Effective:
        return Effective(device="cpu", dtype="float32", weights="synthetic", n_blocks=1, threads=1)

    def watch(self) -> Watched:
        return Watched((os.getpid(),))

    def close(self) -> None:
        while self._doors:
            os.close(self._doors.pop())

    def _step(self, misdeed: str | None) -> float:
        """A step of this rank's own, and all others' after it."""
        began_s = time.perf_counter()
        self._beat("step")
        self._misbehave(misdeed)
        if self._notices and self._calls == GOES_WRONG_IN:
            self._notice()
        self._beat("exchange")
        if misdeed == "hang with all others":
            time.sleep(3600)
        for rank, door in enumerate(self._doors):
            if rank != self._rank:
                os.write(door, b"1")
        place = ctypes.create_string_buffer(1)
        for _ in self._doors[1:]:
            while ctypes.CDLL(None).read(self._doors[self._rank], place, 1) != 1:  # a signal came
                pass
        self._beat("step")
        return time.perf_counter() - began_s

    def _notice(self) -> None:
        """The death of another, as gloo does by the end of its connections."""
        assert self._world is not None
        while not (self._world.meeting / "died").exists():
            time.sleep(0.01)
        raise ConnectionError("closed by peer")

    def _misbehave(self, misdeed: str | None) -> None:
        if misdeed is not None:
            print(f"about to {misdeed}", flush=True)
        if misdeed == "die and be noticed" and self._world is not None:
            (self._world.meeting / "died").touch()
            time.sleep(0.3)  # others say so first
        if misdeed in ("die", "die and be noticed"):
            os.kill(os.getpid(), signal.SIGKILL)
        elif misdeed == "crash":
            os.abort()
        elif misdeed == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        elif misdeed == "stop for a while":
            if os.fork() == 0:
                time.sleep(0.3)
                os.kill(os.getppid(), signal.SIGCONT)
                os._exit(0)
            os.kill(os.getpid(), signal.SIGSTOP)
        elif misdeed == "hang":
            time.sleep(3600)
        elif misdeed == "raise":
            raise RuntimeError("it broke")
        elif misdeed == "run out of memory":
            raise MemoryError("no more")

    def _door(self, rank: int) -> int:
        """A pipe with a name, which a rank reads and all others write to; opened both ways, it never ends."""
        assert self._world is not None
        path = self._world.meeting / f"door_{rank}"
        with suppress(FileExistsError):
            os.mkfifo(path)
        return os.open(path, os.O_RDWR)
