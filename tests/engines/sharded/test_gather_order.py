"""In a compiled block values travel while keys are computed, and keys while queries are; over gloo one at a time."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from cache_dit.distributed.core._distributed_primitives import _All2AllAsyncHandle, _All2AllComm
from diffusers import ZImageTransformer2DModel
from torch._inductor.utils import run_and_get_code
from torch.testing._internal.distributed.fake_pg import FakeStore

from zbench.engines.reference.sharded import KEEP_ORDER, copies, gather, patches
from zbench.engines.reference.sharded.copies import KINDS, TURNS
from zbench.engines.reference.sharded.gather import ShardedSequence

WIDTH, TOKENS = 64, 48


class Carrier:
    """Fills what would come from the other rank with this rank's share."""

    def __init__(self) -> None:
        self.buffers = [torch.zeros(2 * TOKENS * WIDTH) for _ in range(KINDS * TURNS)]
        self.sent: dict[int, torch.Tensor] = {}

    def send(self, share: torch.Tensor, whole: torch.Tensor) -> None:
        assert any(whole.data_ptr() == buffer.data_ptr() for buffer in self.buffers)
        self.sent[whole.data_ptr()] = share

    def wait(self, whole: torch.Tensor) -> None:
        share = self.sent.pop(whole.data_ptr()).reshape(-1)
        whole[: 2 * share.numel()].copy_(share.repeat(2))


@pytest.fixture
def pair() -> Iterator[Any]:
    """A group of two, of which this process is the first and the other one says nothing."""
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
    yield dist.group.WORLD
    dist.destroy_process_group()
    torch.compiler.reset()


def transformer() -> Any:
    torch.manual_seed(0)
    sizes = {"dim": WIDTH, "n_heads": 2, "n_kv_heads": 2, "axes_dims": [16, 8, 8], "cap_feat_dim": 32}
    return ZImageTransformer2DModel(n_layers=1, n_refiner_layers=1, **sizes).eval().requires_grad_(False)


def block_inputs() -> tuple[Any, ...]:
    """Of a main block: the rank's tokens, no mask, the rotation of all tokens, what modulates."""
    return torch.randn(1, TOKENS // 2, WIDTH), None, torch.randn(1, TOKENS, WIDTH // 4, 2), torch.randn(1, WIDTH)


def order(code: str) -> list[str]:
    """Projections, and what begins and ends a gather, as they follow one another up to the attention."""
    body = code[code.index("def call(") :].split("scaled_dot_product", 1)[0]
    names = {
        "mm": r"\.mm\(",
        "begin": r"= ?torch\.ops\._c10d_functional\.all_gather|zbench\.send_share",
        "end": r"wait_tensor\.default|zbench\.await_shares",
    }
    lines = [line for line in body.splitlines() if not line.lstrip().startswith("#")]
    return [name for line in lines for name, pattern in names.items() if re.search(pattern, line)]


@pytest.mark.parametrize("carried", [False, True])
def test_what_is_sent_early_stays_early(carried: bool, pair: Any) -> None:
    net = transformer()
    handle = ShardedSequence(net, pair, None)
    if carried:
        handle.carry(Carrier())
    block = net.layers[0]
    inputs = block_inputs()
    eager = block(*inputs)
    compiled, (code, *_) = run_and_get_code(torch.compile(block, fullgraph=True, options=KEEP_ORDER), *inputs)
    seen = order(code)
    assert seen.count("begin") == seen.count("end") == 2 and seen.count("mm") == 3, seen
    assert seen[:3] == ["mm", "begin", "mm"] and seen[-2:] == ["end", "end"], seen
    if carried:  # collectives too, but for a compiler of CPUs, which joins the norms of keys and queries
        assert seen == ["mm", "begin", "mm", "begin", "mm", "end", "end"]
        assert torch.allclose(compiled, eager, atol=1e-5)
    handle.close()
    assert type(block.attention.processor).__name__ == "ZSingleStreamAttnProcessor" and not copies._carriers


@pytest.mark.parametrize(
    ("backend", "least"), [("fake", ["begin", "begin", "end", "end"]), ("gloo", ["begin", "end"] * 2)]
)
def test_over_gloo_one_gather_is_under_way_at_a_time(
    backend: str, least: list[str], pair: Any, monkeypatch: Any
) -> None:
    seen: list[str] = []

    class Collectives:
        """Says what is begun, and what is waited for."""

        def all_gather_into_tensor(self, share: torch.Tensor, size: int, _name: str) -> torch.Tensor:
            seen.append("begin")
            return torch.cat([share] * size)

        def wait_tensor(self, gathered: torch.Tensor) -> torch.Tensor:
            seen.append("end")
            return gathered

    monkeypatch.setattr(gather, "collectives", Collectives())
    monkeypatch.setattr(dist, "get_backend", lambda _group: backend)
    net = transformer()
    handle = ShardedSequence(net, pair, None)
    net.layers[0](*block_inputs())
    handle.close()
    assert seen == least


def test_over_gloo_an_exchange_of_ulysses_is_over_before_the_next() -> None:
    seen: list[str] = []

    def received(name: str) -> str:
        seen.append(f"end {name}")
        return name

    def launch(_comm: Any, name: str) -> Any:
        seen.append(f"begin {name}")
        return _All2AllAsyncHandle(lambda: received(name))

    one = patches.one_at_a_time(launch)
    handles = [one(None, name) for name in ("keys", "values")]
    assert [handle.wait() for handle in handles] == ["keys", "values"]
    assert seen == ["begin keys", "end keys", "begin values", "end values"]
    put_in = patches.Patches("cpu")
    try:
        assert _All2AllComm._launch.__wrapped__.__name__ == "_launch"
    finally:
        put_in.close()
    assert not hasattr(_All2AllComm._launch, "__wrapped__")
