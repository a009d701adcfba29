"""The search over step masks, on surfaces whose answer can be worked out mask by mask."""

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from factories import GRID, SCENES, TINY, complete, trial
from surfaced import searched
from surfaces import SURFACES, Surface, surface

from zbench.analysis.holdout import held_out_masks, mask_of
from zbench.analysis.view import view_of
from zbench.analysis.work import work_key
from zbench.config import ComputeConfig, CustomCacheConfig, DBCacheConfig, SCMConfig, SearchConfig
from zbench.errors import ConfigError
from zbench.record import Record
from zbench.search import OnlyQuality, load_search, waits_itself
from zbench.search.grid import GridSearch
from zbench.search.masks.search import MaskSearch, points_of
from zbench.space import Space, arrange
from zbench.stats.fronts import nondominated
from zbench.trial import Trial

STEPS = 6
HELD_OUT_FOR = [
    tuple(trial(pipeline=replace(TINY, steps=STEPS), workload=replace(SCENES, seeds=[seed])) for seed in seeds)
    for seeds in ((1, 0), (8, 7))
]
"""What skips nothing on samples held out, and on those that masks are chosen on."""


def config(n_trials: int | None = 256, seed: int = 0, **options: Any) -> SearchConfig:
    target = "zbench.search.masks.search:MaskSearch"
    return SearchConfig(name="masks", target=target, n_trials=n_trials, seed=seed, options=options)


def space(*trials: Trial, steps: int = STEPS) -> Space:
    return arrange([replace(t, pipeline=replace(t.pipeline, steps=steps)) for t in trials or (trial(),)])


def asked(search: MaskSearch, on: Surface) -> list[Record]:
    return [record for record, _ in searched(search, on)]


def masks_of(records: list[Record], seeds: list[int] = SCENES.seeds) -> list[str]:
    found = [(mask_of(r.trial), r.trial.workload.seeds) for r in records]
    return [mask for mask, of in found if mask is not None and of == seeds]


def by_brute_force(on: Surface) -> dict[str, tuple[float, ...]]:
    """Points of all masks, from the surface itself."""
    points = {}
    for rest in product("01", repeat=STEPS - 1):
        mask = "1" + "".join(rest)
        skipped = [step for step, digit in enumerate(mask) if digit == "0"]
        of = trial(SCMConfig(steps_mask=mask, scm_policy="static"), pipeline=replace(TINY, steps=STEPS))
        samples = [(p.text, 0) for p in SCENES.prompts]
        likeness = [on.ssim(of, sample, skipped) for sample in samples]
        shares = [on.share_right(of, sample, skipped) for sample in samples]
        points[mask] = (len(skipped), min(likeness), sum(likeness) / 2, sum(shares) / 2)
    return points


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", SURFACES)
def test_the_masks_that_are_timed_are_those_of_the_exact_front(name: str, seed: int) -> None:
    """One for each number of computed steps on the front: the one whose worst image is most alike."""
    on = surface(name, seed)
    points = by_brute_force(on)
    best: dict[int, str] = {}
    for mask in (list(points)[i] for i in nondominated(list(points.values()))):
        computed = mask.count("1")
        best[computed] = max(best.get(computed, mask), mask, key=lambda each: points[each])
    records = asked(MaskSearch(space(), config()), on)
    times = masks_of(records)
    timed = {mask for mask in times if times.count(mask) == 2} | {"1" * STEPS}
    assert timed == set(best.values())


def test_every_mask_is_asked_for_once_then_the_front_is_timed_then_held_out() -> None:
    search = MaskSearch(space(), config())
    records = asked(search, surface("smooth"))
    first = records[: 2 ** (STEPS - 1)]
    assert search.waits_itself and not waits_itself(GridSearch(space(), GRID))
    assert records[0].is_reference and len(set(masks_of(first))) == 2 ** (STEPS - 1)
    rest = records[len(first) :]
    timed, held_out = ([r for r in rest if r.trial.workload.seeds == seeds] for seeds in (SCENES.seeds, [1]))
    assert rest == [*timed, *held_out] and len(timed) == STEPS - 1
    assert held_out[0].is_reference, "the samples held out have a reference of their own"
    assert masks_of(held_out, [1]) == ["1" * STEPS, *masks_of(timed)]


