"""A trial in SGLang's words: every flag is said, and what has no counterpart is told."""

import json
import shlex
import subprocess
import sys
from dataclasses import replace

import pytest
from factories import SCENES, TURBO, trial, turbo

from zbench.composition import expand
from zbench.config import (
    ComputeConfig,
    CustomCacheConfig,
    DBCacheConfig,
    OffloadConfig,
    ParallelConfig,
    PipelineConfig,
    Prompt,
    SCMConfig,
    WorkloadConfig,
)
from zbench.engines.sglang.launch import sglang_launch
from zbench.trial import Trial

CACHED = DBCacheConfig(max_warmup_steps=2)


def flags_of(launch):
    return dict(zip(launch.arguments[2::2], launch.arguments[3::2], strict=True))


def test_sglang_gets_every_cache_parameter():
    cache = DBCacheConfig(
        Fn_compute_blocks=2,
        Bn_compute_blocks=1,
        max_warmup_steps=3,
        residual_diff_threshold=0.12,
        max_continuous_cached_steps=2,
        enable_taylorseer=True,
        taylorseer_order=2,
    )
    launch = sglang_launch(turbo(cache))
    assert launch.environment == {
        "SGLANG_CACHE_DIT_ENABLED": "true",
        "SGLANG_CACHE_DIT_FN": "2",
        "SGLANG_CACHE_DIT_BN": "1",
        "SGLANG_CACHE_DIT_WARMUP": "3",
        "SGLANG_CACHE_DIT_RDT": "0.12",
        "SGLANG_CACHE_DIT_MC": "2",
        "SGLANG_CACHE_DIT_TAYLORSEER": "true",
        "SGLANG_CACHE_DIT_TS_ORDER": "2",
    }
    # The breakable CUDA graph would silently turn the cache off (facts/sglang.md).
    assert flags_of(launch)["--enable-breakable-cuda-graph"] == "false"


def test_sglang_without_a_cache_is_told_so_and_keeps_its_graph():
    launch = sglang_launch(turbo())
    assert launch.environment == {"SGLANG_CACHE_DIT_ENABLED": "false"}
    assert "--enable-breakable-cuda-graph" not in launch.arguments


def test_sglang_compiles_without_claims_about_its_graph():
    launch = sglang_launch(turbo(compute=ComputeConfig(compile=True, dtype="bfloat16")))
    flags = flags_of(launch)
    assert flags["--enable-torch-compile"] == flags["--regional-compile"] == "true"
    assert "--enable-breakable-cuda-graph" not in flags
    assert not any("graph" in note or "computes in" in note for note in launch.notes)


def test_sglang_degrees_and_ring_backend():
    flags = flags_of(sglang_launch(turbo(parallel=ParallelConfig(ulysses_size=2, ring_size=2))))
    degrees = [flags[f"--{name}"] for name in ("num-gpus", "tp-size", "sp-degree", "ulysses-degree", "ring-degree")]
    assert degrees == ["4", "1", "4", "2", "2"]
    assert flags["--attention-backend"] == "fa"  # ring needs the log-sum-exp


def test_sglang_degrees_of_gather_guidance_and_replicas():
    parallel = ParallelConfig(gather_size=2, cfg_size=2, dp_size=2)
    launch = sglang_launch(turbo(parallel=parallel))
    flags = flags_of(launch)
    degrees = [flags[f"--{name}"] for name in ("num-gpus", "sp-degree", "kv-gather-degree", "dp-size")]
    assert degrees == ["8", "2", "2", "2"] and flags["--enable-cfg-parallel"] == "true"
    assert not any("refuses" in note for note in launch.notes)
    assert "--enable-cfg-parallel" not in sglang_launch(turbo()).arguments


