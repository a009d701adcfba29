"""The recommendation is the fastest feasible trial, and says what it cost to be feasible."""

import json
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from factories import (
    SCENES,
    TINY,
    TURBO,
    complete,
    demo_projection,
    demo_records,
    failed,
    projected,
    trial,
    with_window,
)
from golden_files import assert_golden
from hostile import HOSTILE, commands_to_ci, unseen

from zbench.analysis.view import view_of
from zbench.analysis.work import work_key
from zbench.composition import expand
from zbench.config import (
    DBCacheConfig,
    EngineConfig,
    ParallelConfig,
    Prompt,
    SCMConfig,
    WorkloadConfig,
)
from zbench.emit.overrides import zbench_command, zbench_overrides
from zbench.errors import ConfigError, Exit, NothingFeasibleError, RecordError
from zbench.measurement import ImageQuality
from zbench.recommend import Advice, Limits, NoAnswer, recommend
from zbench.report.text.findings import findings
from zbench.store import read_records
from zbench.trial import Trial

CACHED = DBCacheConfig(max_warmup_steps=2)
MEASURED = Path(__file__).parents[1] / "reports" / "cpu" / "demo" / "records.jsonl"
"""What `make demo` measured; README shows its report."""


def answer(records, *, allow_proxy=False, **limits):
    """What is recommended for the one piece of work that these records hold."""
    (only,) = recommend(view_of(records), Limits(**limits), allow_proxy=allow_proxy).answers
    return only


def skipping(cache, **figures):
    """A trial that skips enough steps for its speed to be believed."""
    return complete(trial(cache), cached=(2, 3, 4, 5, 6), **figures)


def in_turns_with(baseline, record):
    """One that took turns with the baseline, in a window of that record's own."""
    theirs = [replace(r, role="baseline") for r in baseline.measurement.window.requests]
    own = record.measurement.window.requests
    return replace(record, measurement=with_window(record.measurement, requests=[*theirs, *own]))


def test_a_runner_up_whose_time_is_shorter_says_why_it_is_second():
    """It was measured when the machine was twice as fast: there the baseline took half as long too."""
    at_noon, at_night = complete(trial(), latency_s=1.0), complete(trial(), latency_s=2.0)
    first = in_turns_with(at_night, skipping(DBCacheConfig(max_warmup_steps=2), latency_s=1.0))
    second = in_turns_with(at_noon, skipping(DBCacheConfig(max_warmup_steps=3), latency_s=0.8))
    advice = answer([at_night, first, second])
    assert (advice.chosen.trial_id, advice.runner_up.trial_id) == (first.trial_id, second.trial_id)
    said = "Its time is shorter, but it was measured when the machine was faster: speed-ups decide."
    assert said in advice.to_text()
    alike = in_turns_with(at_night, skipping(DBCacheConfig(max_warmup_steps=3), latency_s=1.4))
    assert said not in answer([at_night, first, alike]).to_text()


