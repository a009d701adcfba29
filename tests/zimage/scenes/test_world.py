"""Scenes as text and their splits."""

import itertools
from random import Random

import pytest

from zbench.zimage.scenes.captions import LANGUAGES, Language, caption
from zbench.zimage.scenes.world import (
    COLOURS,
    PLACES,
    SHAPES,
    SIZES,
    Scene,
    SceneError,
    Split,
    Thing,
    parse_scene,
    sample_scene,
)

SPLITS: tuple[Split, ...] = ("train", "validation", "test")


def sampled(split: Split, count: int = 300) -> list[Scene]:
    random = Random(1)
    return [sample_scene(random, split) for _ in range(count)]


def things(scenes: list[Scene]) -> set[Thing]:
    return {t for s in scenes for t in s.things}


def test_a_scene_reads_as_it_was_written() -> None:
    for split in SPLITS:
        for scene in sampled(split):
            assert parse_scene(str(scene)) == scene
    assert str(parse_scene("large red circle top-left; on white; word CAT2")) == (
        "large red circle top-left; on white; word CAT2"
    )


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("large red circle top-left", "on BACKGROUND"),
        ("large crimson circle top-left; on white", "crimson"),
        ("large red circle somewhere; on white", "somewhere"),
        ("large red circle left; on mauve", "mauve"),
        ("large red circle left; on white; word O0", "O0"),
        ("large red circle left; on white; word ABCDE", "ABCDE"),
        ("a red circle; on white", "a red circle"),
        ("on white", "1 to 3 things"),
        ("large red circle left; small blue star left; on white", "different places"),
    ],
)
def test_what_is_no_scene_is_named(text: str, named: str) -> None:
    with pytest.raises(SceneError, match=named):
        parse_scene(text)


def test_test_scenes_hold_a_combination_never_seen_in_training() -> None:
    seen = things(sampled("train", 2000))
    for split in ("validation", "test"):
        for scene in sampled(split):
            assert any(t not in seen for t in scene.things)


def test_splits_share_no_scene_and_each_has_combinations() -> None:
    every = [Thing(*parts) for parts in itertools.product(SIZES, COLOURS, SHAPES, PLACES)]
    counts = {split: sum(t.split == split for t in every) for split in SPLITS}
    assert counts == {"train": 717, "validation": 45, "test": 102}, "the shipped model card says so"
    assert {s for s in sampled("train")} & {s for s in sampled("test")} == set()
    # training knows every size, colour and shape together, so that only their place is new
    trained = [thing for thing in every if thing.split == "train"]
    assert {(t.size, t.colour, t.shape) for t in trained} == set(itertools.product(SIZES, COLOURS, SHAPES))


@pytest.mark.parametrize("language", LANGUAGES)
def test_captions_differ_for_different_scenes_and_vary_for_one(language: Language) -> None:
    scenes = list(dict.fromkeys(sampled("train", 500)))
    owner: dict[str, frozenset[str]] = {}
    for i, scene in enumerate(scenes):
        text = caption(scene, language, Random(i))
        parts = frozenset(str(scene).split("; "))
        assert owner.setdefault(text, parts) == parts, "one caption for two scenes"
    scene = parse_scene("large red circle left; small blue star top; on white; word CAT")
    assert len({caption(scene, language, Random(i)) for i in range(50)}) > 20


@pytest.mark.parametrize("language", LANGUAGES)
def test_captions_of_the_splits_do_not_overlap(language: Language) -> None:
    random = Random(5)
    by_split = [{caption(s, language, random) for s in sampled(split)} for split in SPLITS]
    assert not (by_split[0] & by_split[1] or by_split[0] & by_split[2] or by_split[1] & by_split[2])


def test_places_are_nine() -> None:
    assert len(PLACES) == 9 and PLACES["center"] == (128.0, 104.0)
