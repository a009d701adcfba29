"""Parallel degrees: what they are called, whether they can work, what each device then holds and sends.

| file | says |
|---|---|
| `dims` | the degrees, their product, shares, and the bytes that a device sends |
| `words` | labels, and the same in SGLang's and cache-dit's words |
| `legality` | what cannot work on any engine |
| `stack` | what cannot work on diffusers, cache-dit and zbench's own gather |
| `every` | every combination of degrees for so many devices |

A further degree is one field of `ParallelDims`: its key in the config, its sign in labels, and what it splits.
"""

from zbench.methods.parallel.dims import KEY, ParallelDims, all_have_tokens, even_shares, share, whole_share
from zbench.methods.parallel.every import every_split
from zbench.methods.parallel.legality import problem
from zbench.methods.parallel.stack import LOG_SUM_EXP_BACKENDS, may_copy, spreads_heads, stack_problem
from zbench.methods.parallel.words import CacheDitSharding, cache_dit_sharding, labels, sglang_part

__all__ = [
    "KEY",
    "LOG_SUM_EXP_BACKENDS",
    "CacheDitSharding",
    "ParallelDims",
    "all_have_tokens",
    "cache_dit_sharding",
    "even_shares",
    "every_split",
    "labels",
    "may_copy",
    "problem",
    "sglang_part",
    "share",
    "spreads_heads",
    "stack_problem",
    "whole_share",
]