@pytest.mark.parametrize(
    ("degrees", "says"),
    [
        (
            {"tp_size": 2, "ulysses_size": 2},
            "15 heads a device after tensor parallelism are not divisible",
        ),
        ({"ulysses_size": 4}, "30 heads a device"),
        ({"ulysses_size": 2, "gather_size": 2}, "its kv-gather degree must be all of its sequence degree"),
        ({"ulysses_size": 2, "ring_size": 2}, None),
        ({"gather_size": 4}, None),
        ({"ring_size": 4}, None),
    ],
)
def test_what_sglang_refuses_is_said(degrees, says):
    notes = sglang_launch(turbo(parallel=ParallelConfig(**degrees))).notes
    refused = [note for note in notes if note.startswith("SGLang refuses these degrees: ")]
    assert (says is None and not refused) or says in refused[0]


def test_options_that_sglang_lacks_are_said_to_be_left_out():
    parallel = ParallelConfig(ulysses_size=2, ulysses_async=True, vae="split")
    notes = sglang_launch(turbo(parallel=parallel)).notes
    lacking = [note.split(" has no counterpart")[0] for note in notes if "no counterpart" in note]
    assert lacking == ["parallel.ulysses_async=true", "parallel.vae=split"]


@pytest.mark.parametrize(
    ("mode", "cache", "flags_on"),
    [
        ("none", None, []),
        ("text_encoder", None, ["text-encoder-cpu", "image-encoder-cpu"]),
        ("dit", None, ["dit-cpu"]),
        ("vae", None, ["vae-cpu"]),
        ("all", None, ["dit-cpu", "text-encoder-cpu", "image-encoder-cpu", "vae-cpu"]),
        ("group", None, ["dit-layerwise", "text-encoder-cpu", "image-encoder-cpu", "vae-cpu"]),
        ("group", CACHED, ["dit-layerwise", "text-encoder-cpu", "image-encoder-cpu", "vae-cpu"]),
        ("sequential", None, ["dit-layerwise", "text-encoder-cpu", "image-encoder-cpu", "vae-cpu"]),
    ],
)
def test_sglang_offload_is_never_left_to_auto(mode, cache, flags_on):
    launch = sglang_launch(turbo(cache, offload=OffloadConfig(mode=mode)))
    flags = flags_of(launch)
    offloads = {name: value for name, value in flags.items() if name.endswith("-offload")}
    assert len(offloads) == 5
    assert offloads == {name: str(name[2 : -len("-offload")] in flags_on).lower() for name in offloads}
    assert flags["--pin-cpu-memory"] == "true"
    assert any("no exact counterpart" in note for note in launch.notes) == (mode in ("group", "sequential"))


def test_sglang_serves_the_base_model_under_its_own_name_with_steps_and_guidance():
    jobs = expand(["hardware=cpu", "pipeline=zimage", "workload=single"], lambda *_: "cpu", grids=False).jobs
    launch = sglang_launch(Trial.from_config(jobs[0].config, projected=False))
    assert flags_of(launch)["--model-path"] == "Tongyi-MAI/Z-Image"
    wanted = {"num_inference_steps": 50, "guidance_scale": 5.0, "size": "1024x1024"}
    assert wanted.items() <= launch.request.items()
    assert any("num_inference_steps=50" in note for note in launch.notes)
    assert not any("validated" in note or "default of 9" in note for note in launch.notes)


def test_lines_survive_a_shell():
    pipeline = PipelineConfig(
        name="zimage_turbo", preset="zimage_turbo", weights="/my models/it's $HOME", height=512, width=512
    )
    launch = sglang_launch(trial(pipeline=pipeline))
    assert flags_of(launch)["--model-path"] == "/my models/it's $HOME"
    assert "/my models/it's $HOME" in shlex.split(launch.command)
    body = shlex.split(launch.request_command)[-1]
    assert json.loads(body) == launch.request
    assert launch.request["size"] == "512x512"


def test_a_transformers_file_is_no_model_to_serve_and_that_is_said():
    pipeline = PipelineConfig(name="zimage_turbo", preset="zimage_turbo", weights="/m/z.gguf", height=512, width=512)
    launch = sglang_launch(trial(pipeline=pipeline))
    assert flags_of(launch)["--model-path"] == "Tongyi-MAI/Z-Image-Turbo"
    assert any("the transformer of /m/z.gguf, which this does not load" in note for note in launch.notes)


