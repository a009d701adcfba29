"""Quality against the images of other weights: on purpose, named in the record, never against those of the past."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import loras
import numpy as np
import pytest
from composing import jobs
from factories import GRID, TINY, trial
from hardware_profiles import profile
from plans import plan_of
from test_content import CACHED, Listener, Painter, retrain

from zbench.analysis.view import view_of
from zbench.config import ComputeConfig
from zbench.engines.weights import resolve_weights
from zbench.errors import ConfigError, WeightsUnavailableError
from zbench.executors import Completed, OnEvent, Setting, Task, TaskResult
from zbench.gate.judge import assess
from zbench.gate.limits import parse_limit
from zbench.measurement import Effective
from zbench.record import Record
from zbench.report.tables.main import main_table
from zbench.search.grid import GridSearch
from zbench.space import Space, arrange
from zbench.store import Store
from zbench.sweeper import sweep
from zbench.sweeper.conduct import check_weights
from zbench.sweeper.plan import Plan, make_plan
from zbench.sweeper.reference import named_reference
from zbench.trial import Trial

NATIVE = ComputeConfig(device="cpu")


def other(folder: Path, name: str) -> Path:
    """A copy of the pipeline under another path, with another transformer."""
    made = Path(shutil.copytree(folder, folder.parent / name))
    retrain(made, to=7)
    return made


def space_of(*pipelines: Any, weights: str | None) -> Space:
    trials = [trial(cache, pipeline=each, compute=NATIVE) for each in pipelines for cache in (None, CACHED)]
    if weights is None:
        return arrange(trials)
    return arrange(trials, judged_by=named_reference(weights, trials))


def swept(folder: Path, painter: Painter, space: Space) -> tuple[list[Record], Listener]:
    plan, listener = plan_of(space, folder.parent / "runs"), Listener()
    with Store(plan.run_folder, listener.note) as store:
        outcome = sweep.Sweep(plan, store, painter, GridSearch(space, GRID), listener, lambda: False).run()
    return outcome.records, listener


def test_each_weights_have_a_reference_of_their_own_unless_one_is_named() -> None:
    plain, merged = replace(TINY), replace(TINY, weights="/merged")
    own = space_of(plain, merged, weights=None)
    assert [p.trial.pipeline.weights for p in own.placed if p.is_reference] == ["auto", "/merged"]
    one = space_of(plain, merged, weights="auto")
    (reference,) = (p.trial for p in one.placed if p.is_reference)
    assert reference == trial(compute=NATIVE) and one.placed[0].trial == reference
    assert {(p.reference_id, p.baseline_id) for p in one.placed} == {(reference.trial_id, reference.trial_id)}
    assert len(one.placed) == 4, "the plain one without a cache is the reference"


def test_the_reference_is_without_the_lora_and_is_added_where_it_was_not_asked_for() -> None:
    with_one = replace(TINY, lora="/style.safetensors", lora_scale=0.5, lora_fused=False)
    space = space_of(with_one, weights="auto")
    assert space.placed[0].trial == trial(compute=NATIVE) and space.placed[0].is_reference
    both = space_of(TINY, with_one, weights="auto")
    assert {p.reference_id for p in both.placed} == {trial(compute=NATIVE).trial_id}
    assert space.place(space.placed[0].trial).is_reference, "it is its own reference, also for a search"


def test_a_named_baseline_is_of_the_references_weights() -> None:
    trials = [trial(pipeline=replace(TINY, weights="/merged"), compute=NATIVE)]

    def compiled(reference: Trial) -> Trial:
        return replace(reference, compute=replace(reference.compute, compile=True))

    space = arrange(trials, compiled, judged_by=named_reference("auto", trials))
    (baseline,) = (p.trial for p in space.placed if p.is_baseline)
    assert baseline.pipeline.weights == "auto" and baseline.compute.compile


@pytest.mark.parametrize(
    ("weights", "changes", "said"),
    [
        ("random", {}, "trained weights"),
        ("", {}, "trained weights"),
        ("auto", {"pipeline": replace(TINY, weights="random")}, r"images of pipeline\.weights=random are not judged"),
        ("auto", {"hardware": profile("h100")}, "hardware=h100 is projected"),
    ],
)
def test_what_cannot_be_judged_is_refused(weights: str, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=rf"sweep\.reference_weights=.*{said}"):
        named_reference(weights, [trial(), trial(**changes)])


def test_weights_that_are_not_there_are_refused_by_the_key_that_named_them(folder: Path) -> None:
    space = space_of(replace(TINY, weights=str(folder)), weights="/nowhere/at/all")
    with pytest.raises(WeightsUnavailableError, match=r"^sweep\.reference_weights=/nowhere/at/all: "):
        check_weights((p.trial for p in space.placed), "/nowhere/at/all")
    not_cached = replace(TINY, preset="zimage_turbo", hub_id="nobody/nothing")
    with pytest.raises(WeightsUnavailableError, match=r"^sweep\.reference_weights=auto: nobody/nothing") as raised:
        check_weights([trial(pipeline=not_cached)], "auto")
    assert "random" not in str(raised.value) and "pipeline.weights" not in str(raised.value)
    broken = other(folder, "broken")
    (broken / "transformer" / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"^sweep\.reference_weights=.*config\.json: key"):
        space_of(TINY, weights=str(broken))


def planned(*overrides: str) -> Plan:
    return make_plan(jobs("hardware=cpu", "cache=none", *overrides), lambda: None, (), command="", prefix="sweep")  # type: ignore[arg-type, return-value]


def test_a_sweep_is_named_by_whose_images_it_judges_against() -> None:
    typed = "pipeline.weights=auto,/merged"
    names = {planned(typed).name, planned(typed, "sweep.reference_weights=auto").name}
    names.add(planned(typed, "sweep.reference_weights=/merged").name)
    assert len(names) == 3


def test_images_are_judged_against_other_weights_and_the_record_and_the_table_say_so(folder: Path) -> None:
    merged = other(folder, "merged")
    plain = str(folder)
    space = space_of(replace(TINY, weights=str(merged)), weights=plain)
    records, _ = swept(folder, Painter(), space)
    reference, *followers = records
    assert reference.trial.pipeline.weights == plain and reference.is_reference and len(followers) == 2
    assert reference.measurement is not None and reference.measurement.reference_sha256 == {}
    for record in followers:
        assert record.measurement is not None and record.measurement.quality is not None
        assert record.reference_id == record.baseline_id == reference.trial_id
        assert not record.measurement.quality[0].identical, "the other weights paint another colour"
        assert record.measurement.reference_sha256 == reference.measurement.effective.content
    view = view_of(records)
    rows = {row.trial_id: row for row in view.trials}
    for record in followers:
        row = rows[record.trial_id]
        assert row.is_trusted and row.speedup is not None and row.ssim_worst is not None
        assert row.reference_weights == plain
    assert rows[reference.trial_id].reference_weights is None
    assert any(f"against those of pipeline.weights={plain} without a LoRA" in line for line in main_table(view).legend)


def test_a_second_sweep_measures_nothing_again(folder: Path) -> None:
    space = space_of(replace(TINY, weights=str(other(folder, "merged"))), weights=str(folder))
    swept(folder, Painter(), space)
    _, listener = swept(folder, again := Painter(), space)
    assert again.ran == [] and len(listener.kept) == 3


def test_where_the_references_weights_were_replaced_all_are_judged_again(folder: Path) -> None:
    space = space_of(replace(TINY, weights=str(other(folder, "merged"))), weights=str(folder))
    before, _ = swept(folder, Painter(), space)
    retrain(folder, to=3)
    records, listener = swept(folder, again := Painter(), space)
    assert len(again.ran) == 3
    assert listener.notes[0] == "none is measured again: its weights changed since"
    assert listener.notes[1].endswith("is measured again: the weights of its reference changed since")
    stale = [records[0], before[1]]  # as if the second had not been measured again
    row = next(row for row in view_of(stale).trials if row.trial_id == before[1].trial_id)
    assert row.ssim_worst is None and row.speedup is None
    assert row.caveats[0].startswith("its quality reference was made with other weights")
    findings = {
        f.limit.metric.name: f for f in assess(records[1:2], before[1:2], [parse_limit("quality.ssim:-0.01")]).findings
    }
    assert "reference" in str(findings["quality.ssim"].judgement)


def test_judged_against_its_own_weights_or_others_is_not_one_thing_to_a_gate(folder: Path) -> None:
    merged = replace(TINY, weights=str(other(folder, "merged")))
    own, _ = swept(folder, Painter(), space_of(merged, weights=None))
    plain, _ = swept(folder, Painter(), space_of(merged, weights=str(folder)))
    found = assess(plain, own, [parse_limit("quality.ssim:-0.01")]).findings
    assert found and all("other quality references" in str(f.judgement) for f in found)


# A LoRA's content


@pytest.fixture
def style(tmp_path: Path) -> Path:
    return loras.saved(tmp_path / "style.safetensors", loras.diffusers())


class WithLora(Painter):
    """Says of what content the LoRA was, as the reference engine does."""

    def run_one(self, setting: Setting, task: Task, on_event: OnEvent) -> TaskResult:
        result = super().run_one(setting, task, on_event)
        content = resolve_weights(setting.trial.pipeline).content()
        assert isinstance(result, Completed) and content is not None
        return Completed(replace(result.measurement, effective=Effective(weights="folder", **content._asdict())))


def test_a_lora_that_was_replaced_in_place_is_measured_again_and_never_paired(folder: Path, style: Path) -> None:
    space = space_of(replace(TINY, weights=str(folder), lora=str(style)), weights=None)
    before, _ = swept(folder, WithLora(), space)
    _, listener = swept(folder, WithLora(), space)
    assert len(listener.kept) == 2
    loras.saved(style, loras.diffusers(seed=1))
    after, listener = swept(folder, again := WithLora(), space)
    assert len(again.ran) == 2
    assert listener.notes[0] == "none lora:fused is measured again: its LoRA changed since"
    row = next(row for row in view_of([after[0], before[1]]).trials if row.trial_id == before[1].trial_id)
    assert row.speedup is None and row.caveats[0].startswith("its quality reference was made with other LoRA")


def test_a_lora_that_does_not_fit_is_refused_before_anything_runs(folder: Path, style: Path) -> None:
    for tensors, said in (
        (loras.diffusers() | {"x.lora_A.weight": np.zeros((4, 4), np.float32)}, "x.lora_A"),
        ({}, "no LoRA"),
    ):
        loras.saved(style, tensors)
        with pytest.raises(WeightsUnavailableError, match=rf"^pipeline\.lora={style}: .*{said}"):
            check_weights([trial(pipeline=replace(TINY, lora=str(style)))])


def test_without_peft_the_extra_is_named(style: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zbench.engines.lora.find_spec", lambda _: None)
    with pytest.raises(WeightsUnavailableError, match=r"pip install 'zbench\[lora\]'"):
        resolve_weights(replace(TINY, lora=str(style)))


def test_how_a_lora_is_used_says_nothing_without_one() -> None:
    made = planned(
        "pipeline.lora=null,/style.safetensors", "pipeline.lora_fused=true,false", "pipeline.lora_scale=0.5,1"
    )
    labels = [p.trial.label for p in made.trials]
    assert sorted(labels) == sorted(
        ["none", "none lora:fused", "none lora:unfused", "none lora:fused×0.5", "none lora:unfused×0.5"]
    )
    for typed in ("pipeline.lora_scale=0.5", "pipeline.lora_fused=false"):
        with pytest.raises(ConfigError, match=rf"{typed}: there is no LoRA for it"):
            planned(typed)
