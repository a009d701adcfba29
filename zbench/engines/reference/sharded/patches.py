"""All that sharding replaces in cache-dit: how ranks agree on a residual difference, and what a CPU with gloo lacks.

It is written against one version of cache-dit; with another it refuses, for what it replaces may have changed.

- cache-dit averages each rank's own mean, so a rank with fewer tokens weighs as much as one with more, and gloo cannot
  average. Here ranks add up sums and counts: every rank gets the one difference that a single process would.
- Ring attention asks for CUDA's flash attention and merges with a Triton kernel. On a CPU torch has a flash attention
  that returns the log-sum-exp too, and cache-dit has a merge in plain torch.
- Dynamo of torch 2.11 does not look into the function that torch's own functional all-gather ends with.
- `ulysses_anything` gathers shares of several sizes, which NCCL can and gloo cannot: here they are padded to one size.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from importlib.metadata import version
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup

from zbench.errors import ConfigError

CACHE_DIT = "1.5.3"


class Patches:
    """Replaces attributes of cache-dit, and puts them back."""

    def __init__(self, device: str) -> None:
        """`device` is cpu or cuda. Raises ConfigError with another cache-dit."""
        here = version("cache-dit")
        if here != CACHE_DIT:
            raise ConfigError(
                "parallel",
                f"cache-dit {here}",
                f"sharding is made for cache-dit {CACHE_DIT}: pip install cache-dit=={CACHE_DIT}",
            )
        from cache_dit.attention.backends import native
        from cache_dit.caching.cache_contexts.cache_manager import CachedContextManager
        from cache_dit.distributed.core import _context_parallel, _distributed_primitives, _templated_ring

        _let_dynamo_gather()
        self._own: list[tuple[Any, str, Any]] = []
        self._replace(CachedContextManager, "similarity", agreeing)
        if device == "cpu":
            self._replace(native, "_native_attention_forward_op", with_log_sum_exp)
            self._replace(_context_parallel, "_all_gather_anything", padded)
            self._replace(_templated_ring, "fused_merge_attn_states", lambda _own: None)
            self._replace(_distributed_primitives._All2AllComm, "_launch", one_at_a_time)

    def _replace(self, owner: Any, name: str, made_from: Callable[[Any], Any]) -> None:
        own = getattr(owner, name)
        self._own.append((owner, name, own))
        setattr(owner, name, made_from(own))

    def close(self) -> None:
        """Put everything back."""
        while self._own:
            owner, name, own = self._own.pop()
            setattr(owner, name, own)


def _let_dynamo_gather() -> None:
    """Where its rules do not name the function, it is put into graphs as it is; that stays so."""
    from torch import _utils
    from torch._dynamo import trace_rules

    place = "_maybe_view_chunk_cat"
    if hasattr(_utils, place) and f"torch._utils.{place}" not in trace_rules.manual_torch_name_rule_map:
        torch.compiler.allow_in_graph(getattr(_utils, place))  # type: ignore[no-untyped-call]


def agreeing(own: Callable[..., bool]) -> Callable[..., bool]:
    """cache-dit's `similarity`, of the states of all ranks. It keeps its own thresholds and records."""

    @wraps(own)
    def similarity(
        manager: Any, before: Tensor, now: Tensor, *, threshold: float, parallelized: bool = False, prefix: str = "Fn"
    ) -> bool:
        if parallelized and before.shape == now.shape and 0.0 < threshold < 1.0:
            before, now = summed_up(before, now, manager.get_important_condition_threshold())
        return own(manager, before, now, threshold=threshold, parallelized=False, prefix=prefix)

    return cast("Callable[..., bool]", torch.compiler.disable(similarity))  # type: ignore[no-untyped-call]


def summed_up(before: Tensor, now: Tensor, important: float) -> tuple[Tensor, Tensor]:
    """Two states of one number each whose mean magnitude and mean difference are those of all ranks' states.

    `before` and `now`: batch x tokens x width, of this rank. Above 0, `important` is the relative difference from which
    on a token counts; where no token of any rank does, all do.
    """
    difference, magnitude = (before - now).abs(), before.abs()
    sums = [difference.sum(dtype=torch.float32), magnitude.sum(dtype=torch.float32), difference.numel()]
    if important > 0.0:
        counts = difference.mean(dim=-1, keepdim=True) / magnitude.mean(dim=-1, keepdim=True) > important
        of_tokens = (state.sum(dim=-1, keepdim=True, dtype=torch.float32)[counts] for state in (difference, magnitude))
        sums += [*(tokens.sum() for tokens in of_tokens), counts.sum() * difference.shape[-1]]
    total = torch.stack([torch.as_tensor(part, dtype=torch.float64, device=before.device) for part in sums])
    dist.all_reduce(total)
    chosen = total[3:] if important > 0.0 and total[5] > 0 else total[:3]
    mean_difference, mean_magnitude = chosen[0] / chosen[2], chosen[1] / chosen[2]
    return mean_magnitude.reshape(1, 1, 1), (mean_magnitude - mean_difference).reshape(1, 1, 1)


def with_log_sum_exp(own: Callable[..., Any]) -> Callable[..., Any]:
    """cache-dit's native attention, with a flash attention of the CPU where the log-sum-exp is asked for."""

    @wraps(own)
    def attention(ctx: Any, query: Tensor, key: Tensor, value: Tensor, *args: Any, **options: Any) -> Any:
        attn_mask, dropout_p, is_causal, scale, _enable_gqa, return_lse = args
        if not return_lse:
            return own(ctx, query, key, value, *args, **options)
        if attn_mask is not None:
            raise ValueError("ring attention takes no mask: texts of a batch must have equally many tokens")
        heads_first = (x.transpose(1, 2) for x in (query, key, value))
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            *heads_first, dropout_p=dropout_p, is_causal=is_causal, scale=scale
        )
        return out.transpose(1, 2), lse.transpose(1, 2).unsqueeze(-1)

    return attention


def one_at_a_time(own: Callable[..., Any]) -> Callable[..., Any]:
    """cache-dit's start of an exchange of Ulysses, which is over before the next one (`gather.ONE_AT_A_TIME`)."""

    @wraps(own)
    def launched(*args: Any, **options: Any) -> Any:
        handle = own(*args, **options)
        received = handle.wait()
        return type(handle)(lambda: received)

    return launched


def padded(own: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """cache-dit's gathering of shares that differ along one dimension, all of them sent as large as the largest."""

    @wraps(own)
    def gathered(share: Tensor, dim: int, group: ProcessGroup) -> Tensor:
        ranks = group.size()
        sizes = share.new_empty(ranks, dtype=torch.int64)
        dist.all_gather_into_tensor(sizes, sizes.new_tensor([share.shape[dim]]), group=group)
        lacking = list(share.shape)
        lacking[dim] = int(sizes.max()) - share.shape[dim]
        sent = torch.cat([share, share.new_zeros(lacking)], dim=dim)
        received = [torch.empty_like(sent) for _ in range(ranks)]
        dist.all_gather(received, sent, group=group)
        shares = (part.narrow(dim, 0, size) for part, size in zip(received, sizes.tolist(), strict=True))
        return torch.cat(list(shares), dim=dim)

    return gathered
