"""The pipeline of one rank: what the ranks of its replica compute together, and what each computes alone.

Every rank runs the whole pipeline in step with the others, with the same prompts, noise and scheduler. Only the
transformer's forward, and where asked the text encoder and the decode, are shared among them.
"""

from __future__ import annotations

from typing import Any

from zbench.engines.reference.sharded.copies import PeerCopies
from zbench.engines.reference.sharded.decode import split_decode
from zbench.engines.reference.sharded.gather import ShardedSequence
from zbench.engines.reference.sharded.guidance import SplitGuidance
from zbench.engines.reference.sharded.mesh import Mesh
from zbench.engines.reference.sharded.patches import Patches
from zbench.engines.reference.sharded.stack import ShardedTokens, SharedTiles, split_text_encoder, split_weights
from zbench.errors import ConfigError
from zbench.methods.parallel import may_copy
from zbench.trial import Trial, geometry_of
from zbench.zimage.flops import padded_tokens

KEEP_ORDER = {"reorder_for_locality": False, "reorder_for_peak_memory": False}
"""For Inductor: what is sent early is meant to be; it would begin to gather only where that is waited for."""


class Sharded:
    """A pipeline that is sharded as its trial says. Weights that were split stay split after `close`."""

    def __init__(self, pipe: Any, trial: Trial, mesh: Mesh) -> None:
        """Shard a loaded pipeline, after its attention backend was set, and before it is compiled or offloaded.

        Raises ConfigError for a combination that cannot work; but for split weights the pipeline is as before then.
        """
        self.compiles_whole = mesh.ring is None
        """Whether a block compiles without a break: ring's sends and receives are none of a compiler's."""
        self.compile_options = KEEP_ORDER if mesh.gather is not None else None
        """What the compiler must be told."""
        self.told: dict[str, Any] = {}
        """What took effect beyond what was asked."""
        self._handles: list[Any] = [Patches(mesh.device_mesh.device_type)]
        try:
            self._shard(pipe, trial, mesh)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Take off what can be taken off, the last first. The mesh is left as it is."""
        while self._handles:
            self._handles.pop().close()

    def _shard(self, pipe: Any, trial: Trial, mesh: Mesh) -> None:
        parallel, dims = trial.parallel, mesh.dims
        if mesh.cfg is not None:
            if trial.pipeline.guidance_scale <= 0:
                raise ConfigError("parallel.cfg_size", dims.cfg, "without guidance there is one pass: set cfg_size=1")
            self._handles.append(SplitGuidance(pipe.transformer, mesh.cfg))
        if mesh.gather is not None:
            _refuse_beside_gather(pipe.transformer.config.n_heads // dims.tp, trial)
            sequence = ShardedSequence(pipe.transformer, mesh.gather, mesh.ulysses)
            self._handles.append(sequence)
            self.told["gather_by"] = _carried(sequence, pipe.transformer, trial, mesh)
        elif mesh.ulysses is not None or mesh.ring is not None:
            self._handles.append(ShardedTokens(pipe.transformer, parallel, mesh))
        if mesh.tp is not None:
            split_weights(pipe.transformer, mesh)
        if parallel.text_encoder == "tp":
            split_text_encoder(pipe.text_encoder, mesh)
        if parallel.vae == "tiled":
            self._handles.append(SharedTiles(pipe.vae, mesh))
        elif parallel.vae == "split":
            self._handles.append(split_decode(pipe.vae, mesh.replica_group))


def _carried(sequence: ShardedSequence, transformer: Any, trial: Trial, mesh: Mesh) -> str:
    """What keys and values travel by: copies, where they may and the GPUs can reach each other; else collectives.

    Raises ConfigError where copies were asked for and the GPUs cannot.
    """
    may = may_copy(trial.parallel, trial.compute, trial.cache) and mesh.device_mesh.device_type == "cuda"
    if not may or mesh.gather is None:
        return "collectives"
    try:
        sequence.carry(PeerCopies(mesh.gather, _most_elements(transformer, trial, mesh), transformer.dtype))
    except RuntimeError as error:
        if trial.parallel.gather_by == "copies":
            problem = f"the GPUs cannot reach each other's memory ({error}); collectives need not"
            raise ConfigError("parallel.gather_by", "copies", problem) from error
        return "collectives"
    return "copies"


def _most_elements(transformer: Any, trial: Trial, mesh: Mesh) -> int:
    """Of the keys of the longest sequence that there may be, with all ranks' shares as large as the largest."""
    pipeline = trial.pipeline
    image = padded_tokens(geometry_of(pipeline).image_tokens(pipeline.height, pipeline.width))
    tokens = image + padded_tokens(pipeline.max_sequence_length) + mesh.dims.sequence
    samples = pipeline.samples // mesh.dims.cfg
    return int(tokens * samples * transformer.config.dim // mesh.dims.tp)


def _refuse_beside_gather(heads: int, trial: Trial) -> None:
    """`heads` are those that tp leaves."""
    parallel = trial.parallel
    if parallel.ring_size > 1:
        raise ConfigError("parallel.gather_size", parallel.gather_size, "gather takes ring's place: set ring_size=1")
    for option in ("ulysses_anything", "ulysses_async"):
        if getattr(parallel, option):
            raise ConfigError(f"parallel.{option}", True, f"it is cache-dit's, and gather is not: set {option}=false")
    if heads % parallel.ulysses_size:
        problem = f"{heads} heads are not divisible by {parallel.ulysses_size}, which they must be beside gather"
        raise ConfigError("parallel.ulysses_size", parallel.ulysses_size, problem)
