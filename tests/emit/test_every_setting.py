"""Every setting of a trial is in a tool's words or named in a note, also one that nobody has thought of yet."""

from dataclasses import dataclass, fields, replace
from typing import Any

import pytest
from factories import SCENES, TURBO, trial, turbo

from zbench.carried import settings
from zbench.config import (
    CacheConfig,
    ComputeConfig,
    CustomCacheConfig,
    DBCacheConfig,
    HardwareConfig,
    OffloadConfig,
    ParallelConfig,
    PipelineConfig,
    Prompt,
    SCMConfig,
    ServedEngineConfig,
    WorkloadConfig,
)
from zbench.config.job import SCHEMAS
from zbench.emit import TOOLS, Emission, emit
from zbench.trial import Trial

GPU = ComputeConfig(device="cuda")
BASES = {
    "plain": turbo(compute=GPU),
    "masks": turbo(SCMConfig(), compute=GPU),
    "tiny": trial(DBCacheConfig(enable_taylorseer=True)),
    "outside": trial(CustomCacheConfig(method="mine", target="a:B"), pipeline=replace(TURBO, guidance_scale=2.0)),
    "styled": trial(pipeline=replace(TURBO, lora="/a style/x.safetensors", weights="/a folder"), compute=GPU),
    "sharded": turbo(DBCacheConfig(), compute=GPU, parallel=ParallelConfig(ulysses_size=2, ring_size=2)),
    "served": trial(engine=ServedEngineConfig(name="served", target="a:B", base_url="http://127.0.0.1:1")),
    "streamed": turbo(compute=GPU, offload=OffloadConfig(mode="group")),
}
OTHER: dict[str, Any] = {
    "pipeline.preset": "zimage",
    "pipeline.hub_id": "someone/else",
    "pipeline.weights": "/other weights",
    "pipeline.vae": "/other vae",
    "pipeline.lora": "/other/y.safetensors",
    "pipeline.variant": "fp16",
    "offload.mode": "sequential",
    "cache.scm_preset": "ultra",
    "cache.scm_policy": "static",
    "cache.steps_mask": "11101001",
    "compute.device": "cpu",
    "compute.dtype": "float32",
    "compute.attention_backend": "flash",
    "parallel.ring_rotate_method": "allgather",
    "parallel.gather_by": "copies",
    "parallel.vae": "tiled",
    "parallel.text_encoder": "tp",
    "workload.prompt": "a dog",
    "workload.prompts_file": "a.txt",
    "workload.prompts.scene": "a scene",
    **{f"workload.prompts.{name}": value for name, value in (("height", 512), ("width", 768), ("steps", 3))},
    "workload.concurrency": 4,
    "workload.rate_per_s": 2.0,
    "workload.requests": 30,
    "workload.arrivals_file": "times.txt",
    "workload.latency_objective_s": 1.5,
    "engine.target": "mine:Engine",
    "cache.target": "mine:Cache",
}
"""A value that a field may have where one made from its type would be none."""


def other(key: str, value: Any) -> Any:
    """Another value of the same type."""
    if key in OTHER:
        return OTHER[key]
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, dict):
        return {**value, "more": 1}
    if isinstance(value, list):
        return [*value, 7]
    assert isinstance(value, str), f"{key}={value!r}: OTHER needs another value for it"
    return f"{value}other"


def changed(base: Trial, key: str) -> Trial:
    """The trial with another value of one setting."""
    group, _, name = key.partition(".")
    config = getattr(base, group)
    if key == "cache.method" and not isinstance(config, CustomCacheConfig):
        return replace(base, cache=CacheConfig() if isinstance(config, DBCacheConfig) else DBCacheConfig())
    if name.startswith("prompts."):
        first, *more = config.prompts
        field = name.removeprefix("prompts.")
        prompts = [replace(first, **{field: other(key, getattr(first, field))}), *more]
        return replace(base, workload=replace(config, prompts=prompts))
    return replace(base, **{group: replace(config, **{name: other(key, getattr(config, name))})})


def words(made: Any) -> str:
    """What a tool reads: the files without their comments."""
    lines = [line for file in made.files for line in file.text.splitlines()]
    return "\n".join(line for line in lines if not line.startswith("# "))


def tells_apart(one: Emission, two: Emission, key: str) -> bool:
    """Whether the words differ, or a note that names the setting does."""
    notes = set(one.notes) ^ set(two.notes)
    return words(one) != words(two) or any(f"{key}=" in note for note in notes)


@pytest.mark.parametrize("tool", [tool for tool in TOOLS if tool != "zbench"])
@pytest.mark.parametrize("base", BASES)
def test_every_setting_is_carried_or_named(tool: str, base: str) -> None:
    """That `zbench run` carries all is proven by composing its line again (tests/test_recommend.py)."""
    before = BASES[base]
    one = emit(before, tool)
    lost = [key for key in settings(before) if not tells_apart(one, emit(changed(before, key), tool), key)]
    assert not lost, f"--to {tool}: neither in the words nor in a note"


def test_every_field_of_every_schema_is_a_setting() -> None:
    groups = ("pipeline", "engine", "parallel", "offload", "cache", "compute", "workload")
    wanted = {f"{g}.{f.name}" for g in groups for schema in SCHEMAS[g].values() for f in fields(schema)}
    wanted = {key for key in wanted if not key.endswith(".grid")} - {"workload.prompts"}
    wanted |= {f"workload.prompts.{f.name}" for f in fields(Prompt)}
    assert {key for base in BASES.values() for key in settings(base)} == wanted
    assert {f.name for f in fields(Trial)} == {*groups, "hardware", "vram_limit_gib"}


def test_what_is_no_config_group_is_named_too() -> None:
    hardware = HardwareConfig(name="h100", title="H100", datasheet="x")
    for tool in ("sglang", "cache-dit", "diffusers"):
        capped = emit(turbo(vram_limit_gib=16.0), tool)
        assert any("hardware.vram_limit_gib=16" in note for note in capped.notes), tool
        projected = emit(turbo(hardware=hardware), tool)
        assert any("hardware.name=h100" in note for note in projected.notes), tool


@dataclass
class NewerComputeConfig(ComputeConfig):
    """As a later zbench may have it."""

    brand_new: bool = False


@dataclass
class NewerPipelineConfig(PipelineConfig):
    """One without a default."""

    also_new: str | None = "a value"


@pytest.mark.parametrize("tool", ["sglang", "cache-dit", "diffusers"])
def test_a_field_that_nobody_has_thought_of_is_named_in_a_note(tool: str) -> None:
    pipeline = NewerPipelineConfig(name="z", preset="zimage_turbo", height=64, width=64, also_new=None)
    newer = trial(pipeline=pipeline, compute=NewerComputeConfig(brand_new=True))
    notes = " ".join(emit(newer, tool).notes)
    assert "compute.brand_new=true" in notes and "pipeline.also_new=null" in notes
    assert "compute.brand_new" not in " ".join(emit(trial(compute=NewerComputeConfig()), tool).notes)


def test_values_of_a_note_are_one_line_of_bounded_length() -> None:
    workload = WorkloadConfig(name="a\nb" + "x" * 500, prompts=SCENES.prompts)
    notes = emit(turbo(workload=workload), "sglang").notes
    assert all("\n" not in note for note in notes)
    assert not any("x" * 100 in note for note in notes)
