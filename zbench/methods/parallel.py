"""Parallel degrees: how many devices they take, whether they can work, and what each device then sends.

A further degree is one field of `ParallelDims`: its key in the config, its sign in labels, and what it splits.
"""

import math
from dataclasses import dataclass, field, fields
from typing import Any

from zbench.config import ParallelConfig
from zbench.methods.sglang import SGLangPart

LOG_SUM_EXP_BACKENDS = ("_native_flash", "_native_cudnn", "_native_efficient", "flash", "_flash_3", "sage")
"""Attention backends (diffusers' names) that return the log-sum-exp, which ring attention merges with."""

KEY, SIGN, SPLITS_HEADS, SPLITS_SEQUENCE = "key", "sign", "splits_heads", "splits_sequence"


def _degree(key: str, sign: str, *, splits_heads: bool = False, splits_sequence: bool = False) -> Any:
    """A degree: its key in ParallelConfig, its sign in labels, and what of a block's work it splits."""
    told = {KEY: key, SIGN: sign, SPLITS_HEADS: splits_heads, SPLITS_SEQUENCE: splits_sequence}
    return field(default=1, metadata=told)


@dataclass(frozen=True)
class ParallelDims:
    """Degrees of sharding, each 1 or more.

    Ranks are numbered with the last of these running fastest: dp, cfg, gather, ring, ulysses, tp.
    """

    dp: int = _degree("dp_size", "dp")
    cfg: int = _degree("cfg_size", "cfg")
    tp: int = _degree("tp_size", "tp", splits_heads=True)
    ulysses: int = _degree("ulysses_size", "u", splits_heads=True, splits_sequence=True)
    ring: int = _degree("ring_size", "r", splits_sequence=True)
    gather: int = _degree("gather_size", "g", splits_sequence=True)

    @classmethod
    def of(cls, parallel: ParallelConfig) -> "ParallelDims":
        """The degrees of a config."""
        return cls(**{item.name: getattr(parallel, item.metadata[KEY]) for item in fields(cls)})

    @property
    def devices(self) -> int:
        """Devices that one generation uses."""
        return math.prod(getattr(self, item.name) for item in fields(self))

    @property
    def ranks(self) -> int:
        """Devices that make one image together."""
        return self.devices // self.dp

    @property
    def sequence(self) -> int:
        """Devices that the tokens of a sequence are spread over."""
        return math.prod(getattr(self, item.name) for item in fields(self) if item.metadata[SPLITS_SEQUENCE])

    @property
    def labels(self) -> tuple[str, ...]:
        """What a trial's label says of them, such as `u2` and `r2`; nothing of a degree of 1."""
        degrees = ((item.metadata[SIGN], getattr(self, item.name)) for item in fields(self))
        return tuple(f"{sign}{degree}" for sign, degree in degrees if degree > 1)

    def problem(self, n_heads: int, attention_backend: str) -> str | None:
        """Why these degrees cannot work with a transformer of `n_heads` heads, or None."""
        for item in fields(self):
            degree = getattr(self, item.name)
            if item.metadata[SPLITS_HEADS] and n_heads % degree:
                return f"parallel.{item.metadata[KEY]}={degree}: {n_heads} heads are not divisible by {degree}"
        if self.ring > 1 and attention_backend not in LOG_SUM_EXP_BACKENDS:
            return (
                f"parallel.ring_size={self.ring}: ring needs an attention backend that returns the log-sum-exp, "
                f"such as compute.attention_backend={LOG_SUM_EXP_BACKENDS[0]}"
            )
        return None

    @property
    def sent_share(self) -> float:
        """What one device sends in a block, as a multiple of the block's whole hidden state.

        With s = ulysses x ring devices over the sequence and tp over the heads it is the sum of
        - tensor parallelism: two all-reduces, each 2(tp-1)/tp (ring algorithm, Patarasu and Yuan 2009), over 1/s;
        - Ulysses: four all-to-alls (q, k, v and the output), each (u-1)/u, over 1/(s tp) (Jacobs et al. 2023);
        - ring: keys and values r-1 times, over 1/(s tp) (Liu et al. 2023), counted as not hidden behind arithmetic.
        """
        tp, ulysses, ring = self.tp, self.ulysses, self.ring
        sequence = ulysses * ring
        all_reduce = 2 * 2 * (tp - 1) / tp / sequence
        all_to_all = 4 * (ulysses - 1) / ulysses / (sequence * tp)
        key_value = 2 * (ring - 1) / (sequence * tp)
        return all_reduce + all_to_all + key_value

    def sglang_part(self) -> SGLangPart:
        """Every degree is said, and with ring the one backend that SGLang rings with."""
        flags = ["--num-gpus", str(self.devices), "--tp-size", str(self.tp)]
        flags += ["--sp-degree", str(self.sequence)]
        flags += ["--ulysses-degree", str(self.ulysses), "--ring-degree", str(self.ring)]
        flags += ["--attention-backend", "fa"] if self.ring > 1 else []
        return SGLangPart(flags=tuple(flags))
