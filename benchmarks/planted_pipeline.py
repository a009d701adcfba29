"""The reference pipeline with a slow-down of known size: extra work on top of every call."""

import time
from dataclasses import replace

import torch

from zbench.config import DBCacheConfig
from zbench.engines import Generation
from zbench.engines.reference.pipeline import ReferencePipeline
from zbench.trial import Trial

SIDE = 48  # of the matrices multiplied, small enough to stay in a core's own cache


class PlantedPipeline(ReferencePipeline):
    """A cache's threshold is also the share of each call's own time that it then goes on working for."""

    def __init__(self) -> None:
        super().__init__()
        self._extra = 0.0
        self._matrix = torch.full((SIDE, SIDE), 1.0 / SIDE)

    def configure(self, trial: Trial) -> None:
        """As the reference engine, which caches nothing of a single step; the slow-down is the cache's threshold."""
        super().configure(trial)
        cache = trial.cache
        self._extra = cache.residual_diff_threshold if isinstance(cache, DBCacheConfig) else 0.0

    def generate(self, prompt_text: str, seed: int) -> Generation:
        """A generation, and then multiplications for `extra` of its time."""
        made = super().generate(prompt_text, seed)
        began = time.perf_counter()
        while time.perf_counter() - began < self._extra * made.latency_s:
            torch.mm(self._matrix, self._matrix)
        worked_s = time.perf_counter() - began if self._extra else 0.0
        return replace(made, latency_s=made.latency_s + worked_s)
