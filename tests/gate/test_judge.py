"""Verdicts on records: what got slower is found, and what cannot be said is never a pass."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from factories import complete, failed, projected, trial, with_window

from zbench.cli import main
from zbench.config import ComputeConfig, DBCacheConfig, OffloadConfig
from zbench.errors import ConfigError, Exit, RecordError
from zbench.gate.judge import Assessment, assess
from zbench.gate.limits import parse_limit
from zbench.gate.show import annotations, render
from zbench.measurement import QUALITY_ONLY, Effective, Energy, Memory
from zbench.record import Record
from zbench.stats import Verdict
from zbench.store import RECORDS

CACHED = trial(DBCacheConfig())
ROUNDS: dict[str, Any] = {"n_rounds": 24, "spread": 0.01}  # of two prompts: 12 cycles


def run(factor: float = 1.0, **changes: Any) -> list[Record]:
    """A baseline and a cached trial; `factor` slows the cached one."""
    cached = complete(CACHED, latency_s=0.7 * factor, **{"ssim": 0.97, **ROUNDS, **changes})
    return [complete(trial(), **ROUNDS), cached]


def verdicts(new: list[Record], metric: str = "latency.median:3%") -> tuple[list[Verdict], Exit]:
    assessment = assess(new, run(), [parse_limit(metric)])
    return [finding.judgement.verdict for finding in assessment.findings], assessment.exit_code


@pytest.mark.parametrize(
    ("factor", "verdict", "code"),
    [(1.0, Verdict.SAME, 0), (1.08, Verdict.SLOWER, 1), (0.9, Verdict.FASTER, 0), (1.03, Verdict.INCONCLUSIVE, 3)],
)
def test_the_verdict_follows_the_change(factor: float, verdict: Verdict, code: int) -> None:
    found, exit_code = verdicts(run(factor))
    assert found == [Verdict.SAME, verdict] and exit_code == code


def test_quality_may_fall_by_its_limit_and_no_more() -> None:
    assert verdicts(run(ssim=0.965), "quality.ssim:-0.01")[1] == Exit.DONE
    found, code = verdicts(run(ssim=0.95), "quality.ssim:-0.01")
    assert Verdict.SLOWER in found and code == Exit.REGRESSION


def test_a_missing_or_failed_trial_is_a_regression() -> None:
    for new in (run()[:1], [run()[0], failed(CACHED)]):
        assessment = assess(new, run(), [parse_limit("latency.median:3%")])
        assert assessment.exit_code == Exit.REGRESSION and len(assessment.gone) == 1


def test_a_regression_outweighs_what_cannot_be_said() -> None:
    new = [complete(trial(), n_rounds=4), run(1.2)[1]]
    found, code = verdicts(new)
    assert found == [Verdict.INCONCLUSIVE, Verdict.SLOWER] and code == Exit.REGRESSION


def test_too_few_cycles_are_inconclusive_and_the_way_out_is_named() -> None:
    assessment = assess(run(n_rounds=8), run(), [parse_limit("latency.median:3%")])
    assert assessment.exit_code == Exit.INCONCLUSIVE
    reason = assessment.findings[1].judgement.reason
    assert (
        "4 rounds of each prompt and seed, where a 0.975 interval needs 7, 14 in all" in reason
        and "measure.min_rounds" in reason
    )


def test_what_was_not_timed_is_inconclusive_and_more_rounds_are_no_way_out() -> None:
    """Its images are judged as ever."""
    (baseline, timed) = run()
    assert timed.measurement is not None
    requests = [replace(r, valid=False, invalid_reasons=[QUALITY_ONLY]) for r in timed.measurement.window.requests]
    reasons = {**timed.measurement.reasons, "latency": QUALITY_ONLY}
    measured = with_window(replace(timed.measurement, reasons=reasons), requests=requests)
    limits = [parse_limit(limit) for limit in ("latency.median:3%", "throughput:3%", "quality.ssim:-0.01")]
    assessment = assess([baseline, replace(timed, measurement=measured)], run(), limits)
    said = [finding.judgement.reason for finding in assessment.findings if finding.label == timed.label]
    assert assessment.exit_code == Exit.INCONCLUSIVE
    assert all("the new record was not timed (quality_only)" in each for each in said[:2]) and len(said) == 3
    assert "timed" not in said[2]


def test_a_trial_that_only_the_new_run_has_is_named_and_not_judged() -> None:
    extra = complete(trial(DBCacheConfig(max_warmup_steps=2)), **ROUNDS)
    assessment = assess([*run(), extra], run(), [parse_limit("latency.median:3%")])
    assert assessment.only_new == (extra.label,) and assessment.exit_code == Exit.DONE
    assert extra.label in render(assessment, "table")


def test_what_cannot_be_judged_at_all_is_an_error() -> None:
    metrics = [parse_limit("latency.median:3%")]
    base = run()
    with pytest.raises(RecordError, match="nothing to compare with"):
        assess(run(), [failed(CACHED)], metrics)
    with pytest.raises(RecordError, match="share no trial"):
        assess([complete(trial(DBCacheConfig(max_warmup_steps=1)))], base, metrics)
    with pytest.raises(RecordError, match="projected or proxy"):
        assess(run(), [projected(base[0], latency_s=1.0, vram_gib=20.0)], metrics)
    other = {**base[0].environment, "driver": "580.1"}
    with pytest.raises(RecordError, match=r"driver None → 580\.1"):
        assess([replace(r, environment=other) for r in run()], base, metrics)
    with pytest.raises(ConfigError, match=r"peak_device.*no trial of the base has a figure"):
        assess(run(), base, [parse_limit("memory.peak_device:2%")])


def slower() -> Assessment:
    metrics = [parse_limit("latency.median:3%"), parse_limit("quality.ssim:-0.01")]
    return assess([*run(1.2)[1:]], run(), metrics)


@pytest.mark.parametrize("kind", ["weights", "configs"])
def test_other_content_under_the_same_path_is_refused_and_the_way_out_is_named(kind: str) -> None:
    def of_content(digest: str | None) -> list[Record]:
        return run(effective=Effective(device="cpu", **{f"{kind}_sha256": digest}))

    metrics = [parse_limit("latency.median:3%")]
    with pytest.raises(RecordError) as refusal:
        assess(of_content("b" * 64), of_content("a" * 64), metrics)
    said = str(refusal.value)
    assert said.startswith(f"{CACHED.label} (trial {CACHED.trial_id}): {kind} under the same path")
    assert f"{kind}_sha256 {'a' * 12} → {'b' * 12};" in said and "measure the base again" in said
    assert refusal.value.exit_code == Exit.BAD_INPUT and "\n" not in said
    for base in ("b" * 64, None):  # a record that does not say is an older one
        assert assess(of_content("b" * 64), of_content(base), metrics).exit_code == Exit.DONE


def test_junit_counts_what_is_no_pass() -> None:
    suite = ElementTree.fromstring(render(slower(), "junit"))
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("3", "2", "0")
    assert [case.get("name") for case in suite if case.find("failure") is not None] == ["trial", "latency.median:3%"]


def test_json_and_annotations_say_the_same() -> None:
    data = json.loads(render(slower(), "json"))
    assert data["exit_code"] == 1 and [f["verdict"] for f in data["findings"]] == ["SLOWER", "SAME"]
    lines = annotations(slower())
    assert len(lines) == 2 and all(line.startswith("::error title=zbench%3A ") for line in lines)
    assert "%25" in lines[1] and "\n" not in lines[1]


def written(folder: Path, records: list[Record]) -> str:
    folder.mkdir()
    (folder / RECORDS).write_text("".join(f"{record.to_json()}\n" for record in records))
    return str(folder)


def test_gate_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    summary = tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    good, bad = written(tmp_path / "good", run()), written(tmp_path / "bad", run(1.2))
    assert main(["baseline", "save", good, "--name", "main"]) == 0
    assert main(["gate", good, "--baseline", "main"]) == 0
    assert main(["gate", bad, "--baseline", "main", "--github"]) == 1
    captured = capsys.readouterr()
    assert "SLOWER" in captured.out and "::error" in captured.err and "regressed" in summary.read_text()
    assert main(["compare", good, bad, "--metric", "latency.median:30%"]) == 0
    assert main(["gate", good, "--baseline", "other"]) == 2
    assert "none of that name" in capsys.readouterr().err
    (kept,) = (tmp_path / "runs" / "baselines" / "main").glob("*.json")
    kept.write_text(kept.read_text().replace("0.7", "0.6"))
    assert main(["gate", good, "--baseline", "main"]) == 2
    assert "checksum" in capsys.readouterr().err


def test_likenesses_to_other_references_are_not_compared() -> None:
    """Where weights wait changes no image, so a reference that gave way to one with offload is still the same."""
    base, limits = run(), [parse_limit("quality.ssim:-0.01"), parse_limit("latency.median:30%")]
    elsewhere = complete(trial(compute=ComputeConfig(dtype="bfloat16")))
    waiting = complete(trial(offload=OffloadConfig(mode="vae")))

    def verdicts_against(reference: Record) -> set[str]:
        new = [replace(r, reference_id=reference.trial_id) for r in run()]
        found = assess([*new, reference], base, limits).findings
        return {f.judgement.reason for f in found if f.limit.metric.of_likeness and f.label != "none"}

    assert verdicts_against(elsewhere) == {"Nothing can be said: the two were judged against other quality references."}
    assert not any("references" in reason for reason in verdicts_against(waiting))


def test_figures_of_other_judges_are_not_compared() -> None:
    def judged(digest: str) -> list[Record]:
        return run(lpips=0.1, judges_sha256={"lpips_weights": digest})

    limits = [parse_limit("quality.lpips:0.1"), parse_limit("quality.ssim:-0.01")]
    reasons = [f.judgement.reason for f in assess(judged("b" * 64), judged("a" * 64), limits).findings]
    assert sum("measure.lpips_weights were other weights" in reason for reason in reasons) == 1


def test_what_the_base_lacks_of_a_reference_is_no_pass() -> None:
    """Only likeness is none of a reference's; its memory is judged like any other's."""
    base = run()
    assert base[0].is_reference and base[0].measurement is not None
    base[0] = replace(base[0], measurement=with_window(base[0].measurement, memory=Memory()))
    findings = assess(run(), base, [parse_limit("memory.host_peak_rss:5%")]).findings
    assert [f.judgement.verdict for f in findings if f.label == "none"] == [Verdict.INCONCLUSIVE]


def test_images_a_second_have_an_interval_and_more_is_better() -> None:
    base, slower = complete(CACHED, latency_s=0.5, **ROUNDS), complete(CACHED, latency_s=0.55, **ROUNDS)
    for new, verdict in ((slower, Verdict.SLOWER), (base, Verdict.SAME)):
        (finding,) = assess([new], [base], [parse_limit("throughput:3%")]).findings
        assert finding.judgement.verdict is verdict and finding.judgement.outcome.n == 12
    assert "higher is better" in finding.judgement.reason


def test_what_a_run_has_once_is_compared_as_it_is_and_called_one_sample() -> None:
    def loaded(first_s: float) -> Record:
        record = complete(CACHED, **ROUNDS)
        assert record.measurement is not None
        cold = replace(record.measurement.cold, first_latency_s=first_s)
        return replace(record, measurement=replace(record.measurement, cold=cold))

    for first_s, verdict in ((2.0, Verdict.SLOWER), (1.05, Verdict.SAME)):
        found = assess([loaded(first_s)], [loaded(1.0)], [parse_limit("cold.first_latency:20%")])
        (finding,) = found.findings
        assert finding.judgement.verdict is verdict
        assert "one sample each, so what runs differ by is not in it" in finding.judgement.reason
        assert "one sample" in render(found, "markdown") and "exact" not in render(found, "markdown")


def test_energy_is_judged_where_it_was_measured_and_asked_for_by_name() -> None:
    base = complete(CACHED, **ROUNDS, energy=Energy(100.0, 24, "counter"))
    (finding,) = assess(
        [complete(CACHED, **ROUNDS, energy=Energy(120.0, 24, "counter"))], [base], [parse_limit("energy:10%")]
    ).findings
    assert finding.judgement.verdict is Verdict.SLOWER
