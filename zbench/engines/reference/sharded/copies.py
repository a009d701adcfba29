"""Shares of keys and values that GPUs of one host copy into each other's memory, while they go on computing.

NCCL's collectives run on multiprocessors, and the matrix products beside them are slower for it. A copy engine takes
none: on two H200 a compiled forward computed for 44.7 ms alone, and for 51 beside NCCL.

Each rank has buffers that the others can write to (torch's symmetric memory, without multicast). It copies its share
into everybody's, and behind it a flag; who needs the shares waits for the flags. Buffers are two of a kind, and layers
take turns with them. That is enough: a rank writes a buffer anew only after it had a share of the layer between, which
the other rank sent after it had read the buffer. So layers that share a buffer need one between them, or a collective.
"""

from __future__ import annotations

import os
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

KINDS, TURNS = 2, 2
"""Keys and values; buffers of each."""


class Carrier(Protocol):
    """Brings shares to where they are needed."""

    buffers: list[Tensor]
    """KINDS * TURNS of them, each with a storage of its own, on every rank alike."""

    def send(self, share: Tensor, whole: Tensor) -> None:
        """Begin to put `share` into everybody's `whole`, one of the buffers."""
        ...

    def wait(self, whole: Tensor) -> None:
        """Until all shares are in `whole`, one after another from its beginning."""
        ...


_carriers: dict[int, Carrier] = {}
"""Those that operators know by number: an operator of a compiled graph takes no objects."""


def register(carrier: Carrier) -> int:
    """Its number, until it is released."""
    number = max(_carriers, default=-1) + 1
    _carriers[number] = carrier
    return number


def release(number: int) -> None:
    """Let a carrier and its buffers go."""
    del _carriers[number]


@torch.library.custom_op("zbench::send_share", mutates_args=("whole", "later"))
def send_share(share: Tensor, whole: Tensor, later: Tensor, carrier: int) -> None:
    """See `Carrier.send`; what was sent stays untouched until `await_shares`.

    `later` is left as it is. It is said to change, so that a compiler computes nothing of it before.
    """
    _carriers[carrier].send(share, whole)


@send_share.register_fake
def _(share: Tensor, whole: Tensor, later: Tensor, carrier: int) -> None:
    return None


@torch.library.custom_op("zbench::await_shares", mutates_args=("whole",))
def await_shares(share: Tensor, whole: Tensor, carrier: int) -> None:
    """See `Carrier.wait`. `share` is what was sent: named here, its memory is nobody else's until now."""
    _carriers[carrier].wait(whole)


@await_shares.register_fake
def _(share: Tensor, whole: Tensor, carrier: int) -> None:
    return None


class PeerCopies:
    """A `Carrier` by copy engines, among the GPUs of one host."""

    def __init__(self, group: ProcessGroup, elements: int, dtype: torch.dtype) -> None:
        """All ranks of `group` at once. `elements`: of the largest whole that is to be carried.

        Raises RuntimeError where the GPUs cannot reach each other's memory.
        """
        os.environ["TORCH_SYMM_MEM_DISABLE_MULTICAST"] = "1"
        import torch.distributed._symmetric_memory as symmetric_memory

        device = torch.device("cuda", torch.cuda.current_device())
        self._rank, self._ranks = group.rank(), group.size()
        self.buffers = [symmetric_memory.empty(elements, dtype=dtype, device=device) for _ in range(KINDS * TURNS)]
        self._slots = {buffer.data_ptr(): slot for slot, buffer in enumerate(self.buffers)}
        self._handles: list[Any] = [symmetric_memory.rendezvous(buffer, group) for buffer in self.buffers]
        ranks = range(self._ranks)
        self._of = [[each.get_buffer(r, (elements,), dtype) for r in ranks] for each in self._handles]
        self._flags = [[each.get_signal_pad(r, (self._ranks,), torch.uint32) for r in ranks] for each in self._handles]
        self._one = torch.ones(1, dtype=torch.uint32, device=device)
        self._stream = torch.cuda.Stream(priority=-1)  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()

    def send(self, share: Tensor, whole: Tensor) -> None:
        """See `Carrier.send`."""
        slot = self._slots[whole.data_ptr()]
        sent, of, flags = share.view(-1), self._of[slot], self._flags[slot]  # no copy, which nothing would keep
        begin = self._rank * sent.numel()
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            for step in range(1, self._ranks):
                to = (self._rank + step) % self._ranks
                of[to][begin : begin + sent.numel()].copy_(sent)
                flags[to][self._rank : self._rank + 1].copy_(self._one)
            of[self._rank][begin : begin + sent.numel()].copy_(sent)

    def wait(self, whole: Tensor) -> None:
        """See `Carrier.wait`."""
        handle = self._handles[self._slots[whole.data_ptr()]]
        torch.cuda.current_stream().wait_stream(self._stream)
        for step in range(1, self._ranks):
            handle.wait_signal((self._rank - step) % self._ranks, 0)
