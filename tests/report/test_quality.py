"""A report says how good the images are, and takes nothing for a difference that noise makes too."""

from dataclasses import replace

import pytest
from factories import complete, demo_records, projected, trial

from zbench.analysis.view import view_of
from zbench.config import DBCacheConfig
from zbench.measurement import ImageQuality, PromptFidelity
from zbench.report.tables.main import PROMPT, main_table, to_json
from zbench.report.tables.quality import quality_table
from zbench.report.text import cells
from zbench.report.text.findings import findings

CACHED = trial(DBCacheConfig(max_warmup_steps=2))
PROMPTS = ("en-circle", "zh-square")
IDENTICAL = [ImageQuality(p, 0, True, None, 1.0, 0.0, 1.0) for p in PROMPTS]


def noise(*pairs):
    """Images of a baseline made twice, each (SSIM, PSNR in dB)."""
    return [ImageQuality(p, 0, False, psnr_db, ssim, 0.01) for p, (ssim, psnr_db) in zip(PROMPTS, pairs, strict=False)]


def view_with(noise_floor, reasons=None, **figures):
    """A view of the reference and of one trial, which skips enough steps for its speed to be believed."""
    base = complete(trial(), noise_floor=noise_floor)
    if reasons:
        base = replace(base, measurement=replace(base.measurement, reasons=reasons))
    return view_of([base, complete(CACHED, latency_s=0.5, cached=(2, 3, 4, 5, 6), **figures)])


def test_mean_and_worst_are_those_of_the_images():
    quality = [
        ImageQuality("en-circle", 0, False, 20.0, 0.8, 0.3, ms_ssim=0.85, lpips=0.2),
        ImageQuality("zh-square", 0, False, 30.0, 0.9, 0.1, ms_ssim=0.95, lpips=0.1),
    ]
    prompts = [
        PromptFidelity("en-circle", 0, 0.8, ["colour"], 30.0),
        PromptFidelity("zh-square", 0, 1.0, [], 20.0),
    ]
    (row,) = view_of([complete(CACHED, quality=quality, prompt_fidelity=prompts)]).trials
    assert (row.ms_ssim_mean, row.ms_ssim_worst) == (pytest.approx(0.9), 0.85)
    assert (row.lpips_mean, row.lpips_worst) == (pytest.approx(0.15), 0.2)
    assert (row.latent_rel_error, row.latent_rel_error_worst) == (pytest.approx(0.2), 0.3)
    assert (row.prompt_fidelity_mean, row.prompt_fidelity_worst) == (pytest.approx(0.9), 0.8)
    assert (row.clip_mean, row.clip_worst) == (25.0, 20.0)


@pytest.mark.parametrize(
    ("floor", "ssim", "psnr_db", "within"),
    [
        (noise((0.98, 50.0), (0.999, 60.0)), 0.98, 50.0, True),
        (noise((0.98, 50.0), (0.999, 60.0)), 0.979, 50.0, False),
        (noise((0.98, 50.0), (0.999, 60.0)), 0.98, 49.9, False),
        (IDENTICAL, 0.999, 90.0, False),
        (IDENTICAL, None, None, True),
        (None, 0.999, 90.0, False),
    ],
)
def test_within_noise_is_as_like_as_the_baseline_is_to_itself(floor, ssim, psnr_db, within):
    assert view_with(floor, ssim=ssim, psnr_db=psnr_db).trials[1].within_noise == within


def test_a_partly_identical_floor_is_as_low_as_the_image_that_differs():
    floor = [IDENTICAL[0], *noise((0.98, 50.0))]
    assert view_with(floor, ssim=0.98, psnr_db=50.0).trials[1].within_noise
    assert view_with(floor).trials[0].noise_identical is False


def test_a_difference_under_the_noise_floor_is_reported_as_none():
    view = view_with(noise((0.90, 40.0)), ssim=0.91, psnr_db=41.0)
    row = view.trials[1]
    assert cells.psnr(row) == cells.ssim(row) == cells.latent_error(row) == "none (under noise)"
    text = " ".join(findings(view.trials))
    assert f"{CACHED.label} (2.00×, 0.500 s) is the fastest, with images that differ from the reference's by no" in text
    assert any(line.startswith("Under noise:") for line in main_table(view).legend)


