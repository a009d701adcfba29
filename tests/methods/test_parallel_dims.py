"""Parallel degrees: devices, legality, labels, and what is sent."""

from dataclasses import fields

import pytest

from zbench.config import ParallelConfig
from zbench.methods.parallel import KEY, LOG_SUM_EXP_BACKENDS, ParallelDims


def test_every_degree_of_the_schema_is_one_here() -> None:
    known = {item.metadata[KEY] for item in fields(ParallelDims)}
    assert known == {item.name for item in fields(ParallelConfig)} - {"grid"}


def test_devices_are_the_product_and_the_sequence_is_that_of_its_degrees() -> None:
    dims = ParallelDims.of(ParallelConfig(tp_size=2, ulysses_size=3, ring_size=5))
    assert (dims.tp, dims.ulysses, dims.ring) == (2, 3, 5)
    assert (dims.devices, dims.sequence) == (30, 15)
    assert dims.labels == ("tp2", "u3", "r5") and ParallelDims(ring=2).labels == ("r2",)
    assert ParallelDims().labels == () and ParallelDims().devices == 1


@pytest.mark.parametrize(("size", "works"), [(1, True), (2, True), (3, True), (4, False), (5, True), (8, False)])
def test_heads_must_be_divisible(size: int, works: bool) -> None:
    for key, dims in (("tp_size", ParallelDims(tp=size)), ("ulysses_size", ParallelDims(ulysses=size))):
        said = None if works else f"parallel.{key}={size}: 30 heads are not divisible by {size}"
        assert dims.problem(30, "native") == said


def test_ring_needs_the_log_sum_exp_and_no_divisible_heads() -> None:
    assert "compute.attention_backend=_native_flash" in str(ParallelDims(ring=4).problem(30, "native"))
    assert all(ParallelDims(ring=4).problem(30, backend) is None for backend in LOG_SUM_EXP_BACKENDS)
    assert ParallelDims().problem(30, "native") is None


@pytest.mark.parametrize(
    ("dims", "sent"),
    [
        (ParallelDims(), 0.0),
        (ParallelDims(tp=2), 2.0),  # two all-reduces, each 2 (p-1)/p
        (ParallelDims(ulysses=2), 1.0),  # four all-to-alls of half, of which half stays
        (ParallelDims(ring=2), 1.0),  # keys and values of half, once
        (ParallelDims(ring=4), 1.5),  # of a quarter, three times
        (ParallelDims(ulysses=2, ring=2), 1.0),  # 4 · 1/2 / 4 and 2 · 1 / 4
    ],
)
def test_what_a_block_sends_is_that_of_the_algorithms(dims: ParallelDims, sent: float) -> None:
    """In hidden states of one unsharded block."""
    assert dims.sent_share == pytest.approx(sent)


def test_sglang_is_told_every_degree() -> None:
    flags = ParallelDims(ulysses=2, ring=2).sglang_part().flags
    assert flags == (
        *("--num-gpus", "4", "--tp-size", "1", "--sp-degree", "4"),
        *("--ulysses-degree", "2", "--ring-degree", "2", "--attention-backend", "fa"),
    )
    assert "--attention-backend" not in ParallelDims(tp=2).sglang_part().flags