def gpu_records():
    """Faster ones need more memory or spoil an image."""
    return [
        complete(trial(), latency_s=1.0, vram_gib=14.0),
        skipping(CACHED, latency_s=0.6, ssim=0.97, psnr_db=31.0, vram_gib=18.0),
        skipping(DBCacheConfig(max_warmup_steps=4), latency_s=0.8, ssim=0.99, psnr_db=36.0, vram_gib=15.0),
        skipping(SCMConfig(), latency_s=0.4, ssim=0.90, psnr_db=24.0, vram_gib=15.0),
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
    chosen = answer(gpu_records(), **limits)
    assert chosen.chosen.latency_median_s == pytest.approx(latency_s)
    assert [judged.flag for b in chosen.binding for judged in b.missed] == binding


def test_two_constraints_that_bind_only_together_are_both_named():
    records = [
        complete(trial(), latency_s=1.0, vram_gib=14.0),
        skipping(CACHED, latency_s=0.5, ssim=0.9, vram_gib=20.0),
    ]
    (binding,) = answer(records, min_ssim=0.95, max_vram_gib=16).binding
    assert {judged.flag for judged in binding.missed} == {"--min-ssim", "--max-vram-gib"}


def test_lpips_and_latency_are_limits_too():
    records = [
        complete(trial(), latency_s=1.0),
        skipping(CACHED, latency_s=0.6, ssim=0.97, lpips=0.05),
        skipping(SCMConfig(), latency_s=0.4, ssim=0.90, lpips=0.2),
    ]
    assert answer(records, max_lpips=0.1).chosen.latency_median_s == pytest.approx(0.6)
    assert answer(records, max_latency_s=0.5).chosen.latency_median_s == pytest.approx(0.4)
    with pytest.raises(NothingFeasibleError, match="--max-latency-s"):
        answer(records, max_latency_s=0.1)


def test_the_worst_image_decides_not_the_mean():
    # The factory's second image is 0.01 closer, so the mean is 0.955 and the worst 0.95.
    records = [complete(trial(), latency_s=1.0), skipping(CACHED, latency_s=0.5, ssim=0.95)]
    assert answer(records, min_ssim=0.95).chosen.latency_median_s == pytest.approx(0.5)
    assert answer(records, min_ssim=0.951).chosen.is_baseline


def prompt_records():
    """The faster one keeps to the prompts and paints another image; the slower one the other way round."""
    return [
        complete(trial(), latency_s=1.0, prompt_share=1.0),
        skipping(SCMConfig(), latency_s=0.4, ssim=0.80, prompt_share=0.98),
        skipping(CACHED, latency_s=0.6, ssim=0.97, prompt_share=0.80),
    ]


def test_likeness_and_fidelity_to_the_prompt_choose_differently():
    alike, true = (
        answer(prompt_records(), min_ssim=0.95),
        answer(prompt_records(), min_prompt_fidelity=0.95),
    )
    assert alike.chosen.latency_median_s == pytest.approx(0.6)
    assert true.chosen.latency_median_s == pytest.approx(0.4)
    assert answer(prompt_records(), min_ssim=0.95, min_prompt_fidelity=0.95).chosen.is_baseline
    assert "mean share of attributes is 0.99, within --min-prompt-fidelity 0.95" in true.to_text()


@pytest.mark.parametrize(
    ("limits", "label"),
    [
        ({}, "F1B0_W1_MC-1_R0.8"),
        ({"min_ssim": 0.9}, "F1B0_W1_MC-1_R0.8"),
        ({"min_prompt_fidelity": 0.9}, "F1B0_W1_MC-1_R0.4"),
        ({"min_prompt_fidelity": 1.0}, "F1B0_W2_MC3_R0.4"),
        ({"min_ssim": 0.99}, "F1B0_W2_MC3_R0.4"),
        ({"min_ssim": 0.99, "min_prompt_fidelity": 0.9}, "F1B0_W2_MC3_R0.4"),
    ],
)
def test_measured_records_are_chosen_from_by_what_each_limit_sees(limits, label):
    """The most aggressive setting keeps an SSIM of 0.946 in its worst image, and paints wrong colours."""
    assert answer(read_records(MEASURED), **limits).chosen.label == label


def test_the_mean_share_decides_not_the_worst_image():
    # The factory's second image shows everything, so the mean is 0.9 and the worst 0.8.
    records = prompt_records()[::2]
    assert answer(records, min_prompt_fidelity=0.9).chosen.latency_median_s == pytest.approx(0.6)
    (binding,) = answer(records, min_prompt_fidelity=0.91).binding
    assert str(binding.missed[0]) == "mean share of attributes is 0.9, 0.01 short of --min-prompt-fidelity 0.91"


@pytest.mark.parametrize("why", ["no_scene", "random_weights"])
def test_prompts_that_were_not_judged_say_why(why):
    records = [complete(t, reasons={"prompt_fidelity": why}) for t in (trial(), trial(CACHED))]
    with pytest.raises(ConfigError, match=rf"--min-prompt-fidelity=0.9: .*mean share of attributes \({why}\)"):
        answer(records, min_prompt_fidelity=0.9)


def test_the_runner_up_is_the_next_feasible():
    chosen = answer(gpu_records(), min_ssim=0.95)
    assert chosen.runner_up.latency_median_s == pytest.approx(0.8)
    assert answer(gpu_records(), max_vram_gib=14.5).runner_up is None


def test_identical_images_satisfy_every_decibel():
    records = [complete(trial(), latency_s=1.0), complete(trial(CACHED), latency_s=0.9)]
    chosen = answer(records, min_psnr_db=99)
    assert chosen.chosen.latency_median_s == pytest.approx(0.9)
    assert chosen.to_dict()["constraints"][0]["unchanged"] == "identical"
    with pytest.raises(ConfigError, match=r"--min-psnr-db=101: must be within 0 and 100, which is what identical"):
        answer(records, min_psnr_db=101)


def test_nothing_feasible_says_what_came_nearest_and_by_how_much():
    with pytest.raises(NothingFeasibleError) as caught:
        answer(gpu_records(), max_vram_gib=12)
    assert caught.value.exit_code == Exit.FAILED == 4
    assert str(caught.value) == (
        "none of 4 trials satisfies --max-vram-gib 12; nearest is none (1.000 s an image, 1.00× the baseline): "
        "peak device memory is 14.0 GiB, 2 GiB above --max-vram-gib 12"
    )


def test_nothing_feasible_names_each_constraint_that_is_missed():
    records = [complete(trial(CACHED), latency_s=0.5, ssim=0.9, psnr_db=20.0, vram_gib=20.0)]
    with pytest.raises(NothingFeasibleError) as caught:
        answer(records, min_ssim=0.95, min_psnr_db=30, max_vram_gib=24)
    assert "0.05 short of --min-ssim 0.95" in str(caught.value)
    assert "short of --min-psnr-db 30" in str(caught.value)
    assert "--max-vram-gib" not in str(caught.value).partition("nearest")[2]


def test_cpu_records_cannot_be_judged_on_vram():
    with pytest.raises(ConfigError, match=r"--max-vram-gib=16: .*no_gpu.*hardware=") as caught:
        answer(demo_records(), max_vram_gib=16)
    assert caught.value.exit_code == Exit.BAD_INPUT


def test_random_weights_cannot_be_judged_on_quality():
    records = [complete(t, quality=None, reasons={"quality": "random_weights"}) for t in (trial(), trial(CACHED))]
    with pytest.raises(ConfigError, match="random_weights"):
        answer(records, min_ssim=0.9)


def test_a_choice_whose_images_nobody_could_judge_says_so():
    random = {"quality": None, "reasons": {"quality": "random_weights"}}
    found = answer([complete(trial(), latency_s=1.0, **random), skipping(CACHED, latency_s=0.7, **random)])
    assert not found.chosen.is_baseline
    assert any("weights were random" in note for note in found.notes)


def test_quality_cannot_be_asked_of_random_weights_even_of_baselines_alone():
    random = [
        complete(
            trial(pipeline=replace(TURBO, height=side, width=side)),
            latency_s=1.0,
            quality=None,
            reasons={"quality": "random_weights"},
        )
        for side in (512, 1024)
    ]
    for limit in (Limits(min_ssim=0.9), Limits(min_psnr_db=20)):
        with pytest.raises(ConfigError, match="random_weights"):
            recommend(view_of(random), limit)
    assert all(each.chosen.is_baseline for each in recommend(view_of(random), Limits()).answers)


@pytest.mark.parametrize(
    ("limits", "flag"),
    [
        ({"min_ssim": 1.5}, "--min-ssim=1.5"),
        ({"min_ssim": float("nan")}, "--min-ssim=nan"),
        ({"max_vram_gib": -1}, "--max-vram-gib=-1"),
        ({"min_psnr_db": float("inf")}, "--min-psnr-db=inf"),
        ({"min_prompt_fidelity": 90}, "--min-prompt-fidelity=90"),
    ],
)
def test_a_limit_that_cannot_be_meant_is_refused(limits, flag):
    with pytest.raises(ConfigError, match=flag):
        answer(gpu_records(), **limits)


def test_projections_are_refused_unless_allowed():
    with pytest.raises(RecordError, match="--allow-proxy") as caught:
        answer(demo_projection(), min_ssim=0.95)
    assert caught.value.exit_code == Exit.BAD_INPUT
    chosen = answer(demo_projection(), min_ssim=0.95, allow_proxy=True)
    assert chosen.to_text().startswith("Not validated on Z-Image-Turbo")
    assert chosen.to_dict()["head"]


def test_what_does_not_fit_its_hardware_is_not_feasible():
    """The factory's card has 80 GiB; the fastest trial would need 81."""
    small, big = complete(trial(), latency_s=1.0), skipping(CACHED, latency_s=0.5, ssim=0.97)
    records = [projected(small, latency_s=1.0, vram_gib=79), projected(big, latency_s=0.6, vram_gib=81)]
    chosen = answer(records, allow_proxy=True)
    assert chosen.chosen.is_baseline
    (binding,) = chosen.binding
    assert binding.missed[0].flag == "hardware.memory_gib" and binding.missed[0].limit == 80
    with pytest.raises(NothingFeasibleError) as caught:
        answer(records[1:], allow_proxy=True)
    assert caught.value.exit_code == Exit.FAILED
    assert str(caught.value) == (
        "none of 1 trial satisfies hardware.memory_gib 80; nearest is F1B0_W2_MC3_R0.24 (0.603 s an image): "
        "peak device memory on NVIDIA H100 80GB is 81.0 GiB, 1 GiB above hardware.memory_gib 80; "
        "sweep again with offload=all or offload=group, or onto hardware with more memory"
    )


def test_the_memory_of_one_hardware_does_not_bind_another():
    records = [projected(complete(trial()), latency_s=1.0, vram_gib=81)]
    config = records[0].config
    larger = {**config, "hardware": {**config["hardware"], "title": "a larger one", "memory_gib": 141.0}}
    names = dict.fromkeys(("trial_id", "reference_id", "baseline_id"), "larger")
    records.append(replace(records[0], config=larger, **names))
    lacking, chosen = recommend(view_of(records), Limits(), allow_proxy=True).answers
    assert isinstance(lacking, NoAnswer) and "81.0 GiB, 1 GiB above hardware.memory_gib 80" in lacking.why
    assert chosen.chosen.trial_id == "larger" and chosen.judged == ()


def test_measured_and_projected_latencies_are_never_ranked_together():
    mixed = [*demo_records(), *demo_projection()]
    first, second = recommend(view_of(mixed), Limits(), allow_proxy=True).answers
    assert [first.chosen.source, second.chosen.source] == ["measured", "projected"]
    chosen, refused = recommend(view_of(mixed), Limits(min_ssim=0.95)).answers
    assert chosen.chosen.source == "measured"
    assert isinstance(refused, NoAnswer) and "--allow-proxy" in refused.why


def two_sizes():
    """The same two settings at two sizes; in the larger one the faster spoils an image."""
    larger = replace(TINY, height=512, width=512)
    return [
        complete(trial(), latency_s=1.0),
        skipping(CACHED, latency_s=0.6, ssim=0.97),
        complete(trial(pipeline=larger), latency_s=4.0),
        complete(trial(CACHED, pipeline=larger), cached=(2, 3, 4, 5, 6), latency_s=2.4, ssim=0.90),
    ]


def test_each_piece_of_work_has_its_own_answer():
    advice = recommend(view_of(two_sizes()), Limits(min_ssim=0.95))
    small, large = advice.answers
    assert (small.work, large.work) == ("zimage_tiny 256×256, 8 steps", "zimage_tiny 512×512, 8 steps")
    assert small.chosen.latency_median_s == pytest.approx(0.6) and large.chosen.latency_median_s == pytest.approx(4.0)
    text = advice.to_text()
    assert text.startswith("== zimage_tiny 256×256, 8 steps ==\n") and "\n== zimage_tiny 512×512, 8 steps ==\n" in text
    assert [each["work"] for each in json.loads(advice.to_json())] == [small.work, large.work]


def test_a_piece_of_work_without_an_answer_says_so_beside_those_that_have_one():
    records = two_sizes()
    records[2] = failed(trial(pipeline=replace(TINY, height=512, width=512)))
    advice = recommend(view_of(records), Limits(min_ssim=0.95))
    assert not advice.is_whole
    assert "No answer: none of 1 trial satisfies --min-ssim 0.95" in advice.to_text()
    assert json.loads(advice.to_json())[1]["chosen"] is None
    records[0] = failed(trial())
    advice = recommend(view_of(records), Limits(min_ssim=0.99))
    assert not advice.is_whole and [each["chosen"] for each in json.loads(advice.to_json())] == [None, None]
    small, large = advice.to_text().split("== zimage_tiny 512×512")
    assert "0.97, 0.02 short" in small and "0.9, 0.09 short" in large


def test_equal_names_of_works_are_told_apart():
    other = replace(SCENES, name="others", seeds=[1])
    advice = recommend(view_of([complete(trial()), complete(trial(workload=other))]), Limits())
    assert [each.work for each in advice.answers] == [
        "zimage_tiny 256×256, 8 steps workload.name=scenes",
        "zimage_tiny 256×256, 8 steps workload.name=others",
    ]


def test_only_failed_trials_is_an_error():
    with pytest.raises(RecordError, match="no COMPLETE trial"):
        answer([failed(trial())])


def test_what_the_report_distrusts_is_left_out_and_counted():
    records = [
        *gpu_records(),
        complete(trial(DBCacheConfig(Fn_compute_blocks=3)), latency_s=0.3, ssim=0.99, validity=["throttled"]),
        complete(trial(DBCacheConfig(Fn_compute_blocks=4)), latency_s=0.1, ssim=0.99),  # 10x, no step skipped
    ]
    chosen = answer(records, min_ssim=0.95)
    assert chosen.chosen.latency_median_s == pytest.approx(0.6)
    assert not any(binding.faster.caveats for binding in chosen.binding)
    (note,) = [note for note in chosen.notes if "not to be trusted" in note]
    # Doubly so the first: 0.3 s is 3.3x without a skipped step.
    assert note.startswith("2 trials were left out") and "throttled" in note and "was disturbed" in note


def test_a_trial_without_a_valid_round_is_left_out():
    spoilt = complete(trial(CACHED), latency_s=0.5, ssim=0.99)
    rounds = [replace(r, valid=False) for r in spoilt.measurement.requests]
    chosen = answer([complete(trial()), replace(spoilt, measurement=with_window(spoilt.measurement, requests=rounds))])
    assert chosen.chosen.is_baseline
    assert any("1 trial was left out" in note and "no round was valid" in note for note in chosen.notes)


def test_nothing_to_trust_is_an_error_that_says_why():
    with pytest.raises(RecordError, match=r"none of 1 trial is to be trusted \(none: throttled\)"):
        answer([complete(trial(), validity=["throttled"])])


def test_the_recommended_trial_is_the_one_that_the_report_praises():
    # The first has the lower median over its 7 rounds, 4 of them en-circle's; the second the shorter workload:
    # 0.7 + 0.7 seconds against 0.4 + 1.2.
    def of(cache, seconds, cached):
        record = complete(trial(cache), n_rounds=7, cached=cached, ssim=0.96)
        rounds = [replace(r, latency_s=seconds[r.prompt_id]) for r in record.measurement.requests]
        return replace(record, measurement=with_window(record.measurement, requests=rounds))

    uneven = of(CACHED, {"en-circle": 0.4, "zh-square": 1.2}, (2, 3, 5))
    even = of(DBCacheConfig(), {"en-circle": 0.7, "zh-square": 0.7}, (2, 3, 5))
    records = [complete(trial(), n_rounds=7), uneven, even]
    assert answer(records).chosen.trial_id == even.trial_id
    praised = " ".join(findings(view_of(records).trials))
    assert f"{even.label} (1.43×, 0.700 s) is the fastest" in praised


def test_one_pair_is_no_plural():
    one = replace(SCENES, prompts=SCENES.prompts[:1])
    assert "of 1 pair of prompt and seed" in answer([complete(trial(workload=one))]).to_text()


def test_the_text_reads_as_agreed():
    assert_golden("recommend.txt", answer(demo_records(), min_ssim=0.95).to_text() + "\n")


def test_no_value_leaves_the_comment_or_the_quotes_that_it_is_printed_in():
    """Whoever pastes a launch line runs that line alone."""
    engine = EngineConfig(name=HOSTILE, target="mine:Engine")
    workload = WorkloadConfig(name=HOSTILE, prompts=[Prompt(id="a", text=HOSTILE)], seeds=[0])
    pipeline = replace(TINY, weights="/weights\nrm -rf /")
    record = complete(trial(engine=engine, workload=workload, pipeline=pipeline))
    said = answer([replace(record, label=HOSTILE)])
    text = said.to_text()
    assert not unseen(text) and not commands_to_ci(text)
    after = text.partition("Run it again:\n")[2].splitlines()
    heads = ("zbench run ", "", "Serve it with SGLang:", "SGLANG_", "Ask it for an image:", "curl ", "# ")
    assert len(after) > 6 and all(line.startswith(heads) for line in after)
    words = subprocess.run(["bash", "-c", f"printf '%s\\0' {after[3]}"], capture_output=True, text=True, check=True)
    assert "/weights\nrm -rf /" in words.stdout.split("\0")
    assert not unseen(Advice((said,)).to_json())


def test_json_has_no_nan_and_both_launches():
    advice = recommend(view_of(demo_records()), Limits(min_ssim=0.95))
    data = json.loads(advice.to_json(), parse_constant=pytest.fail)
    assert data["work"] == "zimage_tiny 256×256, 8 steps"
    assert data["zbench"]["overrides"][0] == "pipeline=zimage_tiny"
    assert data["sglang"]["request"]["num_inference_steps"] == 8
    assert data["runner_up"]["label"] == "F1B0_W2_MC3_R0.24_T1O1"


def test_a_sharded_trial_comes_with_cache_dits_yaml_and_what_that_lacks():
    sharded = trial(parallel=ParallelConfig(ulysses_size=2, vae="split"))
    said = answer([complete(trial()), complete(sharded, latency_s=0.4)])
    text, data = said.to_text(), said.to_dict()
    assert "parallelism_config:\n  ulysses_size: 2\n  attention_backend: native\n# cache-dit shares a decode" in text
    assert data["cache_dit"]["parallelism_config"] == {"ulysses_size": 2, "attention_backend": "native"}
    assert data["cache_dit"]["processes"] == 2 and "parallel.ulysses_size=2" in data["zbench"]["overrides"]
    assert "cache_dit" not in answer([complete(trial())]).to_dict()
    gathered = answer([complete(trial(parallel=ParallelConfig(gather_size=2)))]).to_text()
    assert "With cache-dit: nothing of it is sharded." in gathered and "# cache-dit has no gather" in gathered


def composed(overrides, config_dir=None):
    """The trial that a command line composes, as `plan` makes it of a job."""
    jobs = expand(overrides, lambda group, _: "cpu", grids=False, config_dir=config_dir).jobs
    return Trial.from_config(jobs[0].config, projected="execution=project" in overrides)


EDGY = "[{id:a,language:en,text:'it\\'s \\\\ 1e5, {x}: [y]=~!#'},{id:'true',language:zh,text:'灰色 “42”'}]"


@pytest.mark.parametrize(
    "typed",
    [
        ["pipeline=zimage_tiny", "cache=none"],
        ["pipeline=zimage_tiny", "cache=dbcache", "cache.max_warmup_steps=2", "workload.seeds=[3,4]"],
        ["pipeline=zimage_turbo", "cache=taylorseer", "cache.taylorseer_order=2", "compute=compiled"],
        ["pipeline=zimage_turbo", "cache=scm", "cache.scm_preset=ultra", "pipeline.weights='/a folder/it\\'s'"],
        ["pipeline=zimage_turbo", "parallel=ulysses", "parallel.ulysses_size=3", "offload=group", "workload=single"],
        ["pipeline=zimage_tiny", f"workload.prompts={EDGY}"],
        [
            "pipeline=zimage_tiny",
            "pipeline.guidance_scale=4",
            "workload.prompt=a ${b} 'c'",
            "workload.negative_prompt=${d}",
        ],
        ["pipeline=zimage", "cache=dbcache", "pipeline.vae='/a folder/vae'", "pipeline.batch_size=2"],
        ["pipeline=zimage_tiny", "engine.options={a:1,b:{c:[x,null,true]},d:'true'}", "engine.loads_weights=false"],
        ["pipeline=zimage_turbo", "pipeline.hub_id=null", "pipeline.preset=zimage_tiny", "pipeline.download=true"],
        ["pipeline=zimage_tiny", "pipeline.hub_id=someone/a-model", "pipeline.weights='C:\\models\\1e5'"],
        ["pipeline=zimage_tiny", "pipeline.weights='1e5'", "compute.device=cpu", "compute.attention_backend=flash"],
        ["pipeline=zimage_tiny", "pipeline.name=mine", "workload.name=mine", "engine.name=mine", "engine.target=a:B"],
        ["pipeline=zimage_turbo", "hardware=h100", "execution=project", "cache=dbcache", "compute.device=cuda"],
        ["pipeline=zimage_turbo", "hardware=b300", "execution=project", "hardware.efficiency.gemm=0.5"],
        ["pipeline=zimage_turbo", "hardware=h200", "execution=project", "hardware.name=mine", "hardware.memory_gib=9"],
        ["pipeline=zimage_tiny", "hardware=rtx4090", "execution=project", "hardware.interconnect=null"],
        ["pipeline=zimage_turbo", "hardware.vram_limit_gib=16", "offload=text_encoder", "offload.pin_memory=false"],
        ["pipeline=zimage_turbo", "cache=forced", "cache.scm_preset=fast", "pipeline.weights=random"],
        ["pipeline=zimage_tiny", "cache=custom", "cache.method=mine", "cache.target='a.b:C'", "cache.options={t:0.1}"],
        ["pipeline=zimage_tiny", "pipeline.batch_size=2", "pipeline.vae_tiling=true", "pipeline.images_per_prompt=3"],
    ],
)
def test_the_emitted_overrides_compose_to_the_same_trial(typed):
    wanted = composed(["hardware=cpu", *typed] if "execution=project" not in typed else typed)
    emitted = zbench_overrides(wanted)
    assert ("execution=project" in emitted) == ("execution=project" in typed)
    survived = [word for word in shlex.split(zbench_command(wanted, emitted))[2:] if word != "--allow-code"]
    assert composed(["hardware=cpu", *survived] if wanted.hardware is None else survived).to_dict() == wanted.to_dict()


def test_the_line_to_run_again_permits_code_from_outside_and_none_else():
    base = ["hardware=cpu", "pipeline=zimage_tiny"]
    own, other = composed([*base, "cache=dbcache"]), composed([*base, "engine.target=my_engines:Painter"])
    assert "--allow-code" not in zbench_command(own, zbench_overrides(own))
    assert zbench_command(other, zbench_overrides(other)).startswith("zbench run --allow-code ")


def test_a_choice_of_ones_own_is_written_as_values(tmp_path):
    (tmp_path / "workload").mkdir()
    (tmp_path / "workload" / "mine.yaml").write_text(
        "defaults: [/schema/workload@_here_: workload, _self_]\n"
        "name: not the file's\nprompts: [{id: p, language: en, text: a cat}]\nseeds: [7]\n"
    )
    wanted = composed(["pipeline=zimage_tiny", "hardware=cpu", "workload=mine"], str(tmp_path))
    emitted = zbench_overrides(wanted)
    assert "workload=mine" not in emitted
    assert composed(["hardware=cpu", *emitted]).to_dict() == wanted.to_dict()


def test_projected_records_launch_as_projections():
    chosen = answer(demo_projection(), allow_proxy=True)
    overrides = chosen.to_dict()["zbench"]["overrides"]
    assert overrides[0] == "hardware=h100" and overrides[-1] == "execution=project"
    assert composed(overrides).to_dict() == chosen.trial.to_dict()


def test_emitting_overrides_needs_no_torch():
    code = "import sys, zbench.recommend; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(("floor_ssim", "latency_s"), [(0.96, 0.6), (0.999, 0.8)])
def test_a_difference_that_the_baseline_shows_from_itself_violates_no_limit(floor_ssim, latency_s):
    """Images may not be asked to be more like the baseline's than the baseline's own are when made again."""
    base, *others = gpu_records()
    floor = [ImageQuality(q.prompt_id, q.seed, False, 20.0, floor_ssim, 0.01) for q in others[0].measurement.quality]
    base = replace(base, measurement=replace(base.measurement, noise_floor=floor))
    chosen = answer([base, *others], min_ssim=0.98, min_psnr_db=33).chosen
    assert chosen.latency_median_s == pytest.approx(latency_s, rel=0.05)


def test_one_work_that_cannot_be_judged_leaves_the_others_their_answer():
    random = {"quality": None, "reasons": {"quality": "random_weights"}}
    turbo = [complete(trial(pipeline=TURBO), **random), complete(trial(CACHED, pipeline=TURBO), cached=(5,), **random)]
    judged, unjudged = recommend(view_of([*demo_records(), *turbo]), Limits(min_ssim=0.95)).answers
    assert judged.chosen.label.startswith("F1B0_W2_MC3_R0.24")
    assert isinstance(unjudged, NoAnswer) and "random_weights" in unjudged.why


def test_a_work_of_which_everything_failed_is_named():
    lost = [failed(trial(pipeline=TURBO)), failed(trial(CACHED, pipeline=TURBO))]
    advice = recommend(view_of([*demo_records(), *lost]), Limits())
    assert not advice.is_whole and "no COMPLETE trial" in advice.answers[1].why


def of_halving():
    """Two settings on one prompt and the better one on both, each with its reference."""
    few = replace(SCENES, prompts=SCENES.prompts[:1])
    whole = [complete(trial()), complete(trial(CACHED), latency_s=0.5, ssim=0.9, cached=(2, 3, 4, 5))]
    part = work_key(trial())
    on_few = [complete(trial(cache, workload=few), latency_s=0.4) for cache in (None, CACHED, DBCacheConfig())]
    return [*(replace(record, part_of=part) for record in on_few), *whole]


def test_a_rung_of_halving_and_samples_held_out_are_no_pieces_of_work():
    given = answer(of_halving())
    assert given.chosen.trial_id == trial(CACHED).trial_id and given.work == answer(of_halving()[3:]).work
    untold = [replace(record, part_of=None) for record in of_halving()]
    assert len(recommend(view_of(untold), Limits()).answers) == 2, "what was typed is"


def test_a_search_that_was_stopped_on_its_way_has_no_answer_yet():
    with pytest.raises(RecordError, match="all 3 trials of these records were made by a search on some of the samples"):
        answer(of_halving()[:3])
