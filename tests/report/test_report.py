"""A report written to disk is whole, self-contained and inert, and says what the records say."""

import base64
import io
import os
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from factories import (
    ENVIRONMENT,
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
from PIL import Image

from zbench.analysis.view import view_of
from zbench.config import DBCacheConfig, OffloadConfig, ParallelConfig, Prompt, WorkloadConfig
from zbench.errors import Exit, RecordError, StoreError
from zbench.measurement import Effective
from zbench.quality.artifacts import image_path
from zbench.record import Reason
from zbench.report.page.images import strips, telling_trials
from zbench.report.page.pixels import difference_uri, strip_jpeg
from zbench.report.page.write import write_report
from zbench.report.tables.main import main_table, render
from zbench.report.tables.published import published_table
from zbench.report.text.findings import default_row, findings
from zbench.report.text.setting import environment_lines, not_as_asked
from zbench.store import artifacts_folder
from zbench.stored import StoredRecords

CACHED = trial(DBCacheConfig(max_warmup_steps=2))


def draw_images(records, run_folder):
    for number, record in enumerate(r for r in records if r.measurement is not None):
        for prompt_id, seed in {(r.prompt_id, r.seed) for r in record.measurement.requests}:
            path = image_path(artifacts_folder(run_folder, record.trial_id), prompt_id, seed)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (32, 32), (10 * number, 80, 120)).save(path)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    records = demo_records()
    draw_images(records, folder / "run")
    paths = write_report(view_of(records), {"demo": folder / "run"}, folder / "out")
    return folder / "out", paths


def test_every_file_of_the_report_is_written(written):
    out, paths = written
    names = {str(path.relative_to(out)) for path in paths}
    assert names == {
        "report.md",
        "report.html",
        "summary.csv",
        "speedup_vs_fidelity.png",
        "stages.png",
        "cached_steps.png",
        "residual_differences.png",
        "images/01-en-circle-0.jpg",
        "images/02-zh-square-0.jpg",
    }
    assert all(path.stat().st_size > 0 for path in paths)
    assert not list(out.rglob("*.partial"))


def test_the_markdown_report_reads_as_agreed(written):
    out, _ = written
    assert_golden("report.md", (out / "report.md").read_text(encoding="utf-8"))


def test_every_picture_of_the_markdown_is_there(written):
    out, _ = written
    links = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", (out / "report.md").read_text(encoding="utf-8"))
    assert len(links) == 6
    assert all((out / link).is_file() for link in links)


class Tags(HTMLParser):
    """Collects tags and what they load."""

    def __init__(self):
        super().__init__()
        self.names, self.loads = [], []

    def handle_starttag(self, tag, attrs):
        self.names.append(tag)
        self.loads += [value for name, value in attrs if name in ("src", "href", "srcset", "data")]


def test_the_page_is_self_contained_and_runs_nothing(written):
    out, _ = written
    html = (out / "report.html").read_text(encoding="utf-8")
    tags = Tags()
    tags.feed(html)
    assert "script" not in tags.names and "link" not in tags.names
    assert tags.loads and all(value.startswith("data:image/") for value in tags.loads)
    assert "http://" not in html and "https://" not in html
    assert "prefers-color-scheme: dark" in html and 'name="viewport"' in html


def test_text_from_records_is_escaped(tmp_path):
    evil = "<script>alert(1)</script>"
    workload = WorkloadConfig(name="evil", prompts=[Prompt(id="../../evil", text=evil)], seeds=[0])
    records = [
        complete(trial(workload=workload)),
        complete(trial(DBCacheConfig(), workload=workload), ssim=0.9, validity=[evil]),
        failed(trial(DBCacheConfig(Fn_compute_blocks=3), workload=workload), message=evil),
    ]
    draw_images(records, tmp_path / "run")
    paths = write_report(view_of(records), {"demo": tmp_path / "run"}, tmp_path / "out")
    assert all((tmp_path / "out") in path.resolve().parents for path in paths)
    for name in ("report.html", "report.md"):
        text = (tmp_path / "out" / name).read_text(encoding="utf-8")
        assert "<script>" not in text
        assert "&lt;script&gt;" in text


RANDOM = {"quality": None, "reasons": {"quality": "random_weights"}}


def test_of_random_weights_the_table_says_nothing_of_images():
    random = [complete(t, **RANDOM) for t in (trial(), CACHED)]
    text = render(view_of(random), "markdown")
    assert "PSNR, dB" not in text and "SSIM (worst)" not in text and "Weights are random" in text
    assert "PSNR, dB" in render(view_of([complete(trial())]), "markdown")