def test_sglang_is_told_the_mask_and_warns_of_several_gpus_in_this_order():
    compute, parallel = ComputeConfig(dtype="float32"), ParallelConfig(ulysses_size=2)
    launch = sglang_launch(turbo(SCMConfig(scm_preset="fast"), compute=compute, parallel=parallel))
    assert launch.environment["SGLANG_CACHE_DIT_SCM_PRESET"] == "fast"
    assert launch.environment["SGLANG_CACHE_DIT_SCM_POLICY"] == "dynamic"
    told = [
        "compute.attention_backend=native is SGLang's",
        "breakable",
        "compute.dtype=float32 is not carried over",
        "step mask",
        "several GPUs",
        "Steps are set by",
        "first prompt of 2",
        "Names of zbench's own",
    ]
    assert all(part in note for part, note in zip(told, launch.notes, strict=True)), launch.notes


def test_sglang_is_told_a_mask_of_ones_own_by_bins_and_no_preset():
    launch = sglang_launch(turbo(SCMConfig(steps_mask="11101001", scm_policy="static")))
    told = {name: value for name, value in launch.environment.items() if "_SCM_" in name}
    assert told == {
        "SGLANG_CACHE_DIT_SCM_COMPUTE_BINS": "3,1,1",
        "SGLANG_CACHE_DIT_SCM_CACHE_BINS": "1,2",
        "SGLANG_CACHE_DIT_SCM_POLICY": "static",
    }


def test_a_cache_from_outside_is_not_claimed_to_run_in_sglang():
    launch = sglang_launch(turbo(CustomCacheConfig(method="mine", target="a:B")))
    assert launch.environment == {"SGLANG_CACHE_DIT_ENABLED": "false"}
    assert "--enable-breakable-cuda-graph" not in launch.arguments
    assert any("cache.method=mine" in note for note in launch.notes)


def test_a_launch_needs_no_torch():
    code = "import sys, zbench.engines.sglang.launch; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_request_has_the_negative_prompt_where_there_is_one():
    prompts = [Prompt("a", "a cat", negative_prompt="blurry")]
    asked = turbo(workload=WorkloadConfig(name="w", prompts=prompts))
    assert sglang_launch(asked).request["negative_prompt"] == "blurry"
    assert "negative_prompt" not in sglang_launch(turbo()).request


def test_sglang_gets_the_lora_its_scale_and_whether_it_is_merged():
    styled = replace(TURBO, lora="/a style/x.safetensors", lora_scale=0.8, lora_fused=False)
    launch = sglang_launch(trial(pipeline=styled))
    assert (flags_of(launch)["--lora-path"], flags_of(launch)["--lora-scale"]) == ("/a style/x.safetensors", "0.8")
    assert "'/a style/x.safetensors'" in launch.command
    assert flags_of(launch)["--lora-merge-mode"] == "dynamic"
    fused = sglang_launch(trial(pipeline=replace(styled, lora_fused=True)))
    assert flags_of(fused)["--lora-merge-mode"] == "merge"
    assert "--lora-path" not in sglang_launch(turbo()).arguments


def test_a_batch_is_asked_for_whole():
    batch = replace(TURBO, batch_size=2, images_per_prompt=3)
    launch = sglang_launch(trial(pipeline=batch))
    assert launch.request["n"] == 6
    assert any("pipeline.batch_size=2 × pipeline.images_per_prompt=3" in note for note in launch.notes)
    most = sglang_launch(trial(pipeline=replace(TURBO, batch_size=16))).notes
    assert any("n=16 to SGLang; it makes at most 10 a request" in note for note in most)


def test_every_prompt_with_every_seed_is_a_request():
    workload = WorkloadConfig(name="w", prompts=SCENES.prompts, seeds=[3, 5])
    launch = sglang_launch(turbo(workload=workload))
    asked = [(request["prompt"], request["seed"]) for request in launch.requests]
    assert asked == [(prompt.text, seed) for prompt in SCENES.prompts for seed in (3, 5)]
    assert launch.request == launch.requests[0]
    assert any("the first prompt of 2 with the first seed of 2" in note for note in launch.notes)
