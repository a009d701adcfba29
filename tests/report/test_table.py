"""The main table reads as agreed, in every rendering, and never hides what was not measured."""

from dataclasses import replace

import pytest
from factories import complete, demo_projection, demo_records, failed, measurement, pruned, trial, with_window
from golden_files import assert_golden

from zbench.analysis.figures import NOT_VALIDATED
from zbench.analysis.view import view_of
from zbench.config import ComputeConfig, DBCacheConfig
from zbench.report.tables import main
from zbench.report.tables.main import FORMS, main_table, render
from zbench.report.tables.text_table import LEFT, RIGHT, TextTable, markdown_text, to_text
from zbench.report.text import cells

CACHED = trial(DBCacheConfig(max_warmup_steps=2))


@pytest.mark.parametrize("form", ["table", "markdown"])
@pytest.mark.parametrize(("name", "records"), [("measured", demo_records()), ("projected", demo_projection())])
def test_the_table_reads_as_agreed(name, records, form):
    assert_golden(f"main_table_{name}.{'txt' if form == 'table' else 'md'}", render(view_of(records), form) + "\n")


@pytest.mark.parametrize("form", FORMS)
def test_every_rendering_of_a_projection_says_it_is_not_validated(form):
    assert NOT_VALIDATED.lower() in render(view_of(demo_projection()), form).lower()
    assert NOT_VALIDATED.lower() not in render(view_of(demo_records()), form).lower()


def test_every_figure_of_a_projection_is_marked():
    for row in main_table(view_of(demo_projection())).rows:
        for cell in row[1:]:
            marked = cell.startswith(cells.PROJECTED_MARK) or cell.endswith(cells.PROXY_MARK)
            assert marked or cell == cells.REFERENCE, row


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ((0.004, "2026-11-27, tiny none"), "differ by 0.4% (zbench doctor --noise, 2026-11-27, tiny none)."),
        (
            (None, "2026-11-02, elsewhere or with other software (torch 2.12.0 → 2.13.0)"),
            "differ by 1%, which zbench doctor --noise would measure anew, for what it did is of 2026-11-02, elsewhere "
            "or with other software (torch 2.12.0 → 2.13.0).",
        ),
    ],
)
def test_intervals_between_processes_say_when_and_of_what_their_share_was_measured(told, said):
    (row,) = view_of([complete(CACHED)]).trials
    rows = [replace(row, speedup_way=way, equal_workers=told[0], equal_workers_told=told[1]) for way in WAYS]
    assert all(line.endswith(said) for line in main._of_speedups(rows)[1:])


WAYS = ("paired", "chained", "unpaired")


@pytest.mark.parametrize(
    ("shares", "said"),
    [
        ((None, 0.2), "differ by 1%, which zbench doctor --noise would measure."),
        ((0.004, 0.2), "differ by 0.4%."),
        ((0.012, 0.004, 0.0042, None, 0.2), "differ by 0.4% or 1.2% or 1%, which zbench doctor --noise would measure."),
    ],
)
def test_intervals_between_processes_say_what_they_count_and_for_their_own_trials_alone(shares, said):
    (row,) = view_of([complete(CACHED)]).trials
    *unpaired, paired = shares
    rows = [replace(row, speedup_way="unpaired", equal_workers=share) for share in unpaired]
    _, line = main._of_speedups([*rows, replace(row, speedup_way="paired", equal_workers=paired)])
    assert line.endswith(said)


def test_a_chained_speed_up_over_what_has_no_row_says_so_and_who_names_the_override():
    compiled = ComputeConfig(compile=True)
    base, uncached = complete(trial()), complete(trial(compute=compiled), latency_s=0.9)
    record = complete(replace(CACHED, compute=compiled), latency_s=0.5)
    beside = [replace(r, role="baseline") for r in uncached.measurement.window.requests]
    both = [r for pair in zip(beside, record.measurement.window.requests, strict=True) for r in pair]
    record = replace(record, measurement=with_window(record.measurement, requests=both))
    said = f"{record.label}: the uncached trial beside it has no row of its own"
    without, with_row = (main_table(view_of(records)) for records in ([base, record], [base, uncached, record]))
    assert [line for line in without.legend if line.startswith(said) and "zbench plan names" in line]
    assert not [line for line in with_row.legend if line.startswith(said)]


def test_an_identical_image_has_no_made_up_decibels():
    (row,) = view_of([complete(CACHED)]).trials
    assert cells.psnr(row) == "identical"


def test_the_baseline_is_the_reference_it_is_not_compared_with_itself():
    (row,) = view_of([complete(trial())]).trials
    assert cells.psnr(row) == cells.ssim(row) == cells.REFERENCE


