"""How long a host needs to start one forward that several GPUs share, where that is longer than they compute.

Kernel by kernel (not as one CUDA graph), each exchange costs the host time that nothing hides, and a ring's merging
costs more than its exchange. The costs are in `host.yaml`, fitted by `hardware.calibrate` to hosts of 2 and 4 H200,
which differed by 40 % in the same forward; a profile's `efficiency.spread.host` says how far another one may be off.

Eager tensor parallelism costs twice what its sums do: they go through DTensor. torch.compile leaves a ring's merging
as it is.
"""

from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import yaml

from zbench.decode import typed
from zbench.methods.parallel import ParallelDims
from zbench.trial import Trial

BLOCKS = 34
"""Blocks of the forward that was measured."""

FILE = "host.yaml"


@dataclass(frozen=True)
class StartCosts:
    """What starting a forward takes the host, of one way of running it."""

    one_s: float
    """One device's forward."""
    exchange_s: float
    """One exchange of tokens: Ulysses has four a block, gather two."""
    sum_s: float
    """One sum of tensor parallelism, of two a block."""
    rotation_s: float
    """One rotation of a ring in a forward, its merging included."""


@dataclass(frozen=True)
class HostCosts:
    """What starting a sharded forward takes the host."""

    eager: StartCosts
    compiled: StartCosts
    source: str


@cache
def fitted() -> HostCosts:
    """The costs that zbench ships."""
    written: Any = yaml.safe_load(resources.files(__package__).joinpath(FILE).read_text(encoding="utf-8"))
    return typed(HostCosts, written)


def counts(dims: ParallelDims) -> tuple[float, float, float, float]:
    """How often each of StartCosts' fields, in their order, counts in one forward."""
    exchanges = 4 * (dims.ulysses > 1) + 2 * (dims.gather > 1)
    return 1.0, float(BLOCKS * exchanges), 2.0 * BLOCKS * (dims.tp > 1), float(dims.ring - 1)


def start_s(dims: ParallelDims, trial: Trial, blocks: int, costs: HostCosts) -> float:
    """Seconds of one forward of so many blocks; 0 where the host is not known to hold the devices up."""
    if trial.graphs == "all" or dims.ranks == 1:
        return 0.0
    of = costs.compiled if trial.compute.compile else costs.eager
    each = (of.one_s, of.exchange_s, of.sum_s, of.rotation_s)
    return sum(count * cost for count, cost in zip(counts(dims), each, strict=True)) * blocks / BLOCKS
