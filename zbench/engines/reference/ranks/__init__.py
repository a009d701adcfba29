"""Several processes that run one trial together: who they are, how they start, and what ends them all; no torch."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from zbench.engines import Engine
from zbench.methods.parallel import ParallelDims

Beat = Callable[[str], None]
"""Told of a sign of life: what its rank does now, in a word."""


@dataclass(frozen=True)
class RankWorld:
    """One rank's place among the processes of a trial."""

    rank: int  # 0 to dims.devices - 1; rank 0 is the worker itself
    dims: ParallelDims
    meeting: Path
    """A folder of this trial alone, in which ranks find one another: no port is opened for it."""

    @property
    def replica(self) -> int:
        """Which of the images that are made side by side is this rank's."""
        return self.rank // self.dims.ranks

    @property
    def rank_in_replica(self) -> int:
        """Its rank among those that make one image together: its rank in torch.distributed."""
        return self.rank % self.dims.ranks


class Member(Engine, Protocol):
    """What runs in each rank: an engine that also says where it computes, and when its latest call was."""

    @property
    def device(self) -> str:
        """What torch calls it: cuda:1, cpu."""
        ...

    @property
    def span_s(self) -> tuple[float, float]:
        """When the clock of the latest call started and when it stopped, by `time.perf_counter`."""
        ...


MakeMember = Callable[[RankWorld | None, Beat], Member]
"""Makes a rank's engine; without a world it is the only one."""


def load_member(place: str) -> MakeMember:
    """What `module:Name` names; that module's stack is imported."""
    module, _, name = place.partition(":")
    made: MakeMember = getattr(importlib.import_module(module), name)
    return made
