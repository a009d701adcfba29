"""An engine without torch, for tests of everything around engines: it sleeps, paints noise, and misbehaves on demand.

Misbehaviour is keyed by `residual_diff_threshold`, so that one sweep has healthy trials beside sick ones.
"""

import os
import signal
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from zbench.config import CacheConfig, DBCacheConfig
from zbench.engines import Generation, OnProgress, Residency, residency_by_keys
from zbench.engines.failure import CodedError
from zbench.measurement import Effective
from zbench.probes.watched import Watched
from zbench.trial import Trial

SIDE = 32  # pixels


class SyntheticEngine:
    """Describes `Synthetic`. Each option `X_on` names a threshold; a trial with it does X in its first generation.

    `black_on` and `nan_on` spoil every image, or those of one seed with `spoilt_seed`.
    """

    def __init__(
        self,
        round_s: float = 0.01,
        load_s: float = 0.0,
        load_bytes: int = 0,
        fail_load: bool = False,
        refuse: str | None = None,
        crash_on: float | None = None,
        kill_on: float | None = None,
        hang_on: float | None = None,
        raise_on: float | None = None,
        raise_memory_error_on: float | None = None,
        black_on: float | None = None,
        nan_on: float | None = None,
        spoilt_seed: int | None = None,
        at_once: int | None = None,
        fail_seeds: Sequence[int] = (),
        step_s: float | None = None,
        slower_from: int | None = None,
        slow_calls: Sequence[int] = (),
    ) -> None:
        """`refuse` is what it cannot run whatever it is asked for. With `at_once` as many threads may call it, and
        requests of `fail_seeds` fail as a server's do. With `step_s` a call says that it took so long for each step
        that it did not skip, whatever it took: half as long again from call `slower_from` of the process on, and 50
        times as long in `slow_calls`."""
        self._refuse, self._at_once, self._fail_seeds = refuse, at_once, tuple(fail_seeds)
        self._settings: dict[str, Any] = {
            "round_s": round_s,
            "load_s": load_s,
            "load_bytes": load_bytes,
            "fail_load": fail_load,
            "spoilt_seed": spoilt_seed,
            "said": (step_s, slower_from, tuple(slow_calls)),
            "misdeeds": {
                "crash": crash_on,
                "kill": kill_on,
                "hang": hang_on,
                "raise": raise_on,
                "memory": raise_memory_error_on,
                "black": black_on,
                "nan": nan_on,
            },
        }

    def supports(self, trial: Trial) -> str | None:
        return self._refuse

    def residency(self, trial: Trial) -> Residency:
        return residency_by_keys(trial, ("cache", "workload", "pipeline.steps"))

    def batching_problem(self, trial: Trial) -> str | None:
        return None

    def engine(self) -> "Synthetic":
        if self._at_once is None:
            return Synthetic(**self._settings)
        return SyntheticCrowd(self._at_once, self._fail_seeds, **self._settings)


