"""A trial whose images are none is FAILED, and nothing is held to it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from factories import GRID, TINY, measurement, spoilt, trial
from hardware_profiles import profile
from one_at_a_time import OneAtATime
from plans import plan_of

from zbench.analysis.view import View, view_of
from zbench.cli import main
from zbench.config import Config, DBCacheConfig, HardwareConfig, MeasureConfig
from zbench.errors import Exit, RecordError
from zbench.executors import Completed, OnEvent, Setting, Task, TaskResult
from zbench.export.figures import complete_trials
from zbench.export.rounds import rounds_csv
from zbench.measurement import Effective, SpoiltWarmUp
from zbench.quality.artifacts import save_artifacts
from zbench.recommend import Limits, recommend
from zbench.record import Record
from zbench.report.tables.main import render
from zbench.search.grid import GridSearch
from zbench.space import arrange
from zbench.store import Store, read_records
from zbench.sweeper import sweep
from zbench.sweeper.outcome import SweepResult

PLAIN, CACHED = "none", trial(DBCacheConfig()).label


class Spoiler(OneAtATime):
    """An executor whose trials of these labels make black images, of the weights that `digest` names."""

    def __init__(self, *black: str, warm_up: bool = False, digest: str | None = None) -> None:
        super().__init__()
        self.black, self.warm_up, self.digest = black, warm_up, digest
        self.ran: list[Setting] = []

    def run_one(self, setting: Setting, task: Task, on_event: OnEvent) -> TaskResult:
        self.ran.append(setting)
        label, reasons = setting.trial.label, {} if setting.reference else {"quality": "no_reference"}
        made = measurement(setting.trial, latency_s=1.0 if label == PLAIN else 0.5, reasons=reasons)
        made = replace(made, effective=Effective(device="cpu", dtype="bfloat16", weights_sha256=self.digest))
        if label not in self.black:
            save_artifacts(setting.artifacts, [], made.effective)
            return Completed(made if setting.reference else replace(made, quality=None))
        if self.warm_up:
            return Completed(replace(made, spoilt_warmups=[SpoiltWarmUp("en-circle", 0, ["non_finite_image"])]))
        return Completed(spoilt(made, 1))


class Quiet:
    """A listener that keeps what was said."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def reused(self, placed: Any, record: Record, figures: Any) -> None: ...

    def started(self, placed: Any, of: int = 1) -> None: ...

    def event(self, placed: Any, event: dict[str, Any]) -> None: ...

    def finished(self, placed: Any, record: Record, figures: Any) -> None: ...

    def added(self, trial: Any, instead_of: Any) -> None: ...


def swept(
    folder: Path, executor: Spoiler, hardware: tuple[HardwareConfig | None, ...] = (None,), **options: Any
) -> tuple[SweepResult, list[str]]:
    """A plain and a cached trial, on each of `hardware`."""
    space = arrange([trial(cache, hardware=each) for each in hardware for cache in (None, DBCacheConfig())])
    stand_in = Config(pipeline=TINY)
    plan = plan_of(space, folder / "runs", measure=MeasureConfig(), sweep=options, stand_in=stand_in)
    listener = Quiet()
    with Store(plan.run_folder, listener.note) as store:
        outcome = sweep.Sweep(plan, store, executor, GridSearch(space, GRID), listener, lambda: False).run()
    return outcome, listener.notes


@pytest.mark.parametrize("warm_up", [False, True])
def test_a_follower_of_a_spoilt_reference_has_neither_likeness_nor_speed_up(warm_up: bool, tmp_path: Path) -> None:
    executor = Spoiler(PLAIN, warm_up=warm_up)
    outcome, _ = swept(tmp_path, executor)
    spoilt_one, follower = outcome.records
    assert (spoilt_one.state, follower.state, outcome.failed) == ("FAILED", "COMPLETE", 1)
    assert spoilt_one.has_invalid_images and spoilt_one.measurement is not None
    assert "try compute.dtype=float32" in (spoilt_one.reason.message if spoilt_one.reason else "")
    assert executor.ran[-1].reference is None and not (tmp_path / "runs/s/artifacts" / spoilt_one.trial_id).exists()
    assert follower.measurement is not None and follower.measurement.reasons["quality"] == "reference_invalid"
    row = next(row for row in view_of(outcome.records).trials if row.trial_id == follower.trial_id)
    assert (row.ssim_worst, row.identical_images, row.speedup) == (None, None, None)
    assert (row.why_missing("quality"), row.why_missing("speedup")) == ("reference_invalid", "baseline_invalid")
    told = "none FAILED (invalid_images): no image is judged against it and no speed-up is over it."
    assert told in render(view_of(outcome.records), "table")


