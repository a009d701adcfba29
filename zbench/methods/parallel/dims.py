"""The degrees themselves: devices, what each splits, shares of tokens and heads, and what is sent."""

import math
from dataclasses import dataclass, field, fields
from typing import Any

from zbench.config import ParallelConfig

KEY, SIGN, SPLITS_HEADS, SPLITS_SEQUENCE = "key", "sign", "splits_heads", "splits_sequence"


def share(items: int, devices: int) -> int:
    """The largest part of `items` tokens, heads or rows that one of so many devices has."""
    return -(-items // devices)


def whole_share(tokens: int, devices: int, index: int) -> tuple[int, int]:
    """Where device `index`'s share begins and ends: a whole one, but for the last devices, which have what is left."""
    each = share(tokens, devices)
    return min(index * each, tokens), min((index + 1) * each, tokens)


def all_have_tokens(tokens: int, devices: int) -> bool:
    """Whether each device has a token where shares are whole ones."""
    begin, end = whole_share(tokens, devices, devices - 1)
    return begin < end


def even_shares(rows: int, devices: int) -> list[int]:
    """Rows of each device, one after another from the top; they differ by one at most."""
    return [rows // devices + int(device < rows % devices) for device in range(devices)]


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
        """Devices that one call uses."""
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

    def named(self, *names: str) -> str:
        """Those of these degrees that are above 1, as keys and values: `parallel.tp_size=2 × parallel.ring_size=2`."""
        items = [item for item in fields(self) if item.name in names and getattr(self, item.name) > 1]
        return " × ".join(f"parallel.{item.metadata[KEY]}={getattr(self, item.name)}" for item in items)

    def samples(self, samples: int) -> int:
        """Of the samples of a forward, those that one device computes: a pass of guidance with cfg 2."""
        return share(samples, self.cfg)

    def token_share(self, tokens: int) -> float:
        """The largest part of a sequence that one device has between attentions, of 1."""
        return share(tokens, self.sequence) / tokens

    def attention_share(self, tokens: int, heads: int) -> float:
        """The largest part of an attention that one device computes, of 1: its queries over its heads.

        Ulysses trades tokens for heads, so that a device has the queries of its whole group for its own heads.
        """
        queries = share(tokens, self.ring * self.gather) / tokens
        return queries * share(share(heads, self.tp), self.ulysses) / heads

    @property
    def sent_share(self) -> float:
        """What one device sends in a block, as a multiple of the block's whole hidden state of its samples.

        With s = ulysses x ring x gather devices over the sequence and tp over the heads it is the sum of
        - tensor parallelism: two all-reduces, each 2(tp-1)/tp (ring algorithm, Patarasu and Yuan 2009), over 1/s;
        - Ulysses: four all-to-alls (q, k, v and the output), each (u-1)/u, over 1/(s tp) (Jacobs et al. 2023);
        - ring: keys and values r-1 times, over 1/(s tp) (Liu et al. 2023), counted as not hidden behind arithmetic;
        - gather: keys and values to g-1 others, over 1/(s tp): as many bytes as ring, in one collective.
        """
        tp, sequence = self.tp, self.sequence
        all_reduce = 2 * 2 * (tp - 1) / tp / sequence
        all_to_all = 4 * (self.ulysses - 1) / self.ulysses / (sequence * tp)
        key_value = 2 * (self.ring - 1 + self.gather - 1) / (sequence * tp)
        return all_reduce + all_to_all + key_value

    @property
    def output_share(self) -> float:
        """What one device sends once a forward, as a multiple of the forward's whole output: its pass of guidance."""
        return (self.cfg - 1) / self.cfg
