"""The pipeline of one rank: what the ranks of its replica compute together, and what each computes alone.

Every rank runs the whole pipeline in step with the others, with the same prompts, noise and scheduler. Only the
transformer's forward, and where asked the text encoder and the decode, are shared among them.
"""

from __future__ import annotations

from typing import Any

from zbench.engines.reference.sharded.gather import ShardedSequence
from zbench.engines.reference.sharded.guidance import SplitGuidance
from zbench.engines.reference.sharded.mesh import Mesh
from zbench.engines.reference.sharded.patches import Patches
from zbench.engines.reference.sharded.stack import ShardedTokens, SharedTiles, split_text_encoder, split_weights
from zbench.errors import ConfigError
from zbench.trial import Trial


class Sharded:
    """A pipeline that is sharded as its trial says. Weights that were split stay split after `close`."""

    def __init__(self, pipe: Any, trial: Trial, mesh: Mesh) -> None:
        """See `shard`."""
        parallel, dims = trial.parallel, mesh.dims
        self._handles: list[Any] = [Patches(mesh.device_mesh.device_type)]
        if mesh.gather is not None:
            if mesh.ring is not None:
                raise ConfigError("parallel.gather_size", dims.gather, "gather takes ring's place: set ring_size=1")
            self._handles.append(ShardedSequence(pipe.transformer, mesh.gather, mesh.ulysses))
        elif mesh.ulysses is not None or mesh.ring is not None:
            self._handles.append(ShardedTokens(pipe.transformer, parallel, mesh))
        if mesh.tp is not None:
            split_weights(pipe.transformer, mesh)
        if mesh.cfg is not None:
            if trial.pipeline.guidance_scale <= 0:
                raise ConfigError("parallel.cfg_size", dims.cfg, "without guidance there is one pass: set cfg_size=1")
            self._handles.append(SplitGuidance(pipe.transformer, mesh.cfg))
        if parallel.text_encoder == "tp":
            split_text_encoder(pipe.text_encoder, mesh)
        if parallel.vae == "tiled":
            self._handles.append(SharedTiles(pipe.vae, mesh))
        pipe.transformer._is_parallelized = True  # cache-dit then asks all ranks before it skips a step

    def close(self) -> None:
        """Take off what can be taken off, the last first. The mesh is left as it is."""
        while self._handles:
            self._handles.pop().close()


def shard(pipe: Any, trial: Trial, mesh: Mesh) -> Sharded:
    """Shard a loaded pipeline; its attention backend is set before or after, by diffusers' name, and it is compiled
    after.

    Raises ConfigError for a combination that cannot work.
    """
    return Sharded(pipe, trial, mesh)
