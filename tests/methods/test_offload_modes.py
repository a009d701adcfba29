"""What waits in host memory in each mode, what a mode needs, and what it is called."""

import pytest
from factories import TURBO, trial

from zbench.config import OFFLOAD_MODES, OffloadConfig
from zbench.emit import emit
from zbench.methods import offload
from zbench.search.tune.fit import in_order_of_moving
from zbench.space import constraint
from zbench.trial import Trial, geometry_of


def test_every_mode_of_the_schema_is_known_here() -> None:
    assert set(offload.BY_NAME) == set(OFFLOAD_MODES)


@pytest.mark.parametrize(
    ("mode", "waiting"),
    [
        ("none", ()),
        ("text_encoder", ("text_encoder",)),
        ("dit", ("transformer",)),
        ("vae", ("vae",)),
        *((mode, ("text_encoder", "transformer", "vae")) for mode in ("all", "group", "sequential")),
    ],
)
def test_what_waits(mode: str, waiting: tuple[str, ...]) -> None:
    assert offload.BY_NAME[mode].waiting == waiting


def test_the_order_in_which_they_are_tried() -> None:
    order = [mode.name for mode in offload.MOVING_MORE]
    assert order == ["none", "vae", "text_encoder", "dit", "all", "group", "sequential"]
    assert [mode.name for mode in offload.moving_more_than("dit")] == ["all", "group", "sequential"]
    assert offload.moving_more_than("sequential") == ()


def test_in_two_modes_the_text_encoder_comes_by_layers_and_nothing_else_does() -> None:
    assert [mode.name for mode in offload.MOVING_MORE if mode.streams_text] == ["text_encoder", "all"]


def test_labels_say_what_is_not_pinned_and_nothing_where_nothing_waits() -> None:
    assert offload.label(OffloadConfig()) is None
    assert offload.label(OffloadConfig(mode="dit")) == "offload:dit"
    assert offload.label(OffloadConfig(mode="all", pin_memory=False)) == "offload:all unpinned"
    assert offload.label(OffloadConfig(mode="text_encoder", keep_layers=4)) == "offload:text_encoder keep4"


@pytest.mark.parametrize("mode", OFFLOAD_MODES)
def test_layers_are_kept_where_they_come_one_by_one_and_nowhere_else(mode: str) -> None:
    kept = trial(offload=OffloadConfig(mode=mode, keep_layers=1))
    said = offload.problem(kept.offload, compiled={})
    if mode in ("text_encoder", "all"):
        assert said is None
    else:
        assert said is not None and said.startswith("offload.keep_layers=1: only with offload=text_encoder or all do")


def test_more_layers_than_the_text_encoder_has_cannot_be_kept() -> None:
    def why(kept: int) -> str | None:
        of = trial(pipeline=TURBO, offload=OffloadConfig(mode="text_encoder", keep_layers=kept))
        return constraint(of, geometry_of(of.pipeline))

    assert why(36) is None
    assert why(37) == "offload.keep_layers=37: the text encoder has 36 layers, so 36 keep all of them"


def test_kept_layers_are_a_trial_of_their_own_and_none_leave_no_trace() -> None:
    none, four = (trial(offload=OffloadConfig(mode="all", keep_layers=kept)) for kept in (0, 4))
    assert none.trial_id != four.trial_id and "keep_layers" not in none.to_dict()["offload"]
    for each in (none, four):
        assert Trial.from_dict(each.to_dict()) == each


def test_what_moves_less_is_tried_first_and_another_mode_keeps_nothing() -> None:
    plain, kept, larger = (OffloadConfig(mode=mode, keep_layers=n) for mode, n in [("all", 0), ("all", 9), ("dit", 0)])
    assert in_order_of_moving([plain, kept, larger]) == (larger, kept, plain)
    assert [mode.name for mode in offload.moving_more_in(kept)] == ["all", "group", "sequential"]
    assert [mode.name for mode in offload.moving_more_in(plain)] == ["group", "sequential"]
    assert offload.in_mode(kept, "all") == plain and offload.in_mode(kept, "dit") == larger


@pytest.mark.parametrize("tool", ["sglang", "diffusers", "cache-dit"])
def test_other_tools_are_said_to_keep_no_layers(tool: str) -> None:
    kept = trial(pipeline=TURBO, offload=OffloadConfig(mode="text_encoder", keep_layers=4))
    assert any("offload.keep_layers=4" in note for note in emit(kept, tool).notes)


def test_layers_that_are_swapped_cannot_be_compiled() -> None:
    assert [m.name for m in offload.MOVING_MORE if not m.can_be_compiled] == ["group", "sequential"]
    for mode in OFFLOAD_MODES:
        said = offload.problem(OffloadConfig(mode=mode), compiled={"compile": "true"})
        assert (said is not None and "what compute.compile=true would compile whole; leave that out" in said) == (
            mode in ("group", "sequential")
        )
        assert offload.problem(OffloadConfig(mode=mode), compiled={}) is None


def test_a_stream_copies_from_pinned_memory_alone() -> None:
    unpinned = OffloadConfig(mode="group", pin_memory=False)
    assert "offload.use_stream=false" in str(offload.problem(unpinned, compiled={}))
    assert offload.problem(OffloadConfig(mode="group", pin_memory=False, use_stream=False), compiled={}) is None
    assert offload.problem(OffloadConfig(mode="all", pin_memory=False), compiled={}) is None


def test_one_mode_alone_needs_an_accelerator() -> None:
    refused = [mode for mode in OFFLOAD_MODES if offload.problem_on_a_cpu(OffloadConfig(mode=mode)) is not None]
    assert refused == ["sequential"]


def test_groups_overlap_with_a_stream_and_copy_back_without() -> None:
    streamed, plain = OffloadConfig(mode="group"), OffloadConfig(mode="group", use_stream=False)
    assert (offload.overlaps(streamed), offload.copies_back(streamed)) == (True, False)
    assert (offload.overlaps(plain), offload.copies_back(plain)) == (False, True)
    assert not offload.overlaps(OffloadConfig(mode="all")) and not offload.copies_back(OffloadConfig(mode="sequential"))


def test_sglang_is_told_every_switch() -> None:
    part = offload.sglang_part(OffloadConfig(mode="all", pin_memory=False))
    assert part.flags == (
        *("--dit-cpu-offload", "true", "--dit-layerwise-offload", "false"),
        *("--text-encoder-cpu-offload", "true", "--image-encoder-cpu-offload", "true"),
        *("--vae-cpu-offload", "true", "--pin-cpu-memory", "false"),
    )
    assert part.notes == ()
    assert "offload.mode=group has no exact counterpart" in offload.sglang_part(OffloadConfig(mode="group")).notes[0]