def test_a_trial_out_of_memory_says_what_was_held_and_what_would_fit(tmp_path):
    reason = Reason(
        "out_of_memory", "CUDA out of memory", memory={"peak_allocated": 15 * 2**30}, next_offload="text_encoder"
    )
    records = [complete(trial()), replace(failed(CACHED), reason=reason)]
    write_report(view_of(records), {}, tmp_path)
    for name in ("report.md", "report.html"):
        text = (tmp_path / name).read_text()
        assert "torch held 15.0 GiB at most; predicted to fit: offload=text" in text.replace("\\_", "_")


def test_a_call_of_several_images_is_no_image(tmp_path):
    batched = complete(trial(pipeline=replace(TINY, batch_size=4)), latency_s=2.0)
    rounds = [replace(r, images=4) for r in batched.measurement.requests]
    batched = replace(batched, measurement=with_window(batched.measurement, requests=rounds))
    assert "2.000 s a call of 4 images" in findings(view_of([batched]).trials)[0]
    assert "latency is the call's" in render(view_of([batched]), "table")
    row = view_of([batched]).trials[0]
    assert row.images_per_s == pytest.approx(2.0, rel=0.01)


def test_published_figures_stand_beside_what_was_measured_on_the_same_gpu():
    h100 = {"environment": {**ENVIRONMENT, "devices": [{"name": "NVIDIA H100 80GB HBM3"}]}}
    measured = replace(complete(trial(pipeline=TURBO)), **h100)
    table = published_table([measured])
    assert table is not None and any("published, CI limit" in row for row in table.rows)
    assert published_table([replace(complete(trial()), **h100)]) is None, "nothing was published of the tiny pipeline"
    assert published_table([complete(trial(pipeline=TURBO))]) is None, "nothing was published of CPUs"


def test_a_projection_is_headed_as_not_validated_with_published_figures_beside(tmp_path):
    write_report(view_of(demo_projection()), {"demo": tmp_path / "no_such_run"}, tmp_path / "out")
    for name in ("report.html", "report.md"):
        text = (tmp_path / "out" / name).read_text(encoding="utf-8")
        assert "Not validated on Z-Image-Turbo" in text
        assert "Published figures" in text and "published, measured" in text and "published, CI limit" in text
        assert "GEMMs reach 0.72 of peak" in text


def test_failed_trials_alone_still_make_a_report(tmp_path):
    write_report(view_of([failed(trial())]), {"demo": tmp_path}, tmp_path / "out")
    text = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "No trial was completed" in text and "out_of_memory" in text


def test_writing_again_replaces(tmp_path):
    for records in (demo_records(), [complete(trial())]):
        write_report(view_of(records), {"demo": tmp_path}, tmp_path / "out")
    assert len((tmp_path / "out" / "summary.csv").read_text(encoding="utf-8").splitlines()) == 2


def test_no_records_is_an_error():
    with pytest.raises(RecordError, match="no records") as caught:
        write_report(view_of([]), {}, None)
    assert caught.value.exit_code == Exit.BAD_INPUT


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_named(tmp_path):
    (tmp_path / "out").mkdir(mode=0o500)
    with pytest.raises(StoreError, match=str(tmp_path / "out")):
        write_report(view_of([complete(trial())]), {"demo": tmp_path}, tmp_path / "out")


def test_an_unwritable_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StoreError, match=re.escape(str(tmp_path / "file" / "out"))) as caught:
        write_report(view_of([complete(trial())]), {"demo": tmp_path}, tmp_path / "file" / "out")
    assert caught.value.exit_code == Exit.BAD_INPUT


def test_a_broken_image_is_left_out(tmp_path):
    record = complete(trial())
    draw_images([record], tmp_path)
    image_path(artifacts_folder(tmp_path, record.trial_id), "en-circle", 0).write_bytes(b"not an image")
    paths = write_report(view_of([record]), {"demo": tmp_path}, tmp_path / "out")
    assert [path.name for path in paths if path.suffix == ".jpg"] == ["02-zh-square-0.jpg"]


def test_the_trials_shown_hold_the_front_the_worst_and_the_default():
    rows = view_of(demo_records()).trials
    labels = [row.label for row in telling_trials(rows)]
    assert len(labels) == 8
    assert "SCM_ultra_F1B0_W0_MC-1_R0.24" in labels  # the worst, and the fastest of the front
    assert "F1B0_W4_MC3_R0.24" in labels  # cache-dit's defaults


