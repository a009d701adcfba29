"""Tools that track performance get measured figures under the trials' names, and nothing that was not measured."""

import json
import re
import subprocess
import sys
from dataclasses import replace

import pytest
from factories import GIB, complete, demo_projection, demo_records, failed, measurement, pruned, trial, with_window
from pytest_benchmark.stats import Stats

from zbench.analysis.view import view_of
from zbench.cli import main
from zbench.config import ComputeConfig, DBCacheConfig
from zbench.errors import ZbenchError
from zbench.export import FORMATS
from zbench.export.pytest_benchmark import sample_stats

TRACKERS = ("pytest-benchmark", "bencher", "github-action-benchmark")
LABEL = "F1B0_W4_MC3_R0.24"


def export(form, records):
    def refuse(constant):
        raise AssertionError(f"{constant} in {form}")

    return json.loads("".join(FORMATS[form](view_of(records))), parse_constant=refuse)


def names(form, data):
    if form == "pytest-benchmark":
        return [benchmark["name"] for benchmark in data["benchmarks"]]
    return list(data) if form == "bencher" else [entry["name"] for entry in data if entry["unit"] == "s"]


def two_trials(**changes):
    return [
        complete(trial()),
        complete(trial(DBCacheConfig()), latency_s=0.5, cached=(2, 3, 4, 6, 7), ssim=0.95, **changes),
    ]


def proxy(record):
    measured = record.measurement
    sources = {**measured.sources, "quality": "proxy"}
    return replace(record, source="proxy", measurement=replace(measured, sources=sources))


@pytest.mark.parametrize("form", TRACKERS)
def test_each_complete_trial_goes_out_under_its_label(form):
    expected = [row.label for row in view_of(demo_records()).trials if row.state == "COMPLETE"]
    assert len(expected) == 14
    assert names(form, export(form, demo_records())) == expected


@pytest.mark.parametrize("form", TRACKERS)
def test_trials_that_share_a_label_are_told_apart(form):
    records = [complete(trial(compute=ComputeConfig(attention_backend=name))) for name in ("native", "flash")]
    assert names(form, export(form, records)) == [
        "none compute.attention_backend=native",
        "none compute.attention_backend=flash",
    ]


@pytest.mark.parametrize("form", TRACKERS)
def test_failed_trials_are_left_out_and_counted_on_stderr(form, capsys):
    records = [complete(trial()), failed(trial(DBCacheConfig())), pruned(trial(DBCacheConfig(Fn_compute_blocks=2)))]
    assert names(form, export(form, records)) == ["none"]
    assert capsys.readouterr().err == "note: left out 1 trial FAILED, without figures\n"


@pytest.mark.parametrize("form", TRACKERS)
def test_nothing_is_said_where_nothing_is_left_out(form, capsys):
    export(form, two_trials())
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("form", TRACKERS)
@pytest.mark.parametrize(
    "records",
    [demo_projection(), [complete(trial()), proxy(complete(trial(DBCacheConfig())))]],
    ids=["roofline", "proxy"],
)
def test_what_was_not_measured_is_refused_even_among_what_was(form, records):
    with pytest.raises(ZbenchError, match=rf"--format {form} cannot mark .* proxy .* csv-rounds") as error:
        "".join(FORMATS[form](view_of(records)))
    assert error.value.exit_code == 2 and "\n" not in str(error.value)


@pytest.mark.parametrize("form", TRACKERS)
def test_an_export_without_a_trial_is_an_error_not_an_empty_success(form):
    with pytest.raises(ZbenchError, match="no trial has a latency"):
        "".join(FORMATS[form](view_of([failed(trial())])))


@pytest.mark.parametrize("form", TRACKERS)
def test_invalid_rounds_are_no_samples_and_a_trial_of_them_alone_is_left_out(form, capsys):
    base = complete(trial())
    bad = measurement(trial(DBCacheConfig()), ssim=0.9)
    bad = with_window(bad, requests=[replace(r, valid=False, invalid_reasons=["throttled"]) for r in bad.requests])
    records = [base, replace(complete(trial(DBCacheConfig())), measurement=bad)]
    assert names(form, export(form, records)) == ["none"]
    assert "1 trial without a latency" in capsys.readouterr().err


@pytest.mark.parametrize("form", TRACKERS)
def test_the_command_line_prints_it_or_writes_it(form, tmp_path, capsys):
    run = tmp_path / "records.jsonl"
    run.write_text("".join(record.to_json() + "\n" for record in two_trials()), encoding="utf-8")
    assert main(["export", str(run), "--format", form]) == 0
    printed = capsys.readouterr().out
    assert names(form, json.loads(printed)) == ["none", LABEL]
    assert main(["export", str(run), "--format", form, "--output", str(tmp_path / "out.json")]) == 0
    assert (tmp_path / "out.json").read_text(encoding="utf-8") == printed


