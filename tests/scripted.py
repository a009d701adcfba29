"""An engine whose latencies a test writes down."""

import gc
import os
from collections.abc import Iterator, Sequence
from itertools import cycle

import numpy as np

from zbench.engines import Generation, OnProgress
from zbench.measurement import Effective
from zbench.probes.watched import Watched
from zbench.trial import Trial


class ScriptedEngine:
    """Says that its generations took the latencies given, over and over."""

    def __init__(
        self,
        latencies_s: Sequence[float] = (1.0,),
        weights: str = "preset",
        latent: float = 0.0,
        compiles: Sequence[int] = (),
        black: Sequence[int] = (),
        compile_s: float | None = 0.5,
    ) -> None:
        """`compiles` and `black` are the calls, from 0, that compile something and that make a black image.

        One that compiles says that it did so for `compile_s`, the others say 0; with None none of them says.
        """
        self._latencies: Iterator[float] = cycle(latencies_s)
        self._weights = weights
        self._latent = latent
        self._compiles, self._black = compiles, black
        self._compile_s = compile_s
        self.prompts: list[str] = []
        self.collector_was_on: list[bool] = []

    def launch(self, trial: Trial, on_progress: OnProgress | None = None) -> None:
        """Always there."""

    def configure(self, trial: Trial) -> None:
        """One setting is as good as another."""

    def generate(self, prompt_text: str, seed: int) -> Generation:
        self.prompts.append(prompt_text)
        self.collector_was_on.append(gc.isenabled())
        latency_s = next(self._latencies)
        call = len(self.prompts) - 1
        return Generation(
            image=np.indices((16, 16, 3), np.uint8).sum(0, np.uint8) * (call not in self._black) + np.uint8(0),
            latents=np.full((1, 2, 2), self._latent, np.float32),
            latency_s=latency_s,
            stages_s={},
            steps_s=[],
            compiled=call in self._compiles,
            compile_s=self._compile_s if self._compile_s is None or call in self._compiles else 0.0,
        )

    def effective(self) -> Effective:
        return Effective(device="cpu", weights=self._weights)

    def watch(self) -> Watched:
        return Watched((os.getpid(),))

    def close(self) -> None:
        """Nothing is held."""