def test_a_missing_quality_says_why():
    (row,) = view_of([complete(CACHED, quality=None, reasons={"quality": "random_weights"})]).trials
    assert cells.psnr(row) == cells.ssim(row) == "– (random_weights)"


def test_a_distrusted_trial_is_marked_and_explained():
    table = main_table(view_of([complete(CACHED, validity=["the clock was throttled"])]))
    assert table.rows[0][0].endswith(cells.UNTRUSTED_MARK)
    assert any("the clock was throttled" in line for line in table.legend)


def test_partly_identical_images_are_counted():
    whole = measurement(CACHED, ssim=0.9, psnr_db=20.0).quality
    same = measurement(CACHED).quality
    (row,) = view_of([complete(CACHED, quality=[same[0], whole[1]])]).trials
    assert cells.psnr(row) == "24.0 (1 of 2 identical)"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.000"),
        (0.0312, "0.0312"),
        (0.00012345, "0.000123"),
        (1.0306, "1.031"),
        (21.2, "21.20"),
        (1520.4, "1520"),
    ],
)
def test_seconds_have_the_digits_that_matter(value, text):
    assert cells.digits(value) == text


def test_a_likeness_is_never_rounded_up_to_perfect():
    assert cells.likeness(0.99996) == ">0.999"
    assert cells.likeness(1.0) == "1.000"
    assert cells.likeness(0.9494) == "0.949"


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("a|b <script> `x` [y](z)\nnext", r"a\|b &lt;script&gt; \`x\` \[y\](z) next"),
        ("**bold** _soft_ __loud__ ~~gone~~", r"\*\*bold\*\* \_soft\_ \_\_loud\_\_ \~\~gone\~\~"),
        ("# heading", r"\# heading"),
        ("- item", r"\- item"),
        ("+ item", r"\+ item"),
        ("1. item", r"1\. item"),
        ("12) item", r"12\) item"),
        ("    indented", "indented"),
        ("=====", r"\====="),
        ("$x_1$", r"\$x_1\$"),
        (r"\*", r"\\\*"),
        ("&lt;b&gt;", "&amp;lt;b&amp;gt;"),
        ("F1B0_W4_MC3_R0.24", "F1B0_W4_MC3_R0.24"),  # an underscore within a word emphasises nothing
        ("0.451", "0.451"),
    ],
)
def test_markdown_text_is_inert(text, written):
    assert markdown_text(text) == written


def test_the_legend_says_how_a_speed_up_is_formed_and_when_rounds_end():
    legend = " ".join(main_table(view_of(demo_records())).legend)
    assert "Speed-up: the baseline's time for the whole workload over the trial's" in legend
    assert "Rounds stop once the interval is small" in legend
    assert "tight" not in " ".join(main_table(view_of(demo_projection())).legend)  # it has no interval


@pytest.mark.parametrize("form", ["table", "markdown"])
def test_without_a_row_there_is_no_table(form):
    assert render(view_of([failed(trial()), failed(CACHED), pruned(trial(DBCacheConfig()))]), form).split("\n") in (
        ["2 trials failed.", "1 trial pruned before launch."],
        ["2 trials failed.", "", "1 trial pruned before launch."],
    )


def test_trials_with_the_same_caveat_share_a_line():
    records = [complete(t, validity=["throttled"]) for t in (trial(), CACHED)]
    legend = main_table(view_of(records)).legend
    assert [line for line in legend if "throttled" in line] == [f"(!) none, {CACHED.label}: throttled."]


def test_terminal_text_gives_chinese_two_columns_a_sign_and_shows_cells_as_they_are():
    rows = (("白色背景", "1"), ("[bold]x[/bold] :star:", "12"), ("a\nb", "3"))
    table = TextTable(("[red]head[/red]",), ("prompt", "n"), (LEFT, RIGHT), rows, ("legend",))
    assert to_text(table).split("\n") == [
        "[red]head[/red]",
        "prompt                  n",
        "─────────────────────  ──",
        "白色背景                1",
        "[bold]x[/bold] :star:  12",
        "a\\nb                    3",  # a line of its own could pass for another row
        "",
        "legend",
        "",
    ]


def test_terminal_text_is_as_wide_as_it_needs_whatever_the_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("FORCE_COLOR", "1")
    wide = "word " * 100 + "end"
    text = to_text(TextTable((), ("a", "b"), (LEFT, LEFT), ((wide, "b"),), ()))
    assert f"\n{wide}  b\n" in text and "\x1b" not in text


def test_steps_that_no_trial_may_skip_have_no_column():
    plain = render(view_of([complete(trial())]), "table")
    assert "cached steps" not in plain.lower()
    assert "cached steps" in render(view_of([complete(trial()), complete(CACHED)]), "table"), "it skipped none: told"