def test_the_front_shown_holds_no_trial_that_is_distrusted():
    # A thousand-fold speed-up would dominate every other trial, and put them all below the front.
    unlikely = complete(trial(DBCacheConfig(Fn_compute_blocks=3)), latency_s=0.001, ssim=0.999)
    rows = view_of([*demo_records(), unlikely]).trials
    before = telling_trials(view_of(demo_records()).trials, limit=7)
    assert [r.trial_id for r in telling_trials(rows, limit=7)] == [r.trial_id for r in before]


def test_each_runs_images_are_its_own(tmp_path):
    # The same trial in two sweeps has one id; only the pixels tell whose image is shown.
    runs = []
    for sweep, red in (("first", 250), ("second", 10)):
        record = replace(complete(trial()), sweep=sweep)
        for prompt_id in ("en-circle", "zh-square"):
            path = image_path(artifacts_folder(tmp_path / sweep, record.trial_id), prompt_id, 0)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (32, 32), (red, 0, 0)).save(path)
        runs.append(tmp_path / sweep / "records.jsonl")
        runs[-1].write_text(record.to_json() + "\n", encoding="utf-8")
    records = StoredRecords(runs)
    folders = records.folders
    made = strips(view_of(records), folders)
    assert [picture.path.is_relative_to(tmp_path / "first") for s in made for picture in s.pictures] == [
        True,
        True,
        False,
        False,
    ]
    written = [path for path in write_report(view_of(records), folders, tmp_path / "out") if path.suffix == ".jpg"]
    reds = [Image.open(path).getpixel((16, 16))[0] for path in written]
    assert [red > 128 for red in reds] == [True, True, False, False]


def test_two_journals_of_one_sweep_name_are_refused(tmp_path):
    runs = [tmp_path / folder / "records.jsonl" for folder in ("here", "there")]
    for run in runs:
        run.parent.mkdir()
        run.write_text(complete(trial()).to_json() + "\n", encoding="utf-8")
    with pytest.raises(RecordError, match="'demo'") as caught:
        StoredRecords(runs)
    assert str(runs[0]) in str(caught.value) and str(runs[1]) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert StoredRecords([runs[0], runs[0]]).folders == {"demo": tmp_path / "here"}


def test_a_prompt_cannot_become_markdown(tmp_path):
    workload = WorkloadConfig(name="evil", prompts=[Prompt(id="evil", text="# **loud** [x](http://x)")], seeds=[0])
    record = complete(trial(workload=workload))
    draw_images([record], tmp_path)
    write_report(view_of([record]), {"demo": tmp_path}, tmp_path / "out")
    text = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert r"\# \*\*loud\*\* \[x\](http://x) (seed 0)" in text.splitlines()


def test_images_begin_with_the_baseline(tmp_path):
    records = demo_records()
    draw_images(records, tmp_path)
    made = strips(view_of(records), {"demo": tmp_path})
    assert [strip.pictures[0].label for strip in made] == ["none (reference, baseline)"] * 2
    assert made[0].pictures[1].caption == "2.29× · SSIM 0.801 · 20.5 dB"


def test_a_caption_says_what_of_the_prompt_is_wrong(tmp_path):
    kinds = ("colour", "word", "colour", "place", "size")
    records = [complete(trial(), prompt_share=1.0), complete(CACHED, ssim=0.9, prompt_share=0.6, wrong=kinds)]
    draw_images(records, tmp_path)
    first, second = strips(view_of(records), {"demo": tmp_path})
    assert [picture.prompt for picture in first.pictures] == ["prompt 100 %", "prompt 60 %: colour, word, place, …"]
    assert [picture.prompt for picture in second.pictures] == ["prompt 100 %"] * 2  # the factory spoils the first


def test_only_an_image_that_differs_has_a_difference(tmp_path):
    records = [
        complete(trial()),
        complete(CACHED, latency_s=0.6, cached=(2, 3, 4, 5), ssim=0.9),
        complete(trial(DBCacheConfig())),  # identical, and shown as cache-dit's defaults
    ]
    draw_images(records, tmp_path)  # greens and blues are equal, reds 10 apart: 40 when amplified
    (strip, _) = strips(view_of(records), {"demo": tmp_path})
    assert [picture.reference is not None for picture in strip.pictures] == [False, True, False]
    shown = [difference_uri(picture) for picture in strip.pictures]
    assert [uri is not None for uri in shown] == [False, True, False]
    red, green, blue = Image.open(io.BytesIO(base64.b64decode(shown[1].partition(",")[2]))).getpixel((16, 16))
    assert red == pytest.approx(40, abs=6) and max(green, blue) < 6


