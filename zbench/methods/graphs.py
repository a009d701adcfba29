"""Forwards as one launch each (CUDA graphs), the transformer's, the text encoding's and the decode's: what goes with.

No torch, no trial. `compute.graphs=stages` captures text encoding and decode, `all` the transformer's forward too, and
`auto` what pays: all of them where the device is not busy anyway, else the stages. Of text encoding and decode that is
moved or split stays as it is.
"""

from zbench.config import ComputeConfig, OffloadConfig, ParallelConfig, PipelineConfig
from zbench.methods.offload import BY_NAME
from zbench.methods.parallel.dims import ParallelDims

KEY = "compute.graphs"
NONE, STAGES, ALL, AUTO = "none", "stages", "all", "auto"

BUSY_PIXELS = 512 * 512
"""Pixels of one forward, its samples together, above which one device is busy with its kernels for longer than the host
takes to start them: at 1024x1024 a graph of the forward gained nothing on an H100, at 512x512 it did."""


def settled(
    compute: ComputeConfig,
    pipeline: PipelineConfig,
    parallel: ParallelConfig,
    offload: OffloadConfig,
    *,
    decides_on_host: bool,
) -> str:
    """What is captured: `none`, `stages` or `all`; only `auto` is another word than `compute.graphs`.

    `decides_on_host`: whether a cache looks at values before it goes on, or skips some steps.
    """
    if compute.graphs != AUTO:
        return compute.graphs
    if compute.device == "cpu":
        return NONE
    captured = _forward_problem(offload, decides_on_host) is None and parallel.ring_size == 1  # nobody captured sends
    if captured and (ParallelDims.of(parallel).ranks > 1 or _pixels(pipeline) <= BUSY_PIXELS):
        return ALL
    return STAGES if stages_that_stay(parallel, offload) else NONE


def problem(
    compute: ComputeConfig, parallel: ParallelConfig, offload: OffloadConfig, *, decides_on_host: bool
) -> str | None:
    """Why what was asked for cannot be captured with these, or None. `auto` asks for nothing that cannot be."""
    if compute.graphs == ALL:
        return _forward_problem(offload, decides_on_host)
    if compute.graphs == STAGES and not stages_that_stay(parallel, offload):
        return f"{KEY}={STAGES}: offload.mode={offload.mode} moves the weights that are captured; use {KEY}={NONE}"
    return None


def stages_that_stay(parallel: ParallelConfig, offload: OffloadConfig) -> tuple[str, ...]:
    """The components beside the transformer that can be captured: those that are neither moved nor split."""
    mode = BY_NAME[offload.mode]
    if mode.by_layers:
        return ()
    whole = {"text_encoder": parallel.text_encoder == "whole", "vae": True}
    return tuple(component for component, is_whole in whole.items() if is_whole and component not in mode.waiting)


def problem_on_a_cpu(compute: ComputeConfig) -> str | None:
    """Why it cannot work without a GPU, or None."""
    if compute.graphs in (STAGES, ALL):
        return f"{KEY}={compute.graphs}: needs a GPU, and this trial runs on the CPU; use {KEY}={NONE}"
    return None


def label(graphs: str) -> str | None:
    """What a trial's label says of it; None without any."""
    return {NONE: None, ALL: "graph"}.get(graphs, f"graphs:{graphs}")


def _forward_problem(offload: OffloadConfig, decides_on_host: bool) -> str | None:
    """Why the transformer's forward cannot be captured, or None."""
    named = f"{KEY}={ALL}"
    if decides_on_host:
        return (
            f"{named}: a captured forward is the same in every step, and a cache skips some; use cache=none or "
            f"{KEY}={STAGES}"
        )
    mode = BY_NAME[offload.mode]
    if mode.by_layers or "transformer" in mode.waiting:
        return f"{named}: offload.mode={offload.mode} moves the weights that are captured; use {KEY}={AUTO}"
    return None


def _pixels(pipeline: PipelineConfig) -> int:
    """Of all samples of a forward, with guidance twice the images."""
    return pipeline.height * pipeline.width * pipeline.samples