def test_only_the_quality_of_masks_is_asked_for_until_they_are_timed() -> None:
    search = MaskSearch(space(), config())
    wanted = [search.ask() for _ in range(2 ** (STEPS - 1))]
    assert all(isinstance(each, OnlyQuality) for each in wanted)
    assert search.ask() is None, "it waits for what it asked for"


def test_the_plan_knows_the_masks_and_that_their_images_alone_are_wanted() -> None:
    foreseen = MaskSearch(space(), config()).space
    assert len(foreseen.asked) == 2 ** (STEPS - 1)
    assert sum(placed.quality_only for placed in foreseen.placed) == 2 ** (STEPS - 1) - 1
    assert {tuple(p.trial.workload.seeds) for p in foreseen.placed if p.is_reference} == {(0,), (1,)}


def test_what_a_setting_skips_itself_is_no_part_of_it_and_its_blocks_are() -> None:
    trials = [
        trial(),
        trial(SCMConfig(scm_preset="fast")),
        trial(DBCacheConfig()),
        trial(DBCacheConfig(Bn_compute_blocks=1)),
    ]
    foreseen = MaskSearch(space(*trials), config()).space
    assert len(foreseen.asked) == 1 + 2 * (2 ** (STEPS - 1) - 1), "F1B0 and F1B1, and what skips nothing once"
    records = asked(MaskSearch(space(*trials), config()), surface("smooth"))
    assert {r.trial.cache.Bn_compute_blocks for r in records if isinstance(r.trial.cache, SCMConfig)} == {0, 1}


def test_told_the_same_again_it_asks_for_the_same() -> None:
    """So a sweep that was killed goes on: what is in the journal is told as if it had just been measured."""
    for changes in ({}, {"method": "random"}, {"method": "greedy"}):
        runs = [asked(MaskSearch(space(steps=11), config(40, 3, **changes)), surface("rugged")) for _ in range(2)]
        assert [r.trial_id for r in runs[0]] == [r.trial_id for r in runs[1]]


@pytest.mark.parametrize("method", ["auto", "greedy", "random"])
def test_of_more_steps_so_many_masks_are_tried_as_are_asked_for(method: str) -> None:
    records = asked(MaskSearch(space(steps=14), config(50, method=method)), surface("smooth"))
    assert len(set(masks_of(records))) == 51, "and the setting without a mask"


def test_prompts_of_a_file_can_be_held_out(tmp_path: Path) -> None:
    (tmp_path / "others.txt").write_text("a house\na tree\na dog\n")
    options = {"holdout_prompts": str(tmp_path / "others.txt"), "timed": 2}
    records = asked(MaskSearch(space(), config(**options)), surface("smooth"))
    held_out = [r for r in records if len(r.trial.workload.prompts) == 3]
    assert len(held_out) == 3 and {tuple(r.trial.workload.seeds) for r in held_out} == {(0,)}


def test_nothing_is_held_out_where_there_are_no_seeds_for_it() -> None:
    records = asked(MaskSearch(space(), config(holdout_seeds=[], timed=1)), surface("smooth"))
    assert {tuple(r.trial.workload.seeds) for r in records} == {(0,)}


def test_samples_held_out_are_part_of_the_work_that_masks_are_chosen_for() -> None:
    others = replace(SCENES, seeds=[7])
    search = MaskSearch(space(trial(), trial(workload=others)), config())
    assert [(work_key(of), work_key(on)) for of, on in HELD_OUT_FOR] == list(search.parts.items())
    typed = MaskSearch(space(trial(), trial(workload=replace(SCENES, seeds=[1]))), config())
    samples, work = (work_key(of) for of in HELD_OUT_FOR[0])
    assert samples not in typed.parts, "what was typed is work of its own"
    assert typed.held_out_for == {samples: [work]} and search.held_out_for == {}


