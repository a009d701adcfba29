"""What a request says, and what no request can say."""

from dataclasses import replace
from typing import Any

import pytest
from factories import SCENES, TINY, TURBO, trial

from zbench.config import (
    CacheConfig,
    ComputeConfig,
    CustomCacheConfig,
    DBCacheConfig,
    EngineConfig,
    HardwareConfig,
    OffloadConfig,
    ParallelConfig,
    Prompt,
    SCMConfig,
    ServedEngineConfig,
)
from zbench.engines import describe, process_of
from zbench.engines.openai_images import ImagesEngine
from zbench.engines.openai_images.dialects import DIALECTS
from zbench.errors import ConfigError
from zbench.space import arrange, constraint
from zbench.sweeper.reference import named_reference
from zbench.trial import Trial, geometry_of

URL = "http://127.0.0.1:30000"
TARGET = "zbench.engines.openai_images:ImagesEngine"
SERVED = ServedEngineConfig(name="openai_images", target=TARGET, loads_weights=False, base_url=URL)


def served(cache: CacheConfig | None = None, **groups: Any) -> Trial:
    return trial(cache, **{"engine": SERVED, "compute": ComputeConfig(device="cpu")} | groups)


def body(of: Trial, dialect: str = "sglang", negative: str = "") -> dict[str, Any]:
    return DIALECTS[dialect].body(of, "a cat", 7, negative)


BASE = {"prompt": "a cat", "n": 1, "size": "256x256", "response_format": "b64_json"}
STEPS = {"seed": 7, "num_inference_steps": 8, "guidance_scale": 0.0, "generator_device": "cpu", "output_format": "png"}


def test_a_trial_without_a_cache_says_so() -> None:
    """A server may have one of its own by default."""
    assert body(served()) == {**BASE, **STEPS, "enable_cache_dit": False}


def test_cache_parameters_have_cache_dits_names() -> None:
    said = body(served(SCMConfig(max_warmup_steps=2, scm_policy="static", enable_taylorseer=True)))
    assert said["enable_cache_dit"] is True and said["cache_dit_params"] == {
        "Fn_compute_blocks": 1,
        "Bn_compute_blocks": 0,
        "max_warmup_steps": 2,
        "residual_diff_threshold": 0.24,
        "max_continuous_cached_steps": 3,
        "enable_taylorseer": True,
        "taylorseer_order": 1,
        "scm_preset": "medium",
        "scm_policy": "static",
    }


def test_with_guidance_nothing_is_left_to_the_server() -> None:
    guided = replace(TURBO, guidance_scale=4.0, steps=9, batch_size=2, images_per_prompt=3)
    said = body(served(pipeline=guided), negative="blurred")
    assert said["cfg_normalization"] is False and said["negative_prompt"] == "blurred"
    assert (said["guidance_scale"], said["num_inference_steps"], said["n"], said["size"]) == (4.0, 9, 6, "1024x1024")


def test_each_dialect_holds_to_its_own_fields() -> None:
    assert body(served(), "vllm_omni") == {**BASE, **STEPS}
    assert body(served(), "openai") == BASE


@pytest.mark.parametrize(
    ("groups", "says"),
    [
        (
            {"parallel": ParallelConfig(tp_size=2)},
            "parallel.tp_size=2: no request can change it; start the server with",
        ),
        ({"offload": OffloadConfig(mode="all")}, "offload.mode=all: no request can change it"),
        ({"compute": ComputeConfig(device="cpu", compile=True)}, "compute.compile=true: no request can change it"),
        ({"compute": ComputeConfig(dtype="float32")}, "compute.dtype=float32: no request"),
        ({"compute": ComputeConfig(attention_backend="flash")}, "compute.attention_backend=flash: no request"),
        ({"pipeline": replace(TINY, vae_tiling=True)}, "pipeline.vae_tiling=true: no request"),
        ({"pipeline": replace(TINY, weights="/some/folder")}, "pipeline.weights=/some/folder: no request"),
        ({"pipeline": replace(TINY, lora="/a/style")}, "pipeline.lora=/a/style: no request"),
        ({"pipeline": replace(TINY, max_sequence_length=64)}, "pipeline.max_sequence_length=64: no request"),
        ({"pipeline": replace(TINY, images_per_prompt=11)}, "a request makes at most 10 images"),
        ({"vram_limit_gib": 16.0}, "hardware.vram_limit_gib=16: no request can change it"),
        (
            {"cache": CustomCacheConfig(method="mine", target="a:B")},
            "cache.method=mine: a server runs no class of yours",
        ),
    ],
)
def test_what_the_server_decides_is_refused_by_key_and_value(groups: dict[str, Any], says: str) -> None:
    told = ImagesEngine(URL).supports(served(**groups))
    assert told is not None and says in told