def test_likeness_that_was_judged_against_black_images_is_forgotten(tmp_path: Path) -> None:
    """As an older zbench left it in its journal: the reference COMPLETE, and the other identical to it."""
    outcome, _ = swept(tmp_path, Spoiler())
    reference, follower = outcome.records
    older = replace(reference, measurement=spoilt(reference.measurement))
    before = view_of([reference, follower]).trials[1]
    assert before.is_identical and before.speedup == pytest.approx(2.0)
    now = view_of([Record.from_json(older.to_json()), follower]).trials
    row = next(row for row in now if row.trial_id == follower.trial_id)
    assert not row.is_identical and row.ssim_worst is None and row.speedup is None


def spoilt_view(folder: Path) -> View:
    return view_of(swept(folder, Spoiler(CACHED))[0].records)


def test_no_figure_is_taken_from_a_spoilt_trial(tmp_path: Path) -> None:
    view = spoilt_view(tmp_path)
    row = next(row for row in view.trials if row.label == CACHED)
    assert (row.state, row.reason_code, row.latency_median_s, row.speedup) == ("FAILED", "invalid_images", None, None)
    assert [row.label for row in complete_trials(view).trials] == [PLAIN]
    assert recommend(view, Limits()).answers[0].chosen.label == PLAIN  # type: ignore[union-attr]
    rounds = "".join(rounds_csv(view)).splitlines()
    assert sum("black_image" in line for line in rounds) == 1 and sum(CACHED in line for line in rounds) == 8


def test_readers_of_a_run_of_spoilt_trials_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    swept(tmp_path, Spoiler(PLAIN, CACHED))
    assert main(["report", "s"]) == Exit.DONE
    assert "images of 1 of 8 requests are not valid" in (tmp_path / "reports/s/report.html").read_text()
    assert main(["recommend", "s"]) == Exit.BAD_INPUT
    assert main(["export", "s", "--format", "pytest-benchmark"]) == Exit.BAD_INPUT
    assert main(["export", "s", "--format", "csv"]) == Exit.DONE
    with pytest.raises(RecordError, match="no COMPLETE trial"):
        recommend(view_of(read_records(tmp_path / "runs/s/records.jsonl")), Limits())


def test_a_spoilt_trial_is_an_answer_until_it_is_asked_again(tmp_path: Path) -> None:
    swept(tmp_path, Spoiler(CACHED))
    again = Spoiler()
    assert swept(tmp_path, again)[0].failed == 1 and again.ran == []
    assert swept(tmp_path, again, retry_failed=True)[0].failed == 0
    assert [setting.trial.label for setting in again.ran] == [CACHED]


def test_other_weights_under_the_path_are_tried_without_being_asked(tmp_path: Path) -> None:
    """What lies there now, the preset, is not what made the black images."""
    swept(tmp_path, Spoiler(CACHED, digest="a" * 64))
    mended = Spoiler()
    outcome, notes = swept(tmp_path, mended)
    assert outcome.failed == 0 and CACHED in [setting.trial.label for setting in mended.ran]
    assert f"{CACHED} is measured again: its weights changed since" in notes


def test_projections_share_a_spoilt_proxy_and_fail_alike(tmp_path: Path) -> None:
    executor = Spoiler(CACHED)
    outcome, _ = swept(tmp_path, executor, (profile("h100"), profile("b300")))
    assert outcome.failed == 2 and len(executor.ran) == 2
    for record in outcome.records:
        assert record.has_invalid_images == (record.label == CACHED)
        assert record.measurement is not None and record.measurement.projection is not None
        assert (tmp_path / "runs/s/artifacts" / record.trial_id).exists() == (record.label == PLAIN)


def test_followers_are_judged_once_the_reference_has_images(tmp_path: Path) -> None:
    swept(tmp_path, Spoiler(PLAIN))
    outcome, notes = swept(tmp_path, Spoiler(), retry_failed=True)
    assert outcome.failed == 0 and "its reference was not there the last time" in " ".join(notes)
    assert next(r for r in outcome.records if r.label == CACHED).measurement.quality  # type: ignore[union-attr]
