"""What the reference engine says it cannot run, and what its pipeline takes anew with every request."""

from dataclasses import replace
from typing import Any

import pytest
from factories import SCENES, TINY, TURBO, trial

from zbench.config import CacheConfig, ComputeConfig, DBCacheConfig, EngineConfig, OffloadConfig, ParallelConfig
from zbench.engines.reference import ReferenceEngine
from zbench.errors import ConfigError
from zbench.methods.attention import backends

CPU, GPU = ComputeConfig(device="cpu"), ComputeConfig(device="cuda")


def supports(**groups: Any) -> str:
    return ReferenceEngine().supports(trial(**groups)) or ""


def process(cache: CacheConfig | None = None, **groups: Any) -> str:
    return ReferenceEngine().residency(trial(cache, **groups)).process


def test_it_runs_on_one_device_and_on_several() -> None:
    assert supports(pipeline=TURBO) == "" and supports(compute=CPU, parallel=ParallelConfig(gather_size=3)) == ""
    for degrees in ({"tp_size": 2, "ulysses_size": 2}, {"dp_size": 4}, {"ring_size": 2}):
        assert supports(pipeline=TURBO, parallel=ParallelConfig(**degrees)) == ""


def test_it_says_what_its_stack_cannot_shard() -> None:
    said = supports(pipeline=TURBO, parallel=ParallelConfig(ulysses_size=16))
    assert said.startswith("parallel.ulysses_size=16: 30 heads over 16 devices need 2 padded ones")
    assert "p2p alone" in supports(parallel=ParallelConfig(ring_size=2, ring_rotate_method="allgather"))
    group = OffloadConfig(mode="group")
    assert supports(parallel=ParallelConfig(gather_size=2), offload=group).startswith("offload.mode=group: ")
    assert supports(parallel=ParallelConfig(dp_size=2), offload=group) == ""


@pytest.mark.parametrize("hang_s", [0, -1, 1e9, True, "10"])
def test_a_time_after_which_ranks_hang_is_one(hang_s: Any) -> None:
    assert ReferenceEngine(hang_s=60).supports(trial(pipeline=TURBO)) is None
    with pytest.raises(ConfigError, match=r"engine.options.hang_s=.*: must be 1 to 86400 seconds"):
        ReferenceEngine(hang_s=hang_s)


@pytest.mark.parametrize(("mode", "works"), [("none", True), ("group", True), ("all", True), ("sequential", False)])
def test_an_offload_mode_that_needs_an_accelerator_is_refused_on_a_cpu(mode: str, works: bool) -> None:
    assert (supports(offload=OffloadConfig(mode=mode), compute=CPU) == "") == works
    assert supports(offload=OffloadConfig(mode=mode), compute=GPU) == ""


def test_a_cap_is_for_gpus() -> None:
    assert "hardware.vram_limit_gib=16" in supports(compute=CPU, vram_limit_gib=16.0)
    assert supports(compute=GPU, vram_limit_gib=16.0) == ""


@pytest.mark.parametrize(
    "groups",
    [
        {"pipeline": replace(TINY, steps=12)},
        {"workload": replace(SCENES, seeds=[7], prompts=SCENES.prompts[:1])},
        {"cache": DBCacheConfig()},
    ],
)
def test_one_pipeline_serves_what_differs_per_request(groups: dict[str, Any]) -> None:
    assert process(**groups) == process()
    one, other = (ReferenceEngine().residency(trial(**each)).request for each in ({}, groups))
    assert one != other


def test_what_auto_stands_for_shares_a_pipeline_with_what_is_typed() -> None:
    auto, gather = replace(GPU, graphs="auto"), ParallelConfig(gather_size=2)
    small = replace(TURBO, height=512, width=512)
    for cache, graphs in ((None, "all"), (DBCacheConfig(), "stages")):
        typed = replace(GPU, graphs=graphs)
        assert process(cache, pipeline=small, compute=auto) == process(cache, pipeline=small, compute=typed)
    assert process(compute=replace(auto, device="cpu")) == process(compute=CPU)
    collectives = replace(gather, gather_by="collectives")
    one, other = (process(DBCacheConfig(), compute=GPU, parallel=each) for each in (gather, collectives))
    assert one == other != process(compute=GPU, parallel=gather)


@pytest.mark.parametrize(
    ("compute", "gather_by", "serves"),
    [(GPU, "auto", False), (GPU, "copies", False), (GPU, "collectives", True), (CPU, "auto", True)],
)
def test_a_pipeline_whose_shares_travel_by_copies_serves_no_cache(
    compute: ComputeConfig, gather_by: str, serves: bool
) -> None:
    gather = {"compute": compute, "parallel": ParallelConfig(gather_size=2, gather_by=gather_by)}
    assert (process(**gather) == process(DBCacheConfig(), **gather)) == serves
    assert process(DBCacheConfig(), **gather) == process(DBCacheConfig(max_warmup_steps=2), **gather)


@pytest.mark.parametrize(
    "groups",
    [
        {"pipeline": replace(TINY, weights="random")},
        {"pipeline": replace(TINY, width=512)},
        {"pipeline": replace(TINY, guidance_scale=5.0)},
        {"pipeline": replace(TINY, batch_size=2)},
        {"parallel": ParallelConfig(tp_size=2)},
        {"offload": OffloadConfig(mode="all")},
        {"compute": CPU},
        {"vram_limit_gib": 16.0},
        {"engine": EngineConfig(name="reference", target="zbench.engines.reference:ReferenceEngine", options={"a": 1})},
    ],
)
def test_what_is_loaded_otherwise_needs_a_process_of_its_own(groups: dict[str, Any]) -> None:
    assert process(**groups) != process()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("zzz", "must be one of flash"),
        ("", "must be one of"),
        ("xformers", "needs the package xformers"),
        ("sage_varlen", "needs the package sageattention"),
        ("flash_hub", "would fetch code from the hub"),
    ],
)
def test_an_attention_kernel_that_is_none_or_not_here_is_named(name: str, says: str) -> None:
    with pytest.raises(ConfigError, match=f"compute.attention_backend={name or repr(name)}: {says}"):
        supports(compute=ComputeConfig(device="cpu", attention_backend=name))
    assert supports(compute=ComputeConfig(device="cpu", attention_backend="_native_math")) == ""


def test_the_kernels_are_those_that_diffusers_has() -> None:
    from diffusers.models.attention_dispatch import AttentionBackendName

    assert list(backends()) == [name.value for name in AttentionBackendName]
