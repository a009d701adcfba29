"""Several processes that run one trial together: who they are, how they start, and what ends them all; no torch."""

from dataclasses import dataclass
from pathlib import Path

from zbench.methods.parallel import ParallelDims


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
