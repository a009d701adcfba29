"""Parallel degrees: devices, shares, labels, and what is sent."""

from dataclasses import fields

import pytest

from zbench.config import ParallelConfig
from zbench.methods.parallel import (
    KEY,
    ParallelDims,
    all_have_tokens,
    even_shares,
    every_split,
    labels,
    share,
    whole_share,
)

OPTIONS = {"gather_by", "ulysses_anything", "ulysses_async", "ring_rotate_method", "vae", "text_encoder"}


def test_every_degree_of_the_schema_is_one_here() -> None:
    known = {item.metadata[KEY] for item in fields(ParallelDims)}
    assert known == {item.name for item in fields(ParallelConfig)} - {"grid"} - OPTIONS


def test_devices_are_the_product_and_the_sequence_is_that_of_its_degrees() -> None:
    dims = ParallelDims.of(ParallelConfig(tp_size=2, ulysses_size=3, ring_size=5, cfg_size=2, dp_size=7))
    assert (dims.tp, dims.ulysses, dims.ring, dims.cfg, dims.dp) == (2, 3, 5, 2, 7)
    assert (dims.devices, dims.ranks, dims.sequence) == (420, 60, 15)
    assert ParallelDims(ulysses=2, gather=3).sequence == 6
    assert dims.labels == ("dp7", "cfg2", "tp2", "u3", "r5") and ParallelDims(gather=2).labels == ("g2",)
    assert ParallelDims().labels == () and ParallelDims().devices == 1


def test_shares_differ_by_a_row_at_most() -> None:
    assert even_shares(128, 2) == [64, 64]
    assert even_shares(11, 4) == [3, 3, 3, 2]


def test_shares_are_whole_but_the_last() -> None:
    assert [whole_share(32, 5, index) for index in range(5)] == [(0, 7), (7, 14), (14, 21), (21, 28), (28, 32)]
    assert [whole_share(9, 4, index) for index in (2, 3)] == [(6, 9), (9, 9)]
    assert [share(32, n) for n in (1, 3, 5, 32)] == [32, 11, 7, 1]
    assert [n for n in range(1, 17) if all_have_tokens(32, n)] == [1, 2, 3, 4, 5, 6, 7, 8, 11, 16]
    assert ParallelDims(gather=3).token_share(32) == 11 / 32
    assert ParallelDims(gather=3).attention_share(4160, 30) == 1387 / 4160
    assert ParallelDims(ulysses=4).attention_share(4160, 30) == 8 / 30  # 8, 8, 8 and 6 heads
    assert ParallelDims(tp=2, ulysses=2).attention_share(4160, 30) == 8 / 30
    assert ParallelDims(cfg=2).samples(2) == 1 and ParallelDims().samples(2) == 2


@pytest.mark.parametrize(
    ("dims", "sent"),
    [
        (ParallelDims(), 0.0),
        (ParallelDims(tp=2), 2.0),  # two all-reduces, each 2 (p-1)/p
        (ParallelDims(ulysses=2), 1.0),  # four all-to-alls of half, of which half stays
        (ParallelDims(ring=2), 1.0),  # keys and values of half, once
        (ParallelDims(ring=4), 1.5),  # of a quarter, three times
        (ParallelDims(ulysses=2, ring=2), 1.0),  # 4 · 1/2 / 4 and 2 · 1 / 4
        (ParallelDims(gather=2), 1.0),  # keys and values of half, to one other
        (ParallelDims(gather=4), 1.5),  # of a quarter, to three others
        (ParallelDims(ulysses=2, gather=2), 1.0),  # half of the heads of half of the tokens, to one other
        (ParallelDims(tp=2, gather=2), 1.5),  # all-reduces of half, keys and values of half of the heads
        (ParallelDims(dp=8, cfg=2), 0.0),  # replicas and passes of guidance exchange nothing in a block
    ],
)
def test_what_a_block_sends_is_that_of_the_algorithms(dims: ParallelDims, sent: float) -> None:
    """In hidden states of one unsharded block."""
    assert dims.sent_share == pytest.approx(sent)


def test_a_pass_of_guidance_is_sent_once_a_forward() -> None:
    assert ParallelDims(cfg=2).output_share == 0.5 and ParallelDims(tp=4).output_share == 0


def test_no_two_settings_share_a_label() -> None:
    settings = [
        ParallelConfig(),
        *(ParallelConfig(**{f"{key}_size": 2}) for key in ("dp", "cfg", "tp", "ulysses", "ring", "gather")),
        ParallelConfig(ulysses_size=2, ulysses_anything=True),
        ParallelConfig(ulysses_size=2, ulysses_async=True),
        ParallelConfig(ring_size=2, ring_rotate_method="allgather"),
        ParallelConfig(gather_size=2, vae="split"),
        ParallelConfig(gather_size=2, vae="tiled"),
        ParallelConfig(gather_size=2, text_encoder="tp"),
    ]
    assert len({labels(setting) for setting in settings}) == len(settings)
    both = ParallelConfig(ulysses_size=3, ulysses_anything=True, ulysses_async=True, vae="split")
    assert labels(both) == ("u3", "uaa", "async", "vae:split") and labels(ParallelConfig()) == ()


def test_every_split_of_four_devices_is_there_once() -> None:
    points = every_split(4)
    dims = [ParallelDims.of(ParallelConfig(**point)) for point in points]
    assert len(set(dims)) == len(dims) == 1 + 6 + 21  # six degrees: 2 in one place; 4 in one or 2 in two
    assert [d.devices for d in dims] == sorted(d.devices for d in dims) and {d.devices for d in dims} == {1, 2, 4}
    assert ParallelDims(ring=2, gather=2) in dims, "what cannot work is left to the rules"
    assert ParallelConfig(**points[0]) == ParallelConfig(), "one device is the baseline itself"
    assert {(d.ranks > 1, point["vae"]) for d, point in zip(dims, points, strict=True)} == {
        (False, "whole"),
        (True, "split"),
    }


def test_three_devices_are_one_or_three() -> None:
    assert {ParallelDims.of(ParallelConfig(**point)).devices for point in every_split(3)} == {1, 3}
    assert every_split(1) == ({**dict.fromkeys([f"{k}_size" for k in ORDER], 1), "vae": "whole"},)


ORDER = ("dp", "cfg", "tp", "ulysses", "ring", "gather")
