"""For which software a projection stands, and which of its stacks a published image comes nearest to.

Example: SGLang published 0.94 s an image on a B300. The model gives 0.77 s eager and 0.46 s compiled for as many steps:
what SGLang reached there is nearest to eager.
"""

from dataclasses import dataclass, replace
from typing import Any

from zbench.config import HardwareConfig
from zbench.hardware.published import PublishedFigure, published_for
from zbench.hardware.roofline import STACKS, expect
from zbench.hardware.seconds import Estimate
from zbench.methods import fast, graphs
from zbench.trial import Trial, geometry_of

DEFAULT_STEPS = 9
"""Of an image whose step count was not published: SGLang's default."""


@dataclass(frozen=True)
class Implied:
    """A published image, and what this model projects for it on each stack."""

    figure: PublishedFigure
    image_s: float
    steps: int
    projected: dict[str, Estimate]  # by the keys of STACKS

    @property
    def nearest(self) -> str:
        """The stack whose time is nearest."""
        return min(self.projected, key=lambda name: abs(self.projected[name].point - self.image_s))


def implied(trial: Trial, hardware: HardwareConfig) -> list[Implied]:
    """Of each image that was published of one such device by other software, 1024x1024 in bf16."""
    found = []
    for figure in published_for(hardware.name):
        if figure.image_s is None or figure.count != 1 or figure.id.startswith("zbench-") or "fp8" in figure.id:
            continue
        steps = figure.steps or DEFAULT_STEPS
        sized = replace(
            trial.pipeline, steps=steps, width=1024, height=1024, batch_size=1, images_per_prompt=1, guidance_scale=0.0
        )
        plain = replace(trial.reference, pipeline=sized)
        each = {name: _projected(plain, name, hardware) for name in STACKS}
        found.append(Implied(figure, figure.image_s, steps, each))
    return found


def _projected(trial: Trial, stack: str, hardware: HardwareConfig) -> Estimate:
    captured = {"graph": graphs.ALL, "fast": graphs.AUTO}.get(stack, graphs.NONE)
    pieces: dict[str, Any] = {**fast.FAST} if stack == "fast" else {}
    compute = replace(trial.compute, compile=stack != "eager", graphs=captured, **pieces)
    return expect(replace(trial, compute=compute), geometry_of(trial.pipeline), hardware).latency