@pytest.mark.parametrize("form", TRACKERS)
def test_the_command_line_refuses_a_projection_with_one_line_and_exit_2(form, tmp_path, capsys):
    run = tmp_path / "records.jsonl"
    run.write_text("".join(record.to_json() + "\n" for record in demo_projection()), encoding="utf-8")
    assert main(["export", str(run), "--format", form]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and len(captured.err.splitlines()) == 1


def compare(tmp_path, files, *options):
    done = subprocess.run(
        [sys.executable, "-m", "pytest_benchmark", "compare", *options, *map(str, files)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Failed to load" not in done.stdout + done.stderr
    return done.stdout


def test_pytest_benchmark_compares_two_exported_runs(tmp_path):
    files = []
    for name, seconds in (("before", 0.5), ("after", 0.25)):
        records = [complete(trial()), complete(trial(DBCacheConfig()), latency_s=seconds)]
        files.append(tmp_path / f"{name}.json")
        files[-1].write_text("".join(FORMATS["pytest-benchmark"](view_of(records))), encoding="utf-8")
    table = compare(tmp_path, files, "--columns=median,rounds")
    assert "against none" in table and "4 tests" in table and "time in ms" in table
    assert re.search(rf"{LABEL} \(\S*after\) +250\.0000", table)
    assert re.search(rf"{LABEL} \(\S*before\) +500\.0000", table)
    between = compare(tmp_path, files, "--between=median")  # takes them by name: after, before
    assert re.search(rf"{LABEL} .*\+100\.0%", between)
    assert re.search(r"none .*\+0\.0%", between)


def test_pytest_benchmark_groups_trials_by_the_config_values_that_part_them(tmp_path):
    caches = [DBCacheConfig(residual_diff_threshold=t) for t in (0.12, 0.24)]
    path = tmp_path / "run.json"
    view = view_of([complete(trial(c)) for c in caches])
    path.write_text("".join(FORMATS["pytest-benchmark"](view)), encoding="utf-8")
    table = compare(tmp_path, [path], "--group-by=param:cache.residual_diff_threshold")
    assert "0.12" in table and "0.24" in table and table.count("1 tests") == 2


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 6, 7, 8, 11, 12])
def test_statistics_are_pytest_benchmarks_own(n):
    samples = [1.0, 1.1, 0.9, 1.05, 5.0, 0.95, 1.02, 1.01, 0.2, 1.03, 0.99, 1.04][:n]
    theirs = Stats()
    for sample in samples:
        theirs.update(sample)
    ours = sample_stats(samples)
    assert ours.pop("data") == samples and ours.pop("iterations") == 1
    assert ours.pop("outliers") == theirs.outliers
    assert ours == pytest.approx({k: v for k, v in theirs.as_dict().items() if k != "outliers"})


def test_pytest_benchmark_says_on_what_and_by_which_commit():
    data = export("pytest-benchmark", two_trials())
    assert data["machine_info"]["system"] == "Linux" and data["machine_info"]["cpu"]["count"] == 2
    assert data["commit_info"]["id"].startswith("0123456789abcdef") and data["commit_info"]["dirty"] is False
    base, fast = data["benchmarks"]
    assert fast["params"]["cache.method"] == "dbcache" and base["params"]["cache.method"] == "none"
    assert fast["extra_info"]["speedup"] == pytest.approx(2.0) and fast["extra_info"]["ssim_worst"] == 0.95
    assert "ssim_worst" not in base["extra_info"]
    assert fast["options"]["min_rounds"] == 8


def test_bencher_takes_latency_in_nanoseconds_with_its_interval():
    measures = export("bencher", two_trials())[LABEL]
    latency = measures["latency"]
    assert latency["value"] == pytest.approx(0.5e9)
    assert latency["lower_value"] < latency["value"] < latency["upper_value"]
    assert measures["throughput"]["value"] == pytest.approx(2.0)
    assert measures["ssim-worst"] == {"value": 0.95}


def test_bencher_has_no_measure_for_what_cannot_be_had():
    for measures in export("bencher", demo_records()).values():
        for slug, metric in measures.items():
            assert re.fullmatch(r"[a-z0-9-]{1,64}", slug)
            assert "value" in metric and set(metric) <= {"value", "lower_value", "upper_value"}
            assert all(isinstance(value, int | float) for value in metric.values())
    assert "ssim-worst" not in export("bencher", two_trials())["none"]
    few = export("bencher", [complete(trial(), n_rounds=4)])["none"]["latency"]
    assert set(few) == {"value"}


def test_bencher_cannot_show_caveats_so_stderr_names_the_trials(capsys):
    export("bencher", two_trials(validity=["throttled"]))
    assert capsys.readouterr().err == f"note: 1 trial with caveats that this format cannot show: {LABEL}\n"


def test_a_peak_of_the_host_is_not_called_one_of_the_device():
    assert export("bencher", two_trials())["none"]["peak-memory-host-rss"]["value"] == int(1.2 * GIB)
    on_device = export("bencher", [complete(trial(), vram_gib=20.0)])["none"]
    assert on_device["peak-memory"]["value"] == 20 * GIB and "peak-memory-host-rss" not in on_device
    entries = export("github-action-benchmark", two_trials())
    assert entries[1]["name"] == "none peak memory host RSS" and entries[1]["unit"] == "bytes"


def test_github_action_benchmark_reads_names_numbers_and_a_range():
    entries = export("github-action-benchmark", demo_records())
    assert len({entry["name"] for entry in entries}) == len(entries) == 28
    for entry in entries:
        assert isinstance(entry["name"], str) and isinstance(entry["unit"], str) and isinstance(entry["extra"], str)
        assert isinstance(entry["value"], int | float)
    # how the action finds the number in a range
    number = re.search(r"(?:\+-|±)\s*(\d.+)", entries[0]["range"])
    assert number is not None and 0 < float(number[1]) < 0.02 * entries[0]["value"]


def test_github_action_benchmark_shows_what_has_no_series_of_its_own():
    fast = next(e for e in export("github-action-benchmark", two_trials(validity=["throttled"])) if e["name"] == LABEL)
    assert "speed-up 2.000×" in fast["extra"] and "worst SSIM 0.9500" in fast["extra"]
    assert "cached steps 5.00 of 8" in fast["extra"] and "caveat: throttled" in fast["extra"]
