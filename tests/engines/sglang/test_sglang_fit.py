"""What SGLang, or a version of it, cannot run is said before anything is started; the rest is grouped by launches."""

from dataclasses import replace
from typing import Any

import pytest
from factories import TINY, TURBO, trial

from zbench.config import (
    CacheConfig,
    ComputeConfig,
    CustomCacheConfig,
    DBCacheConfig,
    OffloadConfig,
    ParallelConfig,
    Prompt,
    SCMConfig,
    ServedEngineConfig,
    WorkloadConfig,
)
from zbench.engines.sglang import SGLangEngine
from zbench.engines.sglang.launch import TARGET
from zbench.engines.sglang.options import checked
from zbench.engines.sglang.versions import accepted, known_versions
from zbench.engines.sglang.words import body_of, caches_per_request, server_words
from zbench.errors import ConfigError
from zbench.trial import Trial

OLD, NEW = "0.5.15.post1", "0.5.23"
SERVED = replace(TURBO, weights="/models/Z-Image-Turbo")


def of(cache: CacheConfig | None = None, options: dict[str, Any] | None = None, **groups: Any) -> Trial:
    engine = ServedEngineConfig(name="sglang", target=TARGET, options=options or {})
    defaults = {"pipeline": SERVED, "engine": engine, "compute": ComputeConfig(device="cuda")}
    return trial(cache, **{**defaults, **groups})


def reason(a_trial: Trial, version: str = NEW, **options: Any) -> str | None:
    return SGLangEngine(version=version, **options).supports(a_trial)


FORCED = SCMConfig(scm_preset="fast", scm_policy="static")


@pytest.mark.parametrize("version", known_versions())
@pytest.mark.parametrize(
    "groups",
    [
        {},
        {"cache": DBCacheConfig()},
        {"cache": DBCacheConfig(enable_taylorseer=True)},
        {"cache": SCMConfig(scm_preset="fast", scm_policy="dynamic")},
        {"offload": OffloadConfig(mode="dit")},
        {"offload": OffloadConfig(mode="group")},
        {"compute": ComputeConfig(device="cuda", compile=True)},
        {"parallel": ParallelConfig(ulysses_size=2, ring_size=2), "compute": ComputeConfig(device="cuda")},
    ],
)
def test_every_version_runs_what_it_has_words_for(version: str, groups: dict[str, Any]) -> None:
    groups = dict(groups)
    assert reason(of(groups.pop("cache", None), **groups), version) is None


@pytest.mark.parametrize(
    ("a_trial", "version", "said"),
    [
        (of(pipeline=TINY), NEW, "pipeline=zimage_tiny: SGLang serves zimage_turbo and zimage"),
        (of(pipeline=replace(TURBO, weights="random")), NEW, "name a folder that holds some with engine.options.model"),
        (of(pipeline=replace(TURBO, weights="/x/y.safetensors")), NEW, "not the transformer's file"),
        (of(pipeline=replace(SERVED, batch_size=4, images_per_prompt=3)), NEW, "12 images a call: SGLang makes at mos"),
        (of(pipeline=replace(SERVED, variant="fp16")), NEW, "pipeline.variant=fp16: SGLang has no counterpart"),
        (of(compute=ComputeConfig(device="cuda", dtype="float32")), NEW, "compute.dtype=float32: SGLang has no count"),
        (of(compute=ComputeConfig(device="cuda", attention_backend="xformers")), NEW, "compute.attention_backend=xfo"),
        (of(vram_limit_gib=16.0), NEW, "hardware.vram_limit_gib=16: SGLang has no counterpart"),
        (of(compute=ComputeConfig(device="cuda", compile=True, graphs="all")), NEW, "excludes compute.compile=true"),
        (of(DBCacheConfig(), compute=ComputeConfig(device="cuda", graphs="all")), NEW, "silently turn off"),
        (of(compute=ComputeConfig(device="cuda", graphs="all")), OLD, "has no --enable-breakable-cuda-graph"),
        (of(parallel=ParallelConfig(ulysses_size=4)), NEW, "30 heads a device after tensor parallelism are not divi"),
        (of(parallel=ParallelConfig(gather_size=2)), OLD, "has no --kv-gather-degree (asked for: 2); it then refuses"),
        (of(FORCED), OLD, "cache.scm_policy=static: sglang 0.5.15.post1 holds a forced mask for its first request"),
        (of(CustomCacheConfig(method="mine", target="my:Cache")), NEW, "cache.method=mine: SGLang has no counterpart"),
    ],
)
def test_what_it_has_no_word_for_is_pruned_with_key_and_value(a_trial: Trial, version: str, said: str) -> None:
    why = reason(a_trial, version)
    assert why is not None and said in why


def test_a_forced_mask_is_kept_by_the_version_that_refreshes_its_policy() -> None:
    assert reason(of(FORCED), NEW) is None