def test_differences_stand_beneath_the_pictures(tmp_path):
    records = [complete(trial()), complete(CACHED, ssim=0.9)]
    draw_images(records, tmp_path)
    (strip, _) = strips(view_of(records), {"demo": tmp_path})
    alone = replace(strip, pictures=strip.pictures[:1])
    heights = [Image.open(io.BytesIO(strip_jpeg(s))).height for s in (alone, strip)]
    assert heights[1] - heights[0] > 32  # one picture more
    html = (write_html(records, tmp_path)).read_text(encoding="utf-8")
    assert html.count('<img class="difference"') == 2 and "difference ×4" in html


def write_html(records, folder):
    write_report(view_of(records), {"demo": folder}, folder / "out")
    return folder / "out" / "report.html"


@pytest.mark.parametrize("name", ["report.md", "report.html"])
def test_quality_and_knobs_stand_on_the_page(written, name):
    text = (written[0] / name).read_text(encoding="utf-8")
    assert "MS-SSIM (worst)" in text and "Noise floor: made twice, the reference gives identical images." in text
    assert "Knobs without effect" in text and "residual_diff_threshold=0.12 never fired" in text


def test_a_page_without_idle_knobs_has_no_such_section(tmp_path):
    text = write_html([complete(trial()), complete(CACHED, cached=(5,), ssim=0.9)], tmp_path)
    assert "Knobs without effect" not in text.read_text(encoding="utf-8")


def test_the_paragraph_follows_from_the_figures():
    text = " ".join(findings(view_of(demo_records()).trials))
    # 0.731 s is the least among trials whose worst image has an SSIM of 0.95 or more; 1.031 / 0.731 = 1.41.
    assert "F1B0_W2_MC3_R0.24 (1.41×, 0.731 s) is the fastest" in text
    assert "F1B0_W2_MC3_R0.24_T1O1 cannot be told from it" in text
    assert "Fastest of all is SCM_ultra_F1B0_W0_MC-1_R0.24 (2.29×, 0.451 s)" in text
    assert "1 trial failed" in text


def test_no_setting_good_enough_is_said():
    rows = view_of([complete(trial()), complete(CACHED, latency_s=0.5, cached=(2, 3, 5, 6), ssim=0.7)]).trials
    assert any("No setting is faster than it while" in text for text in findings(rows))


def test_what_is_not_to_be_trusted_is_not_praised():
    rows = view_of([complete(trial()), complete(CACHED, latency_s=0.1, ssim=0.99)]).trials  # 10x, no step skipped
    text = " ".join(findings(rows))
    assert CACHED.label not in text
    assert "None of the other trials is to be trusted" in text


def test_several_environments_are_pointed_out():
    first, second = complete(trial()), complete(CACHED)
    changed = {**second.environment, "versions": {**second.environment["versions"], "torch": "2.14.0"}}
    said = dict(environment_lines([first, replace(second, environment=changed)]))
    assert "torch 2.13.0 → 2.14.0" in said["Attention"]
    assert "Attention" not in dict(environment_lines([first, second]))


@pytest.mark.parametrize(
    ("asked", "effective", "said"),
    [
        ({}, {"dtype": "float32"}, []),  # auto is no wish
        ({"compute": {"dtype": "bfloat16"}}, {"dtype": "torch.bfloat16"}, []),
        ({"cache": {"method": "none"}}, {"cache": {}}, []),
        ({"cache": {"method": "dbcache"}}, {"cache": {}}, ["cache.method: asked dbcache, took effect none"]),
        (
            {"compute": {"dtype": "bfloat16"}},
            {"dtype": "float32"},
            ["compute.dtype: asked bfloat16, took effect float32"],
        ),
        ({"offload": {"mode": "all"}}, {"offload": "none"}, ["offload.mode: asked all, took effect none"]),
        (
            {"cache": {"method": "dbcache", "max_warmup_steps": 2}},
            {"cache": {"max_warmup_steps": 4, "cache_type": "DBCache"}},
            ["cache.max_warmup_steps: asked 2, took effect 4"],
        ),
    ],
)
def test_what_took_effect_otherwise_is_said(asked, effective, said):
    record = complete(trial(pipeline=TINY), effective=Effective(**effective))
    config = {group: {**values, **asked.get(group, {})} for group, values in record.config.items()}
    assert not_as_asked(replace(record, config=config)) == said


