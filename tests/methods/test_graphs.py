"""What a forward as one launch goes with."""

import pytest

from zbench.config import ComputeConfig, OffloadConfig
from zbench.methods import graphs

GRAPH = ComputeConfig(compile=True, cuda_graph=True)


@pytest.mark.parametrize(
    ("mode", "fits"),
    [("none", True), ("text_encoder", True), ("dit", False), ("vae", False), ("all", False), ("group", False)],
)
def test_only_weights_that_stay_can_be_captured(mode: str, fits: bool) -> None:
    problem = graphs.problem(GRAPH, OffloadConfig(mode=mode), decides_on_host=False)
    assert (problem is None) == fits
    assert fits or f"offload.mode={mode}" in str(problem)


def test_a_cache_decides_on_the_host() -> None:
    assert "cache=none" in str(graphs.problem(GRAPH, OffloadConfig(), decides_on_host=True))
    assert graphs.problem(ComputeConfig(compile=True), OffloadConfig(), decides_on_host=True) is None


def test_it_needs_a_gpu() -> None:
    assert "compute=compiled" in str(graphs.problem_on_a_cpu(GRAPH))
    assert graphs.problem_on_a_cpu(ComputeConfig(compile=True)) is None