def test_the_noise_floor_stands_with_the_reference_alone():
    base, row = view_with(noise((0.98, 50.0), (0.999, 60.0)), ssim=0.9).trials
    assert (base.noise_identical, base.noise_ssim_worst, base.noise_psnr_worst_db) == (False, 0.98, 50.0)
    assert (row.noise_identical, row.noise_ssim_worst, row.noise_psnr_worst_db) == (None, None, None)
    assert not base.within_noise
    assert '"noise_psnr_worst_db": null' in to_json(view_of([complete(trial(), noise_floor=IDENTICAL)]))  # no infinity


@pytest.mark.parametrize(
    ("floor", "said"),
    [
        (IDENTICAL, "made twice, the reference gives identical images."),
        (
            noise((0.9985, 52.08)),
            "made twice, the reference gives images of SSIM at least 0.998 and PSNR at least 52.0 dB; "
            "what lies above is reported as none.",
        ),
        (
            noise((0.99996, 71.0)),
            "made twice, the reference gives images of SSIM at least 0.99996 and PSNR at least 71.0 dB; "
            "what lies above is reported as none.",
        ),
    ],
)
def test_below_the_quality_table_stands_the_noise_floor(floor, said):
    assert quality_table(view_with(floor, ssim=0.9)).legend[-1] == f"Noise floor: {said}"


def test_an_unknown_noise_floor_says_why():
    table = quality_table(view_with(None, reasons={"noise_floor": "one_cycle"}, ssim=0.9))
    assert table.legend[-1] == "Noise floor: the reference was not made twice (one_cycle), so it is not known."


def test_each_reference_has_its_own_noise_floor():
    base = complete(trial(), noise_floor=IDENTICAL)
    rows = view_of([base, projected(base, latency_s=4.0, vram_gib=20), complete(CACHED, ssim=0.9)])
    assert sum(line.startswith("Noise floor: made twice, none pipeline") for line in quality_table(rows).legend) == 2


def test_measures_that_no_trial_has_get_no_column():
    rows = view_with(IDENTICAL, ssim=0.9)
    assert not {"MS-SSIM (worst)", "LPIPS (worst)", "CLIP (worst)", PROMPT} & set(quality_table(rows).headers[4:])
    rows = view_with(IDENTICAL, ssim=0.9, lpips=0.1, prompt_share=0.9)
    assert {"LPIPS (worst)", PROMPT} <= set(quality_table(rows).headers)
    assert PROMPT in main_table(rows).headers


def test_without_a_judged_image_there_is_no_quality_table():
    assert quality_table(view_of([complete(trial()), complete(CACHED, quality=None)])) is None


def test_a_share_of_the_prompts_attributes_reads_as_mean_and_worst():
    base, row = view_with(None, ssim=0.9, prompt_share=0.91).trials
    assert cells.prompt(row) == "95.5 % (91 %)"
    assert cells.prompt(base) == "– (no_scene)"


@pytest.mark.parametrize(("share", "text"), [(1.0, "100 %"), (0.999, ">99 %"), (0.994, "99 %"), (0.0, "0 %")])
def test_a_share_is_never_rounded_up_to_all(share, text):
    assert cells.percent(share) == text


def test_what_skipping_costs_the_prompts_is_said_of_the_worst_trial():
    text = " ".join(findings(view_of(demo_records()).trials))
    assert "SCM_ultra_F1B0_W0_MC-1_R0.24 shows 82 % of what the prompts ask for, the reference 100 %." in text


@pytest.mark.parametrize(("share", "said"), [(0.96, True), (0.98, False)])  # the mean of two images is half as far off
def test_a_loss_under_two_points_is_not_worth_a_sentence(share, said):
    skipping = complete(CACHED, cached=(5,), ssim=0.9, prompt_share=share)
    rows = view_of([complete(trial(), prompt_share=1.0), skipping]).trials
    assert ("of what the prompts ask for" in " ".join(findings(rows))) == said