def test_random_weights_come_from_a_folder_that_is_named_for_them() -> None:
    at_random = of(pipeline=replace(TURBO, weights="random"))
    assert reason(at_random, model_path="/models/Z-Image-Turbo") is None
    words = server_words(at_random, checked(_given(model_path="/random/Z-Image-Turbo")), accepted(NEW), 1, {})
    assert words.command[words.command.index("--model-path") + 1] == "/random/Z-Image-Turbo"
    why = reason(of(), model_path="/models/Z-Image-Turbo")
    assert why is not None and "is for a folder of random weights" in why


def test_of_a_server_that_is_there_only_what_requests_say_may_be_asked() -> None:
    at = {"base_url": "http://127.0.0.1:30000"}
    its_own = {"pipeline": TURBO}
    assert reason(of(**its_own), **at) is None
    asked = {"width": 512, "steps": 4, "guidance_scale": 2.0, "images_per_prompt": 2}
    assert reason(of(pipeline=replace(TURBO, **asked)), **at) is None
    cached = SGLangEngine(**at).supports(of(DBCacheConfig(), **its_own))
    assert cached is not None and "engine.options.per_request_cache=true where it takes enable_cache_dit" in cached
    assert SGLangEngine(**at, per_request_cache=True).supports(of(DBCacheConfig(), **its_own)) is None
    assert reason(of(DBCacheConfig(), **its_own), **at) is None  # its version is named, and takes it


@pytest.mark.parametrize(
    ("groups", "said"),
    [
        ({"compute": ComputeConfig(device="cuda", compile=True)}, "compute.compile=true: how the server at"),
        ({"offload": OffloadConfig(mode="dit")}, "offload.mode=dit"),
        ({"parallel": ParallelConfig(ulysses_size=2)}, "parallel.ulysses_size=2"),
        ({"pipeline": SERVED}, "pipeline.weights=/models/Z-Image-Turbo"),
        ({"pipeline": replace(TURBO, vae="/models/vae")}, "pipeline.vae=/models/vae"),
        ({"pipeline": replace(TURBO, vae_tiling=True)}, "pipeline.vae_tiling=true"),
        ({"pipeline": replace(TURBO, lora="/models/a.safetensors")}, "pipeline.lora=/models/a.safetensors"),
    ],
)
def test_what_a_launch_decides_is_refused_of_a_server_that_is_there(groups: dict[str, Any], said: str) -> None:
    why = reason(of(**{"pipeline": TURBO, **groups}), base_url="http://127.0.0.1:30000")
    assert why is not None and said in why


@pytest.mark.parametrize(
    ("version", "option", "one_launch"),
    [(NEW, "auto", True), (OLD, "auto", False), (NEW, False, False), (OLD, True, True)],
)
def test_caches_share_a_launch_where_requests_say_them(version: str, option: Any, one_launch: bool) -> None:
    engine = SGLangEngine(version=version, per_request_cache=option)
    processes = {engine.residency(of(cache)).process for cache in (None, DBCacheConfig(), FORCED)}
    assert (len(processes) == 1) == one_launch
    compiled = ComputeConfig(device="cuda", compile=True)
    of_compiled = {engine.residency(of(cache, compute=compiled)).process for cache in (None, DBCacheConfig())}
    assert len(of_compiled) == 2  # compiled code holds its cache


def test_size_images_and_launch_flags_are_of_the_process_and_steps_and_prompts_of_the_request() -> None:
    engine = SGLangEngine(version=NEW)
    own = engine.residency(of())
    for other in (
        of(pipeline=replace(SERVED, width=512)),
        of(pipeline=replace(SERVED, batch_size=2)),
        of(offload=OffloadConfig(mode="dit")),
    ):
        assert engine.residency(other).process != own.process
    steps = engine.residency(of(pipeline=replace(SERVED, steps=9)))
    prompts = engine.residency(of(workload=WorkloadConfig(name="w", prompts=[Prompt(id="a", text="a")])))
    assert steps.process == prompts.process == own.process
    assert len({steps.request, prompts.request, own.request}) == 3


def test_a_request_says_everything_that_decides_its_image() -> None:
    prompt = Prompt(id="p", text="a cat", negative_prompt="a dog")
    guided = of(FORCED, pipeline=replace(SERVED, steps=9, guidance_scale=4.0, batch_size=2))
    body = body_of(guided, prompt, 7, per_request=True)
    assert body == {
        "prompt": "a cat",
        "negative_prompt": "a dog",
        "n": 2,
        "size": "1024x1024",
        "num_inference_steps": 9,
        "guidance_scale": 4.0,
        "cfg_normalization": False,
        "max_sequence_length": 512,
        "seed": 7,
        "generator_device": "cpu",
        "output_format": "png",
        "response_format": "b64_json",
        "enable_cache_dit": True,
        "cache_dit_params": {
            "Fn_compute_blocks": 1,
            "Bn_compute_blocks": 0,
            "max_warmup_steps": FORCED.max_warmup_steps,
            "residual_diff_threshold": FORCED.residual_diff_threshold,
            "max_continuous_cached_steps": FORCED.max_continuous_cached_steps,
            "enable_taylorseer": False,
            "scm_preset": "fast",
            "scm_policy": "static",
        },
    }
    assert body_of(of(), prompt, 0, per_request=True)["enable_cache_dit"] is False  # whatever its launch says
    assert "enable_cache_dit" not in body_of(of(DBCacheConfig()), prompt, 0, per_request=False)


