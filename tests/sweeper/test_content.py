"""A path names where weights lie, not what they are: what was replaced in place is measured again and never paired."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import zbench
from factories import GRID, SCENES, TINY, measurement, trial
from hardware_profiles import profile
from one_at_a_time import OneAtATime
from plans import plan_of
from safetensors.numpy import save_file
from small_weights import TRANSFORMER, retrain

from zbench.config import (
    Config,
    DBCacheConfig,
    EngineConfig,
    HardwareConfig,
    MeasureConfig,
)
from zbench.executors import Completed, Failed, OnEvent, Setting, Stopped, Task, TaskResult
from zbench.measurement import Effective
from zbench.quality.artifacts import Artifact, contents, image_path, save_artifacts
from zbench.quality.fidelity import compare_with_folder
from zbench.quality.judge_weights import judges_sha256
from zbench.record import Reason, Record
from zbench.search.grid import GridSearch
from zbench.space import arrange
from zbench.store import Store, read_records
from zbench.sweeper import content, sweep
from zbench.trial import Trial
from zbench.zimage.checksum import content_of
from zbench.zimage.layout import Checkpoint, preset_folder

CACHED = DBCacheConfig()
SCHEDULER = "scheduler/scheduler_config.json"


class Painter(OneAtATime):
    """An executor whose images have the colour of the folder's content; `fails` and `stops` name labels."""

    def __init__(self, fails: str = "", stops: str = "", during: Callable[[str], None] = lambda label: None) -> None:
        super().__init__()
        self.fails, self.stops, self.during = fails, stops, during
        self.ran: list[Setting] = []

    def run_one(self, setting: Setting, task: Task, on_event: OnEvent) -> TaskResult:
        label = setting.trial.label
        self.during(label)
        if label == self.stops:
            return Stopped()
        self.ran.append(setting)
        if label == self.fails:
            return Failed(Reason("error", "it broke"))
        effective = effective_now(setting.trial)
        colour = int(str(effective.weights_sha256)[:2], 16)
        images = [
            Artifact(p.id, 0, np.full((16, 16, 3), colour, np.uint8), None) for p in setting.trial.workload.prompts
        ]
        save_artifacts(setting.artifacts, images, effective)
        quality, reason, judged = None, "no_reference", {}
        if setting.reference is not None:
            made_by = None if setting.of_other_weights else effective
            quality, reason = compare_with_folder(images, setting.reference, None, made_by)
            judged = contents(setting.reference).effective.content if setting.of_other_weights else {}
        about = {"reasons": {} if reason is None else {"quality": reason}, "reference_sha256": judged}
        about["judges_sha256"] = judges_sha256(task.measure)
        return Completed(measurement(setting.trial, effective=effective, quality=quality, **about))


def effective_now(of: Trial) -> Effective:
    found = content_of(Checkpoint(Path(of.pipeline.weights)))
    return Effective(weights="folder", **found._asdict())