@pytest.mark.parametrize("latency_s", [1.02, 1.0, 0.998])  # 0.98×, 1.00× and 1.00×
def test_nothing_that_is_not_faster_is_called_the_fastest(latency_s):
    waiting = trial(offload=OffloadConfig(mode="vae"))
    random = {"quality": None, "reasons": {"quality": "random_weights"}}
    base, other = complete(trial(), **random), complete(waiting, latency_s=latency_s, **random)
    said = findings(view_of([base, replace(other, reference_id=base.trial_id, baseline_id=base.trial_id)]).trials)
    assert "The one other trial is no faster." in said
    assert not any("astest" in sentence for sentence in said)


def test_a_reference_that_fits_only_with_offload_is_named_below_the_table():
    reference = replace(complete(trial(offload=OffloadConfig(mode="dit"))), baseline_id="x", reference_id="x")
    reference = replace(reference, trial_id="x")
    (line,) = [line for line in main_table(view_of([reference])).legend if "does not fit" in line]
    assert line.startswith("none offload:dit is the reference because without offload it does not fit")


def test_each_baseline_has_its_own_sentences():
    fast = complete(CACHED, latency_s=0.5, cached=(2, 3, 5, 6), ssim=0.7)
    tiny = [complete(trial(), latency_s=1.0), fast]
    rows = view_of([*tiny, *(projected(r, latency_s=t, vram_gib=20) for r, t in zip(tiny, (4, 3), strict=True))]).trials
    text = " ".join(findings(rows))
    assert "The baseline none pipeline.name=zimage_tiny takes 1.000 s an image." in text
    assert f"Fastest of those compared with it is {CACHED.label} pipeline.name=zimage_tiny (2.00×, 0.500 s)" in text
    assert "The baseline none pipeline.name=zimage_turbo is projected to take 4.020 s an image." in text
    assert f"Fastest of those compared with it is {CACHED.label} pipeline.name=zimage_turbo (projected 1.33×" in text


def test_baselines_beyond_the_first_few_are_counted():
    rows = view_of([complete(trial(pipeline=replace(TINY, steps=n))) for n in (4, 5, 6, 7, 8)]).trials
    text = " ".join(findings(rows))
    assert text.count("The baseline none") == 3 and "2 more baselines" in text


def test_nothing_is_read_out_of_a_label():
    """Two pipelines give each label a suffix; `none` in two shards is no baseline, yet skips nothing on purpose."""
    defaults = [complete(trial(DBCacheConfig(), pipeline=p)) for p in (TINY, TURBO)]
    sharded = complete(trial(parallel=ParallelConfig(ulysses_size=2)), latency_s=0.9)
    rows = view_of([complete(trial()), complete(trial(pipeline=TURBO)), *defaults, sharded]).trials
    assert default_row(rows).trial_id in {record.trial_id for record in defaults}
    (said, *_) = [text for text in findings(rows) if "skipped no step" in text]
    assert "none" not in said.split(" skipped")[0]


def test_what_does_not_fit_its_hardware_is_said():
    rows = view_of([projected(complete(trial()), latency_s=1.0, vram_gib=81)]).trials
    assert "1 of 1 trial does not fit into the 80 GiB of NVIDIA H100 80GB." in findings(rows)


def test_a_slowed_baseline_is_not_stated_as_fact():
    base = complete(trial(), warmup_latencies_s=[0.5])
    text = " ".join(findings(view_of([base, complete(CACHED, latency_s=0.1, ssim=0.99)]).trials))
    assert "The baseline takes 1.000 s an image, which is not to be trusted" in text


def test_a_page_without_rows_has_no_table(tmp_path):
    write_report(view_of([failed(trial())]), {"demo": tmp_path}, tmp_path / "out")
    assert "<table>" not in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "| trial |" not in (tmp_path / "out" / "report.md").read_text(encoding="utf-8")


def test_weights_that_are_stored_otherwise_than_they_compute_are_said_above_the_table():
    stored = {"text_encoder": ["bfloat16"], "transformer": ["bfloat16", "float8_e4m3fn scaled"], "vae": ["float32"]}
    note = "snapshot def of a/b is used, for snapshot abc is incomplete"
    effective = Effective(dtype="float32", stored_dtypes=stored, weights_note=note)
    lines = dict(environment_lines([complete(trial(pipeline=TINY), effective=effective)]))
    assert lines["Weights"] == (
        "text_encoder stored as bfloat16; transformer stored as bfloat16 + float8_e4m3fn scaled; " + note
    )
    assert "Weights" not in dict(environment_lines([complete(trial(pipeline=TINY))]))
