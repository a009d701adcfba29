"""A measured trial projected with given shares, to be held against what was measured."""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

from zbench.config import EfficiencyConfig, HardwareConfig
from zbench.hardware.calibrate.observed import PRESET, Observation, composed
from zbench.hardware.cost import Cost
from zbench.hardware.host import HostCosts
from zbench.hardware.seconds import Estimate, Parts
from zbench.trial import preset_geometry
from zbench.zimage.geometry import Geometry


class Shares(NamedTuple):
    """What a fit gives: the shares of one kind of device, and what its host costs."""

    efficiency: EfficiencyConfig
    host: HostCosts


@cache
def geometry() -> Geometry:
    return preset_geometry(PRESET)


def datasheet(profile: str, efficiency: EfficiencyConfig) -> HardwareConfig:
    """The figures of a profile of conf/hardware with other shares."""
    return HardwareConfig(**{**vars(composed(profile).hardware), "efficiency": efficiency})


def cost_of(seen: Observation, shares: Shares) -> Cost:
    onto = datasheet(seen.hardware, shares.efficiency)
    return Cost(seen.trial, geometry(), onto, seen.text_tokens, costs=shares.host)


def forward_parts(seen: Observation, shares: Shares) -> Parts:
    """One computed forward."""
    return cost_of(seen, shares).step(geometry().transformer.n_layers)


def image_parts(seen: Observation, shares: Shares) -> Parts:
    """A call, as many of its steps skipped as were measured."""
    cost = cost_of(seen, shares)
    computed = seen.trial.pipeline.steps - seen.cached_steps
    steps = cost.step(geometry().transformer.n_layers) * computed + cost.step(cost.cached_blocks) * seen.cached_steps
    return sum(cost.stages().values(), Parts()) + steps


def forward_range(seen: Observation, shares: Shares) -> Estimate:
    return forward_parts(seen, shares).range(shares.efficiency.spread)


def image_range(seen: Observation, shares: Shares) -> Estimate:
    return image_parts(seen, shares).range(shares.efficiency.spread)


FIGURES: tuple[tuple[str, Callable[[Observation], float | None], Callable[[Observation, Shares], Estimate]], ...] = (
    ("forward", lambda o: o.forward_s, forward_range),
    ("call", lambda o: o.latency_s, image_range),
)
"""What is held against a projection: its name, what was measured, what is projected."""
