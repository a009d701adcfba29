"""The recommendation is the fastest feasible trial, and says what it cost to be feasible."""

import json
import shlex

import pytest
from factories import (
    TURBO,
    complete,
    demo_projection,
    demo_records,
    failed,
    trial,
)
from golden_files import assert_golden

from zbench.composition import expand
from zbench.config import (
    DBCacheConfig,
    OffloadConfig,
    ParallelConfig,
    PipelineConfig,
    SCMConfig,
)
from zbench.errors import ConfigError, Exit, NothingFeasibleError, RecordError
from zbench.recommend import recommend
from zbench.recommend.emit import sglang_launch, zbench_overrides
from zbench.trial import Trial

CACHED = DBCacheConfig(max_warmup_steps=2)


def gpu_records():
    """Faster ones need more memory or spoil an image."""
    return [
        complete(trial(), latency_s=1.0, vram_gib=14.0),
        complete(trial(CACHED), latency_s=0.6, ssim=0.97, psnr_db=31.0, vram_gib=18.0),
        complete(trial(DBCacheConfig(max_warmup_steps=4)), latency_s=0.8, ssim=0.99, psnr_db=36.0, vram_gib=15.0),
        complete(trial(SCMConfig()), latency_s=0.4, ssim=0.90, psnr_db=24.0, vram_gib=15.0),
    ]


@pytest.mark.parametrize(
    ("limits", "latency_s", "binding"),
    [
        ({}, 0.4, []),
        ({"min_ssim": 0.9}, 0.4, []),
        ({"min_ssim": 0.95}, 0.6, ["--min-ssim"]),
        ({"min_ssim": 0.95, "max_vram_gib": 16}, 0.8, ["--min-ssim", "--max-vram-gib"]),
        ({"min_ssim": 0.95, "min_psnr_db": 34}, 0.8, ["--min-psnr-db"]),
        ({"min_psnr_db": 40}, 1.0, ["--min-psnr-db"]),
        ({"max_vram_gib": 14.5}, 1.0, ["--max-vram-gib"]),
    ],
)
def test_the_choice_follows_the_constraints(limits, latency_s, binding):
    chosen = recommend(gpu_records(), **limits)
    assert chosen.chosen.latency_median_s == pytest.approx(latency_s)
    assert [judged.flag for b in chosen.binding for judged in b.missed] == binding


def test_two_constraints_that_bind_only_together_are_both_named():
    records = [
        complete(trial(), latency_s=1.0, vram_gib=14.0),
        complete(trial(CACHED), latency_s=0.5, ssim=0.9, vram_gib=20.0),
    ]
    (binding,) = recommend(records, min_ssim=0.95, max_vram_gib=16).binding
    assert {judged.flag for judged in binding.missed} == {"--min-ssim", "--max-vram-gib"}


def test_the_worst_image_decides_not_the_mean():
    # The factory's second image is 0.01 closer, so the mean is 0.955 and the worst 0.95.
    records = [complete(trial(), latency_s=1.0), complete(trial(CACHED), latency_s=0.5, ssim=0.95)]
    assert recommend(records, min_ssim=0.95).chosen.latency_median_s == pytest.approx(0.5)
    assert recommend(records, min_ssim=0.951).chosen.is_baseline


def test_the_runner_up_is_the_next_feasible():
    chosen = recommend(gpu_records(), min_ssim=0.95)
    assert chosen.runner_up.latency_median_s == pytest.approx(0.8)
    assert recommend(gpu_records(), max_vram_gib=14.5).runner_up is None


def test_identical_images_satisfy_every_decibel():
    records = [complete(trial(), latency_s=1.0), complete(trial(CACHED), latency_s=0.9)]
    chosen = recommend(records, min_psnr_db=99)
    assert chosen.chosen.latency_median_s == pytest.approx(0.9)
    assert json.loads(chosen.to_json())["constraints"][0]["identical"] is True


def test_nothing_feasible_says_what_came_nearest_and_by_how_much():
    with pytest.raises(NothingFeasibleError) as caught:
        recommend(gpu_records(), max_vram_gib=12)
    assert caught.value.exit_code == Exit.FAILED == 4
    assert str(caught.value) == (
        "none of 4 trials satisfies --max-vram-gib 12; nearest is none (1.000 s an image, 1.00× the baseline): "
        "peak device memory is 14.0 GiB, 2 GiB above --max-vram-gib 12"
    )


def test_nothing_feasible_names_each_constraint_that_is_missed():
    records = [complete(trial(CACHED), latency_s=0.5, ssim=0.9, psnr_db=20.0, vram_gib=20.0)]
    with pytest.raises(NothingFeasibleError) as caught:
        recommend(records, min_ssim=0.95, min_psnr_db=30, max_vram_gib=24)
    assert "0.05 short of --min-ssim 0.95" in str(caught.value)
    assert "short of --min-psnr-db 30" in str(caught.value)
    assert "--max-vram-gib" not in str(caught.value).partition("nearest")[2]


def test_cpu_records_cannot_be_judged_on_vram():
    with pytest.raises(ConfigError, match=r"--max-vram-gib=16: .*no_gpu.*hardware=") as caught:
        recommend(demo_records(), max_vram_gib=16)
    assert caught.value.exit_code == Exit.BAD_INPUT


def test_random_weights_cannot_be_judged_on_quality():
    records = [complete(t, quality=None, reasons={"quality": "random_weights"}) for t in (trial(), trial(CACHED))]
    with pytest.raises(ConfigError, match="random_weights"):
        recommend(records, min_ssim=0.9)