class Listener:
    """Keeps notes and what was reused."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.kept: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def reused(self, placed: Any, record: Record, figures: Any) -> None:
        self.kept.append(record.label)

    def started(self, placed: Any, of: int = 1) -> None: ...

    def event(self, placed: Any, event: dict[str, Any]) -> None: ...

    def finished(self, placed: Any, record: Record, figures: Any) -> None: ...

    def added(self, trial: Trial, instead_of: Any) -> None: ...


def swept(
    folder: Path,
    painter: Painter,
    hardware: tuple[HardwareConfig | None, ...] = (None,),
    measure: MeasureConfig | None = None,
    **more: Any,
) -> tuple[list[Record], Listener]:
    """A baseline and a cached trial of the pipeline in `folder`."""
    pipeline = replace(TINY, weights=str(folder))
    of = [trial(cache, pipeline=pipeline, hardware=each, **more) for each in hardware for cache in (None, CACHED)]
    space = arrange(of)
    plan = plan_of(
        space, folder.parent / "runs", measure=measure or MeasureConfig(), stand_in=Config(pipeline=pipeline)
    )
    listener = Listener()
    with Store(plan.run_folder, listener.note) as store:
        outcome = sweep.Sweep(plan, store, painter, GridSearch(space, GRID), listener, lambda: False).run()
    return outcome.records, listener


def digests(records: list[Record]) -> list[str | None]:
    return [r.measurement.effective.weights_sha256 for r in records if r.measurement is not None]


def test_what_did_not_change_is_not_measured_again(folder: Path) -> None:
    swept(folder, Painter())
    again = Painter()
    _, listener = swept(folder, again)
    assert again.ran == [] and len(listener.kept) == 2 and listener.notes == []


@pytest.mark.parametrize(("name", "kind"), [(TRANSFORMER, "weights"), (SCHEDULER, "configs")])
def test_what_was_replaced_in_place_is_measured_again_and_the_note_says_why(name: str, kind: str, folder: Path) -> None:
    before, _ = swept(folder, Painter())
    if kind == "weights":
        retrain(folder)
    else:
        (folder / name).write_text((folder / name).read_text().replace('"shift": 3.0', '"shift": 6.0'))
    records, listener = swept(folder, again := Painter())
    assert len(again.ran) == 2 and listener.kept == []
    assert listener.notes == [f"{r.label} is measured again: its {kind} changed since" for r in records]
    assert [r.trial_id for r in records] == [r.trial_id for r in before]
    assert all(
        new.measurement.effective.differs_in_content(old.measurement.effective) == kind
        for new, old in zip(records, before, strict=True)
        if new.measurement and old.measurement
    )
    follower = records[1].measurement
    assert follower is not None and follower.quality is not None and all(image.identical for image in follower.quality)


def test_weights_that_are_put_back_make_the_first_record_no_latest_one(folder: Path) -> None:
    swept(folder, Painter())
    retrain(folder)
    swept(folder, Painter())
    retrain(folder, to=2)
    records, _ = swept(folder, again := Painter())
    assert len(again.ran) == 2 and digests(records) == [effective_now(again.ran[0].trial).weights_sha256] * 2


def test_each_pipeline_is_asked_about_once_and_only_where_a_record_would_be_reused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    real = content.resolve_weights
    monkeypatch.setattr(content, "resolve_weights", lambda p: (asked.append(str(p.weights)), real(p))[1])
    swept(folder, Painter())
    assert asked == []
    swept(folder, Painter(), measure=MeasureConfig(max_rounds=99))
    assert asked == [], "these were measured again for another reason"
    swept(folder, Painter(), measure=MeasureConfig(max_rounds=99))
    assert asked == [str(folder)]


def test_an_engine_that_loads_no_weights_of_ours_is_left_alone(folder: Path) -> None:
    engine = EngineConfig(name="other", target="synthetic:SyntheticEngine", loads_weights=False)
    swept(folder, Painter(), engine=engine)
    retrain(folder)
    _, listener = swept(folder, again := Painter(), engine=engine)
    assert again.ran == [] and len(listener.kept) == 2


def test_a_record_that_does_not_know_its_content_is_reused(folder: Path) -> None:
    swept(folder, Painter())
    journal = folder.parent / "runs" / "s" / "records.jsonl"
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    for line in lines:
        for key in ("weights_sha256", "configs_sha256"):
            del line["measurement"]["effective"][key]
        del line["measurement"]["judges_sha256"]
    journal.write_text("".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines))
    retrain(folder)
    _, listener = swept(folder, again := Painter())
    assert again.ran == [] and len(listener.kept) == 2


def test_a_follower_is_never_judged_against_images_of_the_old_weights(folder: Path) -> None:
    """The reference fails on the new weights: its old images are gone, and are no reference later either."""
    swept(folder, Painter())
    retrain(folder)
    records, _ = swept(folder, again := Painter(fails="none"))
    assert [r.state for r in records] == ["FAILED", "COMPLETE"] and again.ran[1].reference is None
    follower = records[1].measurement
    assert follower is not None and follower.quality is None
    assert [task.is_reference for task in again.ran] == [True, False], "though it has no reference either"
    assert not again.ran[0].artifacts.exists()


def test_weights_replaced_while_a_sweep_runs_are_not_paired_and_the_next_sweep_heals_it(folder: Path) -> None:
    records, _ = swept(folder, Painter(during=lambda label: None if label == "none" else retrain(folder)))
    follower = records[1].measurement
    assert follower is not None and follower.quality is None
    assert follower.reasons["quality"] == "reference_of_other_weights"
    records, listener = swept(folder, Painter())
    assert listener.notes[0].endswith("none is measured again: its weights changed since")
    assert listener.notes[1].endswith("its reference was not there the last time")
    follower = records[1].measurement
    assert follower is not None and follower.quality is not None and len(set(digests(records))) == 1
    _, listener = swept(folder, Painter())
    assert len(listener.kept) == 2


def test_a_sweep_interrupted_after_its_reference_goes_on_with_the_new_weights(folder: Path) -> None:
    first, _ = swept(folder, Painter())
    retrain(folder)
    swept(folder, stopped := Painter(stops=first[1].label))
    assert [task.trial.label for task in stopped.ran] == ["none"]
    records, listener = swept(folder, again := Painter())
    assert listener.kept == ["none"] and [task.trial.label for task in again.ran] == [first[1].label]
    assert len(set(digests(records))) == 1
    follower = records[1].measurement
    assert follower is not None and follower.quality is not None and follower.quality[0].identical


def test_images_of_a_sweep_that_was_killed_before_its_record_are_not_those_of_the_old_record(folder: Path) -> None:
    swept(folder, Painter())
    retrain(folder)
    with pytest.raises(KeyboardInterrupt):

        def killed(label: str) -> None:
            if label != "none":
                raise KeyboardInterrupt

        swept(folder, Painter(during=killed))
    journal = folder.parent / "runs" / "s" / "records.jsonl"
    journal.write_text("".join(line + "\n" for line in journal.read_text().splitlines()[:2]))  # its record is lost
    retrain(folder, 0)  # and the old weights come back
    _, listener = swept(folder, again := Painter())
    assert listener.notes == ["none is measured again: its images are of other weights"]
    assert [task.trial.label for task in again.ran] == ["none"]


@pytest.mark.parametrize("gone", ["all", "the reference's", "a follower's", "one image", "latents", "an empty image"])
def test_images_that_were_deleted_are_made_again_once_and_the_reason_is_true(gone: str, folder: Path) -> None:
    first, _ = swept(folder, Painter())
    reference, follower = (folder.parent / "runs" / "s" / "artifacts" / r.trial_id for r in first)
    image = image_path(reference, SCENES.prompts[0].id, 0)
    match gone:
        case "all":
            shutil.rmtree(reference.parent)
        case "the reference's":
            shutil.rmtree(reference)
        case "a follower's":
            shutil.rmtree(follower)
        case "one image":
            image.unlink()
        case "latents":
            (reference / "latents.safetensors").unlink()
        case _:
            image.write_bytes(b"")
    lost = {"all": first, "a follower's": first[1:]}.get(gone, first[:1])
    records, listener = swept(folder, again := Painter())
    assert listener.notes == [f"{r.label} is measured again: its images were deleted" for r in lost]
    assert [task.trial.label for task in again.ran] == [r.label for r in lost]
    assert records[1].measurement is not None and records[1].measurement.quality, "judged against what is there again"
    _, listener = swept(folder, last := Painter())
    assert (listener.notes, last.ran) == ([], []), "once"


def test_a_new_trial_is_judged_against_images_that_were_deleted_and_made_again(folder: Path) -> None:
    swept(folder, Painter(stops="F1B0_W4_MC3_R0.24"))
    shutil.rmtree(folder.parent / "runs" / "s" / "artifacts")
    records, _ = swept(folder, Painter())
    assert records[1].measurement is not None and records[1].measurement.quality
    assert records[1].measurement.reasons.get("quality") is None


def test_an_executor_that_keeps_no_images_is_not_asked_again_and_again(folder: Path) -> None:
    """As one that works elsewhere: what was never there was not deleted."""

    class Elsewhere(Painter):
        def run_one(self, setting: Setting, task: Task, on_event: OnEvent) -> TaskResult:
            made = super().run_one(setting, task, on_event)
            shutil.rmtree(setting.artifacts)
            return made

    records, _ = swept(folder, Elsewhere())
    assert {r.measurement.reasons["artifacts"] for r in records if r.measurement} == {"not_kept"}
    kept_before = {r.trial_id for r in records if r.measurement and not r.measurement.reasons.get("quality")}
    _, listener = swept(folder, again := Elsewhere())
    assert not any("deleted" in note for note in listener.notes)
    assert {task.trial.trial_id for task in again.ran}.isdisjoint(kept_before)


@pytest.mark.parametrize("replaced", [False, True])
def test_projected_trials_go_by_the_proxy_that_they_share(replaced: bool, folder: Path) -> None:
    both = profile("h100"), profile("b300")
    first, _ = swept(folder, once := Painter(), hardware=both)
    assert len(once.ran) == 2 and len(first) == 4
    if replaced:
        retrain(folder)
    records, listener = swept(folder, again := Painter(), hardware=both)
    assert (len(again.ran), len(listener.notes)) == ((2, 4) if replaced else (0, 0))
    assert len(set(digests(records))) == 1
    now = effective_now(once.ran[0].trial)
    for record in records:
        folder_says = contents(folder.parent / "runs" / "s" / "artifacts" / record.trial_id)
        assert folder_says.effective.differs_in_content(now) is None and folder_says.stems


def test_weights_of_judges_that_were_replaced_in_place_judge_again(folder: Path, tmp_path: Path) -> None:
    lpips, clip = tmp_path / "lpips.safetensors", tmp_path / "clip"
    clip.mkdir()
    save_file({"w": np.zeros(1)}, lpips)
    save_file({"w": np.zeros(1)}, clip / "model.safetensors")
    measure = MeasureConfig(lpips_weights=str(lpips), clip_weights=str(clip))
    swept(folder, Painter(), measure=measure)
    (clip / "README.md").write_text("decides nothing")
    _, listener = swept(folder, Painter(), measure=measure)
    assert len(listener.kept) == 2
    save_file({"w": np.ones(1)}, lpips)
    records, listener = swept(folder, Painter(), measure=measure)
    why = "is measured again: the LPIPS weights that judged it changed since"
    assert listener.notes == [f"{record.label} {why}" for record in records]
    (clip / "config.json").write_text("{}")
    _, listener = swept(folder, Painter(), measure=measure)
    assert all("the CLIP weights" in note for note in listener.notes) and len(listener.notes) == 2


def test_fewer_images_leave_none_of_the_old_ones(tmp_path: Path) -> None:
    old = [Artifact(p.id, 0, np.zeros((16, 16, 3), np.uint8), None) for p in SCENES.prompts]
    save_artifacts(tmp_path, old, Effective(weights_sha256="old"))
    save_artifacts(tmp_path, old[:1], Effective(weights_sha256="new"))
    assert not image_path(tmp_path, SCENES.prompts[1].id, 0).exists()
    assert contents(tmp_path).effective == Effective(weights_sha256="new")


def test_images_that_were_half_replaced_are_those_of_nobody(tmp_path: Path) -> None:
    old = [Artifact(p.id, 0, np.zeros((16, 16, 3), np.uint8), None) for p in SCENES.prompts]
    save_artifacts(tmp_path, old, Effective(weights_sha256="old"))
    broken = [old[0], replace(old[1], image=None)]  # type: ignore[arg-type]
    with pytest.raises(AttributeError):
        save_artifacts(tmp_path, broken, Effective(weights_sha256="new"))
    for weights in ("old", "new"):
        quality, reason = compare_with_folder(old, tmp_path, None, Effective(weights_sha256=weights))
        assert quality is None and reason is not None


def test_the_real_engine_sees_retrained_weights_and_compare_refuses_them(tmp_path: Path) -> None:
    """As a user meets it: retrained weights under the same path."""
    import shutil

    from safetensors.torch import load_file
    from safetensors.torch import save_file as save_tensors

    model = Path(shutil.copytree(preset_folder("zimage_tiny"), tmp_path / "model"))
    args = (
        *("sweep", "hardware=cpu", f"pipeline.weights={model}", "pipeline.height=64", "pipeline.width=64"),
        *("pipeline.steps=2", "workload=single", "measure=quick", "measure.max_warmup_rounds=0"),
        *("measure.min_rounds=2", "measure.max_rounds=2", "cache=none"),
    )
    assert zbench(tmp_path, *args, "sweep.name=s").returncode == 0
    shutil.copytree(tmp_path / "runs" / "s", tmp_path / "runs" / "old")
    weights = load_file(model / TRANSFORMER)
    key = next(k for k in weights if "final_layer" in k and k.endswith("weight"))
    weights[key] = (weights[key].float() * 1.05).to(weights[key].dtype)
    save_tensors(weights, model / TRANSFORMER)
    again = zbench(tmp_path, *args, "sweep.name=s")
    assert again.returncode == 0 and "none is measured again: its weights changed since" in again.stderr
    old, new = read_records(tmp_path / "runs" / "s" / "records.jsonl")
    assert old.measurement is not None and new.measurement is not None
    assert old.measurement.effective.differs_in_content(new.measurement.effective) == "weights"
    assert old.measurement.effective.configs_sha256 == new.measurement.effective.configs_sha256 is not None
    assert old.measurement.requests[0].image_sha256 != new.measurement.requests[0].image_sha256
    refused = zbench(tmp_path, "compare", "old", "s")
    assert refused.returncode == 2 and refused.stdout == ""
    (line,) = refused.stderr.strip().splitlines()
    for measured in (old.measurement, new.measurement):
        assert str(measured.effective.weights_sha256)[:12] in line
    assert new.trial_id in line and "weights under the same path have other content" in line