class Synthetic:
    """Sleeps and paints."""

    def __init__(
        self,
        round_s: float,
        load_s: float,
        load_bytes: int,
        fail_load: bool,
        spoilt_seed: int | None,
        said: tuple[float | None, int | None, tuple[int, ...]],
        misdeeds: dict[str, float | None],
    ) -> None:
        self._round_s = round_s
        self._load_s = load_s
        self._load_bytes = load_bytes
        self._fail_load = fail_load
        self._spoilt_seed = spoilt_seed
        self._step_s, self._slower_from, self._slow_calls = said
        self._calls = 0
        self._misdeeds = misdeeds
        self._cache: CacheConfig = CacheConfig()
        self._steps = 8

    def launch(self, trial: Trial, on_progress: OnProgress | None = None) -> None:
        for part in range(10):
            time.sleep(self._load_s / 10)
            if self._load_bytes and on_progress is not None:
                stage = "checking" if part < 5 else "loading"
                on_progress(stage, self._load_bytes * (part + 1) // 10, self._load_bytes)
        if self._fail_load:
            raise RuntimeError("no such pipeline")

    def configure(self, trial: Trial) -> None:
        self._cache, self._steps = trial.cache, trial.pipeline.steps

    def generate(self, prompt_text: str, seed: int) -> Generation:
        misdeed = self._misbehave()
        return self._made(prompt_text, seed, misdeed, self._slept_s())

    def generate_batch(self, calls: Sequence[tuple[str, int, str]]) -> list[Generation]:
        """As long as one image takes."""
        misdeed, latency_s = self._misbehave(), self._slept_s()
        return [self._made(prompt, seed, misdeed, latency_s) for prompt, seed, _ in calls]

    def _slept_s(self) -> float:
        began = time.perf_counter()
        time.sleep(self._round_s)
        call, self._calls = self._calls, self._calls + 1
        if self._step_s is None:
            return time.perf_counter() - began
        slower = 1.5 if self._slower_from is not None and call >= self._slower_from else 1.0
        slower *= 50 if call in self._slow_calls else 1
        return self._step_s * (self._steps - len(self._skipping()[0])) * slower

    def _made(self, prompt_text: str, seed: int, misdeed: str | None, latency_s: float) -> Generation:
        cached, diffs = self._skipping()
        rng = np.random.default_rng([seed, *prompt_text.encode()])
        latents = rng.standard_normal((16, 4, 4)).astype(np.float32)
        image = rng.integers(0, 256, (SIDE, SIDE, 3)).astype(np.int64)
        drift = len(cached)  # more skipping, less likeness
        if self._spoilt_seed in (None, seed):
            image = np.full_like(image, -drift) if misdeed == "black" else image
            latents = latents * np.float32("nan" if misdeed == "nan" else 1)
        return Generation(
            image=np.clip(image + drift, 0, 255).astype(np.uint8),
            latents=latents * np.float32(1 + 0.01 * drift),
            latency_s=latency_s,
            stages_s={"text_encode": latency_s / 8, "denoise": latency_s / 2, "decode": latency_s / 8},
            steps_s=[latency_s / 2 / self._steps] * self._steps,
            cached_steps=cached,
            residual_diffs=diffs,
        )

    def effective(self) -> Effective:
        return Effective(device="cpu", dtype="float32", weights="synthetic", n_blocks=1, threads=1)

    def watch(self) -> Watched:
        return Watched((os.getpid(),))

    def close(self) -> None:
        """Nothing is held."""

    def _skipping(self) -> tuple[list[int], dict[str, float]]:
        """Residual differences fall as 0.5 / step; a step is skipped under the threshold, after the warm-up."""
        if not isinstance(self._cache, DBCacheConfig):
            return [], {}
        steps = range(self._cache.max_warmup_steps, self._steps)
        diffs = {str(step): 0.5 / (step + 1) for step in steps}
        return [step for step in steps if diffs[str(step)] < self._cache.residual_diff_threshold], diffs

    def _hang(self, depth: int) -> None:
        """As deep in calls as torch is."""
        if depth:
            self._hang(depth - 1)
        time.sleep(3600)

    def _misbehave(self) -> str | None:
        """Do what the trial's threshold asks for; what it is called, if it is to be seen in an image."""
        threshold = self._cache.residual_diff_threshold if isinstance(self._cache, DBCacheConfig) else -1.0
        misdeed = next((name for name, on in self._misdeeds.items() if on == threshold), None)
        if misdeed == "crash":
            print("about to crash", flush=True)
            os.abort()
        elif misdeed == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif misdeed == "hang":
            print("about to hang", flush=True)
            self._hang(60)
        elif misdeed == "raise":
            raise RuntimeError("the pipeline broke\nover two lines")
        elif misdeed == "memory":
            raise MemoryError("no more")
        return misdeed


class RequestLost(CodedError):
    """A server's answer that is none."""

    code = "http_status"


class SyntheticCrowd(Synthetic):
    """The same for several threads at once, as a client of a server is."""

    def __init__(self, at_once: int, fail_seeds: Sequence[int], **settings: Any) -> None:
        super().__init__(**settings)
        self._at_once, self._fail_seeds = at_once, fail_seeds

    def at_once(self) -> int | None:
        return self._at_once

    def generate_for(self, trial: Trial, prompt_text: str, seed: int) -> Generation:
        return self.generate(prompt_text, seed)

    def generate(self, prompt_text: str, seed: int) -> Generation:
        if seed in self._fail_seeds:
            raise RequestLost("503 from the server: busy")
        return super().generate(prompt_text, seed)