@pytest.mark.parametrize(
    "groups",
    [
        {},
        {"cache": DBCacheConfig()},
        {"cache": SCMConfig()},
        {"pipeline": TURBO, "compute": ComputeConfig(device="cuda")},
        {"pipeline": replace(TINY, weights="random", steps=4, batch_size=2)},
    ],
)
def test_what_requests_carry_is_supported(groups: dict[str, Any]) -> None:
    assert ImagesEngine(URL).supports(served(**groups)) is None


def test_a_dialect_that_cannot_carry_a_setting_refuses_it() -> None:
    cached = served(DBCacheConfig())
    for dialect in ("vllm_omni", "openai"):
        told = ImagesEngine(URL, dialect=dialect).supports(cached)
        assert told is not None and told.startswith("cache.method=dbcache: requests of engine.options.dialect=")
    stepped = served(pipeline=replace(TINY, steps=4))
    assert ImagesEngine(URL, dialect="vllm_omni").supports(stepped) is None
    assert "pipeline.steps=4: no request" in str(ImagesEngine(URL, dialect="openai").supports(stepped))
    negative = replace(SCENES, prompts=[Prompt(id="a", text="a", negative_prompt="grey")])
    guided = replace(TINY, guidance_scale=0.0)
    told = ImagesEngine(URL, dialect="openai").supports(served(workload=negative, pipeline=guided))
    assert told is not None and told.startswith("workload.negative_prompt=grey")


def test_one_server_serves_a_whole_grid_and_another_address_is_another_server() -> None:
    engine = ImagesEngine(URL)
    process = process_of(engine, served())
    others = (DBCacheConfig(), SCMConfig(scm_preset="fast"))
    assert {process_of(engine, served(cache, pipeline=replace(TINY, steps=6))) for cache in others} == {process}
    elsewhere = replace(SERVED, base_url="http://127.0.0.1:30001")
    assert process_of(engine, served(engine=elsewhere)) != process


def test_the_references_of_a_served_trial_are_the_same_servers_own_without_a_cache() -> None:
    space = arrange([served(DBCacheConfig(), pipeline=TURBO, compute=ComputeConfig(device="cuda"))])
    reference, cached = space.placed
    assert reference.is_reference and reference.is_baseline and reference.trial.cache == CacheConfig()
    assert reference.trial == replace(cached.trial, cache=CacheConfig())


def test_a_server_is_measured_and_never_projected() -> None:
    gpu = HardwareConfig(name="b300", title="B300", datasheet="none", nvml_name="B300")
    projected = served(pipeline=TURBO, hardware=gpu)
    told = constraint(projected, geometry_of(TURBO))
    assert told is not None and told.startswith("hardware=b300: engine=openai_images measures a server")


def test_a_server_has_no_reference_of_other_weights() -> None:
    with pytest.raises(
        ConfigError, match=r"sweep.reference_weights=auto: engine=openai_images has its server's weights"
    ):
        named_reference("auto", [served()])


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"base_url": None}, "engine.base_url=null: give the server's address, such as engine.base_url=http"),
        ({"base_url": "localhost:30000"}, "engine.base_url=localhost:30000: must be http://HOST:PORT"),
        ({"dialect": "sgl"}, "engine.options.dialect=sgl: must be one of sglang, vllm_omni, openai"),
        ({"model": ""}, "engine.options.model='': must be a name"),
        ({"key_env": None}, "engine.options.key_env=None: must be a name"),
        ({"timeout_s": 0}, "engine.options.timeout_s=0: must be above 0"),
        ({"ready_s": "long"}, "engine.options.ready_s=long: must be above 0"),
        ({"fields": ["quality"]}, "engine.options.fields=…: must be a dictionary, such as {quality:low}"),
        ({"fields": {"seed": 1}}, "engine.options.fields.seed=…: is the trial's to set"),
    ],
)
def test_options_that_cannot_be_are_one_line(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as told:
        ImagesEngine(**{"base_url": URL} | settings)
    assert str(told.value).startswith(says)


def test_an_option_that_is_none_is_told_without_its_value() -> None:
    wrong = replace(SERVED, options={"api_key": "sk-secret"})
    with pytest.raises(ConfigError, match=r"engine.options={'api_key': …}: ImagesEngine does not take") as told:
        describe(wrong)
    assert "sk-secret" not in str(told.value)


def test_a_served_engine_comes_back_out_of_its_record() -> None:
    one = served(DBCacheConfig())
    assert Trial.from_dict(one.to_dict()) == one and isinstance(
        Trial.from_dict(one.to_dict()).engine, ServedEngineConfig
    )
    plain = trial()
    assert "base_url" not in plain.to_dict()["engine"] and type(Trial.from_dict(plain.to_dict()).engine) is EngineConfig