def test_what_masks_do_on_samples_that_were_typed_too_counts_for_the_work_that_they_are_held_out_of() -> None:
    search = MaskSearch(space(trial(), trial(workload=replace(SCENES, seeds=[1]))), config(timed=2))
    records = asked(search, surface("smooth"))
    second, first = (work_key(of) for of in HELD_OUT_FOR[0])
    told = {work_key(r.trial): (r.part_of, r.held_out_for) for r in records}
    assert told[second] == (None, (first,)) and told[first] == (None, ())
    assert {r.part_of for r in records} == {None, second}, "what is held out of the second nobody typed"
    assert {each.samples for each in held_out_masks(view_of(records))} == {(2, 2)}


@pytest.mark.parametrize(
    ("prompts", "options", "key"),
    [
        (None, {"holdout_seeds": [5, 5]}, r"search\.options\.holdout_seeds=\[5, 5\]: .*every seed must be unique"),
        ('{"prompt": "a cat", "negative_prompt": "a dog"}\n', {}, r"search\.options\.holdout_prompts=.*guidance"),
        ('{"prompt": "a cat", "scene": "nonsense"}\n', {}, r"search\.options\.holdout_prompts=.*scene"),
    ],
)
def test_samples_held_out_are_held_to_what_every_workload_is(
    prompts: str | None, options: dict[str, Any], key: str, tmp_path: Path
) -> None:
    if prompts is not None:
        (tmp_path / "others.jsonl").write_text(prompts)
        options = {"holdout_prompts": str(tmp_path / "others.jsonl")}
    with pytest.raises(ConfigError, match=key):
        load_search(config(**options), space())


def test_prompt_fidelity_and_clip_score_are_of_the_front_where_every_mask_has_them() -> None:
    """A mask that is less alike and shows more of what was asked for stays on it."""
    rows = {
        mask: replace(view_of([complete(trial(), ssim=ssim)]).trials[0], is_reference=False, **further)
        for mask, ssim, further in (
            ("1010", 0.9, {"prompt_fidelity_mean": 0.5, "clip_mean": 20.0}),
            ("1001", 0.8, {"prompt_fidelity_mean": 0.9, "clip_mean": 20.0}),
            ("1100", 0.7, {"prompt_fidelity_mean": 0.5, "clip_mean": 30.0}),
        )
    }
    points = points_of(rows)
    assert [len(point) for point in points.values()] == [5, 5, 5] and len(nondominated(list(points.values()))) == 3
    without = points_of({**rows, "1100": replace(rows["1100"], clip_mean=None)})
    assert nondominated(list(without.values())) == [0, 1], "one lacks the score, so it decides nothing"


@pytest.mark.parametrize(
    ("found", "of", "key"),
    [
        (config(method="best"), trial(), "search.options"),
        (config(timed=0), trial(), "search.options"),
        (config(holdout_seeds=[0]), trial(), "search.options.holdout_seeds"),
        (config(holdout_prompts="others.pdf"), trial(), "search.options.holdout_prompts=others.pdf"),
        (config(8, method="exhaustive"), trial(), "search.options.method"),
        (config(), trial(CustomCacheConfig(method="mine", target="a:B")), "cache.method"),
        (config(), trial(pipeline=replace(TINY, weights="random")), "pipeline.weights"),
    ],
)
def test_what_cannot_be_is_one_error_that_names_the_key(found: SearchConfig, of: Trial, key: str) -> None:
    with pytest.raises(ConfigError, match=key.replace(".", r"\.")):
        load_search(found, space(of))


def test_a_compiled_setting_without_a_cache_is_judged_and_timed_too() -> None:
    records = asked(MaskSearch(space(trial(compute=ComputeConfig(compile=True))), config(timed=1)), surface("smooth"))
    full = [r for r in records if r.trial.compute.compile and mask_of(r.trial) == "1" * STEPS]
    assert [r.trial.workload.seeds for r in full] == [[0], [0], [1]]
