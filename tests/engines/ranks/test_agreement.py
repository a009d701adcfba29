"""Which differences between ranks are rounding, and which are another image."""

import base64
from dataclasses import replace

import numpy as np
import pytest

from zbench.engines.reference.ranks.agreement import disagreement
from zbench.engines.reference.ranks.part import SAMPLES, RankPart, _sampled

LATENTS = np.random.default_rng(0).standard_normal((16, 32, 32)).astype(np.float32)
NOISE = np.random.default_rng(1).standard_normal(LATENTS.shape).astype(np.float32)


def part(latents: "np.ndarray[tuple[int, ...], np.dtype[np.float32]] | None" = LATENTS, **changes: object) -> RankPart:
    made = RankPart(
        began_s=0.0,
        ended_s=1.0,
        latency_s=1.0,
        stages_s={},
        steps_s=[0.1],
        cached_steps=[2],
        text_tokens=[7],
        latents=None if latents is None else _sampled(latents),
        images=1,
        device="cpu",
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def half_of_another() -> "np.ndarray[tuple[int, ...], np.dtype[np.float32]]":
    """As a rank leaves it that did not get one of two shards."""
    wrong = LATENTS.copy()
    wrong[:, 16:] = NOISE[:, 16:]
    return wrong


@pytest.mark.parametrize(
    ("dtype", "share", "agrees"),
    [("float32", 1e-4, True), ("float32", 1e-2, False), ("bfloat16", 0.03, True), ("bfloat16", 0.3, False)],
)
def test_rounding_passes_and_more_does_not(dtype: str, share: float, agrees: bool) -> None:
    found = disagreement([part(), part(LATENTS + share * NOISE)], 2, dtype)
    assert (found is None) == agrees
    assert found is None or (found[0] == 1 and found[1].startswith("disagrees with rank 0: latents are "))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_wrong_shard_never_passes(dtype: str) -> None:
    assert disagreement([part(), part(half_of_another())], 2, dtype) is not None


def test_ranks_are_held_to_their_own_replica() -> None:
    other = part(NOISE, cached_steps=[3], text_tokens=[9])
    assert disagreement([part(), part(), other, other], 2, "float32") is None
    assert disagreement([part(), part(), other, part()], 2, "float32") == (
        3,
        "disagrees with rank 2: cached steps [2] and [3]",
    )


def test_not_a_number_is_agreed_on_by_place() -> None:
    spoilt = LATENTS.copy()
    spoilt[0, 0, 0] = np.nan
    assert disagreement([part(spoilt), part(spoilt)], 2, "float32") is None
    assert disagreement([part(), part(spoilt)], 2, "float32") is not None
    assert disagreement([part(), part(None)], 2, "float32") is not None
    assert disagreement([part(None), part(None)], 2, "float32") is None


@pytest.mark.parametrize("size", [1, 5, SAMPLES, SAMPLES + 1, 10 * SAMPLES + 3])
def test_a_sample_is_of_the_whole_and_no_larger_than_it_may_be(size: int) -> None:
    numbers = np.arange(size, dtype=np.float32)
    sample = np.frombuffer(base64.b64decode(_sampled(numbers)), np.float32)
    assert 0 < sample.size <= SAMPLES and sample[0] == 0 and sample[-1] >= size * 0.9 - 1