def test_ones_own_flag_takes_the_place_of_zbenchs() -> None:
    given = {"pin-cpu-memory": False, "warmup-mode": "off"}
    words = server_words(of(options={"flags": given}), checked(_given(flags=given)), accepted(NEW), 31000, {}).command
    assert words.count("--pin-cpu-memory") == 1 and words[words.index("--pin-cpu-memory") + 1] == "false"
    assert words[words.index("--warmup-mode") + 1] == "off" and words[words.index("--port") + 1] == "31000"


def test_nothing_is_downloaded_unless_the_pipeline_may() -> None:
    options, takes = checked(_given()), accepted(NEW)
    assert server_words(of(), options, takes, 1, {}).environment["HF_HUB_OFFLINE"] == "1"
    fetched = of(pipeline=replace(TURBO, download=True))
    assert "HF_HUB_OFFLINE" not in server_words(fetched, options, takes, 1, {}).environment


def test_an_unknown_version_is_told_by_launches() -> None:
    unknown = replace(accepted(NEW), version="0.5.99", request=None, environment=None, keeps_forced_masks=None)
    assert not caches_per_request(of(DBCacheConfig()), checked(_given()), unknown)


def _given(**options: Any) -> dict[str, Any]:
    defaults = {
        **{"base_url": None, "program": ["sglang"], "environment": {}, "flags": {}, "version": "installed"},
        **{"host": "127.0.0.1", "port": 0, "ready_timeout_s": 1, "request_timeout_s": 1, "per_request_cache": "auto"},
        **{"model_path": None, "perf_dumps": True, "key_env": None},
    }
    return {**defaults, **options}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"program": []}, "engine.options.program='[]': must be a list of words"),
        ({"program": ["sglang", 3]}, "engine.options.program"),
        ({"environment": {"HF_TOKEN": "hf_secret"}}, "engine.options.environment.HF_TOKEN=…: set HF_TOKEN where"),
        ({"environment": {"MY_API_KEY": "sk-secret"}}, "engine.options.environment.MY_API_KEY=…"),
        ({"environment": {"A=B": "1"}}, "is no name of a variable"),
        ({"environment": [1]}, "engine.options.environment"),
        ({"environment": {"CUDA_VISIBLE_DEVICES": "1"}}, "would move the server alone; set it where zbench is started"),
        (
            {"environment": {"SGLANG_CACHE_DIT_ENABLED": "true"}},
            "engine.options.environment.SGLANG_CACHE_DIT_ENABLED='true': is what the trial's cache says",
        ),
        ({"flags": {"--warmup-mode": "off"}}, "write it without its dashes"),
        ({"flags": {"api-key": "sk-secret"}}, "engine.options.flags.api-key=…: is a key or a password"),
        ({"flags": {"base-gpu-id": 1}}, "engine.options.flags.base-gpu-id='1': would move the server alone"),
        ({"flags": {"gpu-ids": "1,2"}}, "set CUDA_VISIBLE_DEVICES where zbench is started"),
        ({"flags": {"port": 3}}, "engine.options.flags.port='3': is set by engine.options.port"),
        ({"flags": {"model-path": "/x"}}, "is set by pipeline.weights or engine.options.model_path"),
        ({"flags": {"warmup-mode": "--host"}}, "engine.options.flags.warmup-mode"),
        ({"version": 0.5}, "must be installed, or a version such as 0.5.23"),
        ({"port": 70000}, "engine.options.port='70000': must be 0 (a free one) to 65535"),
        ({"port": True}, "engine.options.port"),
        ({"ready_timeout_s": 0}, "engine.options.ready_timeout_s='0': must be above 0"),
        ({"per_request_cache": "yes"}, "must be auto, true or false"),
        ({"per_request_cache": 1}, "must be auto, true or false"),
        ({"model_path": 3}, "engine.options.model_path='3': must be a folder, or null"),
        *(
            ({"base_url": "http://127.0.0.1:1", **launch}, f"engine.options.{next(iter(launch))}='")
            for launch in (
                {"program": ["/opt/sglang/bin/sglang"]},
                {"flags": {"quantization": "fp8"}},
                {"environment": {"A": "secret"}},
                {"host": "0.0.0.0"},
                {"port": 30001},
                {"model_path": "/x"},
            )
        ),
        ({"key_env": "KEY"}, "is for a server that is there (engine.base_url)"),
        ({"base_url": "http://u:secret@h:1"}, "keys come from the environment alone"),
    ],
)
def test_an_option_that_cannot_be_names_its_key_and_the_way_out(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as told:
        SGLangEngine(**options)
    assert said in str(told.value)
    assert "secret" not in str(told.value)


def test_a_program_that_is_not_there_is_an_error_that_names_the_table() -> None:
    with pytest.raises(ConfigError, match=r"engine.options.version=installed: there is no sgl-none on the PATH; name"):
        SGLangEngine(program=["sgl-none"]).supports(of())
    with pytest.raises(ConfigError, match=r"engine.options.version=0\.4: there are 0\.5\.12"):
        SGLangEngine(version="0.4").supports(of())
