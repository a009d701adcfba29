"""What a forward as one launch goes with, and what `auto` is."""

import pytest

from zbench.config import ComputeConfig, OffloadConfig, ParallelConfig, PipelineConfig
from zbench.methods import graphs

GRAPH = ComputeConfig(device="cuda", compile=True, graphs="all")
STAGES = ComputeConfig(device="cuda", graphs="stages")
AUTO = ComputeConfig(device="cuda", graphs="auto")
ALONE = ParallelConfig()


def why(compute: ComputeConfig, mode: str = "none", *, cached: bool = False) -> str | None:
    return graphs.problem(compute, ALONE, OffloadConfig(mode=mode), decides_on_host=cached)


@pytest.mark.parametrize(
    ("mode", "fits"),
    [("none", True), ("text_encoder", True), ("dit", False), ("vae", True), ("all", False), ("group", False)],
)
def test_only_weights_that_stay_can_be_captured(mode: str, fits: bool) -> None:
    problem = why(GRAPH, mode)
    assert (problem is None) == fits
    assert fits or f"offload.mode={mode}" in str(problem)


@pytest.mark.parametrize(
    ("mode", "fits"), [("none", True), ("dit", True), ("vae", True), ("all", False), ("sequential", False)]
)
def test_stages_are_captured_where_one_of_them_stays(mode: str, fits: bool) -> None:
    problem = why(STAGES, mode)
    assert (problem is None) == fits
    assert fits or "compute.graphs=none" in str(problem)


def test_a_cache_decides_on_the_host_and_leaves_the_stages_alone() -> None:
    assert "cache=none or compute.graphs=stages" in str(why(GRAPH, cached=True))
    assert why(STAGES, cached=True) is None and why(ComputeConfig(compile=True), cached=True) is None


def test_it_needs_a_gpu_where_it_was_asked_for() -> None:
    for asked in (GRAPH, STAGES):
        assert f"compute.graphs={asked.graphs}: needs a GPU" in str(graphs.problem_on_a_cpu(asked))
    assert graphs.problem_on_a_cpu(AUTO) is None and graphs.problem_on_a_cpu(ComputeConfig(compile=True)) is None


def settled(
    side: int = 1024,
    compute: ComputeConfig = AUTO,
    parallel: ParallelConfig = ALONE,
    mode: str = "none",
    *,
    guidance: float = 0.0,
    cached: bool = False,
) -> str:
    pipeline = PipelineConfig(height=side, width=side, guidance_scale=guidance)
    return graphs.settled(compute, pipeline, parallel, OffloadConfig(mode=mode), decides_on_host=cached)


def test_auto_captures_a_forward_where_the_device_waits_for_the_host() -> None:
    assert settled(512) == "all" and settled(1024) == "stages"
    assert settled(512, guidance=4.0) == "stages", "two samples a forward keep a device busy"
    assert settled(1024, parallel=ParallelConfig(gather_size=2)) == "all"
    assert settled(1024, parallel=ParallelConfig(dp_size=2)) == "stages", "each device makes images of its own"


def test_auto_asks_for_nothing_that_cannot_be_captured() -> None:
    assert settled(512, cached=True) == settled(512, mode="dit") == "stages" and settled(512, mode="vae") == "all"
    assert settled(1024, parallel=ParallelConfig(ring_size=2)) == "stages"
    assert settled(512, mode="all") == settled(512, mode="group") == "none"
    assert settled(512, ComputeConfig(device="cpu", graphs="auto")) == "none"
    every = [(side, mode, cached) for side in (512, 1024) for mode in ("none", "vae", "group") for cached in (0, 1)]
    for side, mode, cached in every:
        found = ComputeConfig(device="cuda", graphs=settled(side, mode=mode, cached=bool(cached)))
        assert why(found, mode, cached=bool(cached)) is None


@pytest.mark.parametrize("graphs_asked", ["none", "stages", "all"])
def test_what_was_asked_for_by_name_is_what_it_says(graphs_asked: str) -> None:
    assert settled(512, ComputeConfig(device="cuda", graphs=graphs_asked)) == graphs_asked
