"""Whether the ranks that make one image together made the same one; it compares them and judges none.

Every rank of a replica runs the same schedule on the same latents, so cached steps and prompt tokens are equal. Latents
may differ by rounding, as bf16 rounds work that ranks do twice; what a wrong shard leaves is far above that.
"""

from collections.abc import Sequence

import numpy as np

from zbench.engines.reference.ranks.part import RankPart

TOLERANCE = {"float32": 1e-3}
"""Largest root mean square difference of two ranks' latents, as a share of the latents' own, by dtype."""

TOLERANCE_OF_OTHERS = 0.1
"""Of bf16 and narrower dtypes, whose rounding alone moves final latents by a few percent."""


def disagreement(parts: Sequence[RankPart], ranks_each: int, dtype: str) -> tuple[int, str] | None:
    """The first rank that differs from the first of its replica and what differs, or None.

    `parts` are by rank, `ranks_each` is how many of them make one image.
    """
    for rank, part in enumerate(parts):
        first = rank - rank % ranks_each
        what = _differs(part, parts[first], dtype)
        if what is not None:
            return rank, f"disagrees with rank {first}: {what}"
    return None


def _differs(ours: RankPart, theirs: RankPart, dtype: str) -> str | None:
    if ours.cached_steps != theirs.cached_steps:
        return f"cached steps {ours.cached_steps} and {theirs.cached_steps}"
    if ours.text_tokens != theirs.text_tokens:
        return f"prompt tokens {ours.text_tokens} and {theirs.text_tokens}"
    a, b = ours.sample(), theirs.sample()
    if a is None or b is None:
        return None if a is b else "one of them hides its latents"
    if a.shape != b.shape:
        return f"latents of {a.size} and {b.size} sampled numbers"
    finite = np.isfinite(a)
    if not np.array_equal(finite, np.isfinite(b)):
        return "latents are not finite in other places"
    tolerance = TOLERANCE.get(dtype, TOLERANCE_OF_OTHERS)
    apart, size = (_rms(values[finite]) for values in (a - b, b))
    if apart <= tolerance * size:
        return None
    return f"latents are {apart:.3g} apart (root mean square), of {size:.3g}; {dtype} allows {tolerance:g} of that"


def _rms(values: "np.ndarray[tuple[int, ...], np.dtype[np.float32]]") -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64)))) if values.size else 0.0