@pytest.mark.parametrize(
    ("limits", "flag"),
    [
        ({"min_ssim": 1.5}, "--min-ssim=1.5"),
        ({"min_ssim": float("nan")}, "--min-ssim=nan"),
        ({"max_vram_gib": -1}, "--max-vram-gib=-1"),
        ({"min_psnr_db": float("inf")}, "--min-psnr-db=inf"),
    ],
)
def test_a_limit_that_cannot_be_meant_is_refused(limits, flag):
    with pytest.raises(ConfigError, match=flag):
        recommend(gpu_records(), **limits)


def test_projections_are_refused_unless_allowed():
    with pytest.raises(RecordError, match="--allow-proxy") as caught:
        recommend(demo_projection(), min_ssim=0.95)
    assert caught.value.exit_code == Exit.BAD_INPUT
    chosen = recommend(demo_projection(), min_ssim=0.95, allow_proxy=True)
    assert chosen.to_text().startswith("Not validated on Z-Image-Turbo")
    assert json.loads(chosen.to_json())["head"]


def test_measured_and_projected_latencies_are_never_ranked_together():
    mixed = [*demo_records(), *demo_projection()]
    with pytest.raises(RecordError, match="mix measured and projected"):
        recommend(mixed, allow_proxy=True)
    chosen = recommend(mixed, min_ssim=0.95)  # the measured ones alone
    assert chosen.chosen.source == "measured"
    assert any("14 projected or proxy trials were left out" in note for note in chosen.notes)


def test_only_failed_trials_is_an_error():
    with pytest.raises(RecordError, match="no COMPLETE trial"):
        recommend([failed(trial())])


def test_a_distrusted_choice_is_noted():
    records = [complete(trial(), validity=["throttled"])]
    assert "not to be trusted: throttled" in recommend(records).to_text()


def test_the_text_reads_as_agreed():
    assert_golden("recommend.txt", recommend(demo_records(), min_ssim=0.95).to_text() + "\n")


def test_json_has_no_nan_and_both_launches():
    data = json.loads(recommend(demo_records(), min_ssim=0.95).to_json(), parse_constant=pytest.fail)
    assert data["zbench"]["overrides"][0] == "pipeline=zimage_tiny"
    assert data["sglang"]["request"]["num_inference_steps"] == 8
    assert data["runner_up"]["label"] == "F1B0_W2_MC3_R0.24_T1O1"


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
    launch = sglang_launch(trial(cache, pipeline=TURBO))
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
    # The breakable CUDA graph would silently turn the cache off.
    assert flags_of(launch)["--enable-breakable-cuda-graph"] == "false"


def test_sglang_without_a_cache_is_told_so_and_keeps_its_graph():
    launch = sglang_launch(trial(pipeline=TURBO))
    assert launch.environment == {"SGLANG_CACHE_DIT_ENABLED": "false"}
    assert "--enable-breakable-cuda-graph" not in launch.arguments


def test_sglang_degrees_and_ring_backend():
    flags = flags_of(sglang_launch(trial(pipeline=TURBO, parallel=ParallelConfig(ulysses_size=2, ring_size=2))))
    degrees = [flags[f"--{name}"] for name in ("num-gpus", "tp-size", "sp-degree", "ulysses-degree", "ring-degree")]
    assert degrees == ["4", "1", "4", "2", "2"]
    assert flags["--attention-backend"] == "fa"  # ring needs the log-sum-exp


@pytest.mark.parametrize(
    ("mode", "cache", "dit", "layerwise"),
    [
        ("none", None, "false", "false"),
        ("model", None, "true", "false"),
        ("group", None, "false", "true"),
        ("group", CACHED, "true", "false"),  # layerwise offload refuses Cache-DiT
    ],
)
def test_sglang_offload_is_never_left_to_auto(mode, cache, dit, layerwise):
    launch = sglang_launch(trial(cache, pipeline=TURBO, offload=OffloadConfig(mode=mode)))
    flags = flags_of(launch)
    assert (flags["--dit-cpu-offload"], flags["--dit-layerwise-offload"]) == (dit, layerwise)
    assert flags["--text-encoder-cpu-offload"] == flags["--vae-cpu-offload"] == str(mode != "none").lower()
    assert any("no exact counterpart" in note for note in launch.notes) == (mode == "group")


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


@pytest.mark.parametrize(
    "typed",
    [
        ["pipeline=zimage_tiny", "cache=none"],
        ["pipeline=zimage_tiny", "cache=dbcache", "cache.max_warmup_steps=2", "workload.seeds=[3,4]"],
        ["pipeline=zimage_turbo", "cache=taylorseer", "cache.taylorseer_order=2", "compute=compiled"],
        ["pipeline=zimage_turbo", "cache=scm", "cache.scm_preset=ultra", "pipeline.weights='/a folder/it\\'s'"],
        ["pipeline=zimage_turbo", "parallel=ulysses", "parallel.ulysses_size=3", "offload=group", "workload=single"],
    ],
)
def test_the_emitted_overrides_compose_to_the_same_trial(typed):
    def compose(overrides):
        config = expand(overrides, lambda group, _: "cpu", grids=False).jobs[0].config
        return Trial.from_config(config, projected=False)

    wanted = compose(typed)
    assert compose(zbench_overrides(wanted)).to_dict() == wanted.to_dict()
