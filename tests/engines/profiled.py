"""A synthetic engine that says it ran on GPUs and goes wrong while it is profiled, after its window is over."""

import os
import time
from dataclasses import replace

from synthetic import Synthetic, SyntheticEngine

from zbench.measurement import Communication, Effective


class ProfiledEngine(SyntheticEngine):
    """`misdeed` is raise, die or hang."""

    def __init__(self, misdeed: str) -> None:
        super().__init__(round_s=0.001)
        self._misdeed = misdeed

    def engine(self) -> "Profiled":
        made = Profiled(**self._settings)
        made.misdeed = self._misdeed
        return made


class Profiled(Synthetic):
    """Paints well, and is profiled badly."""

    misdeed = ""

    def effective(self) -> Effective:
        return replace(super().effective(), device="cuda")

    def communication(self, prompt_text: str, seed: int, negative_prompt: str = "") -> list[Communication]:
        if self.misdeed == "raise":
            raise RuntimeError("CUPTI is busy")
        if self.misdeed == "die":
            os.abort()
        time.sleep(3600)
        return []
