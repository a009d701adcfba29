"""Shares of cards that were not measured: what was measured on Hopper, with the rates published of their class.

A published rate is a burst's; of an H100's a long run sustains a part, and a card that is held to no power limit may
sustain all of it. So a share lies between the least published one times that part, and the largest. What goes with
the host is taken over; what goes with memory goes with the datasheet's bandwidth; of what may go with either (tokens,
the VAE) the middle is taken, and both ends are in its spread.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from statistics import median
from typing import Literal

import yaml

from zbench.config import EfficiencyConfig, SpreadConfig
from zbench.decode import typed
from zbench.hardware.calibrate.observed import PRESET, Observation, composed
from zbench.hardware.calibrate.projecting import Shares, cost_of, forward_parts
from zbench.hardware.footprint import TEXT_TOKENS
from zbench.hardware.published import published_for
from zbench.hardware.stacks import DEFAULT_STEPS
from zbench.trial import Trial

MEASURED = ("h100", "h200")
"""Profiles of cards that records are of."""
CLASSES = {
    "a100": "ampere",
    "b200": "blackwell",
    "b300": "blackwell",
    "h800": "hopper",
    "l20": "narrowed",
    "l40s": "workstation",
    "mi300x": "cdna",
    "rtx4090": "geforce_ada",
    "rtx5090": "geforce_blackwell",
}
"""The class of every other GPU in conf/hardware."""
OTHER_SOFTWARE = ("cdna",)
"""Classes on which the measured software does not run as it is: what was published of an image there counts too."""
UNPUBLISHED = 0.35
"""Spread of attention where no rate of the class is published, and of FP8: how far each lies below matrix products in
bfloat16 is taken from Hopper."""
LEAST_SPREAD = 0.12


@dataclass(frozen=True)
class Rate:
    """A published rate."""

    kind: Literal["gemm", "attention"]
    device: str
    peak: float
    classes: list[str]
    tflops: float
    where: str

    @property
    def share(self) -> float:
        return self.tflops / self.peak


@cache
def rates() -> tuple[Rate, ...]:
    text = resources.files(__package__).joinpath("rates.yaml").read_text(encoding="utf-8")
    return tuple(typed(Rate, row) for row in yaml.safe_load(text))


def carried(profile: str, measured: Shares) -> EfficiencyConfig:
    """The efficiency of a profile that no record is of."""
    of_class, e, card = CLASSES[profile], measured.efficiency, composed(profile).hardware
    if of_class == "hopper":
        spread = replace(e.spread, gemm=0.08, attention=0.1, activations=max(0.1, e.spread.activations), model=0.06)
        return replace(e, spread=spread, source=f"Not measured on this GPU; the chip of the H100 and H200. {e.source}")
    sustained = e.gemm / median(r.share for r in rates() if r.kind == "gemm" and "hopper" in r.classes)
    gemm_rows = _rows("gemm", of_class)
    low, high = _ends(gemm_rows, sustained)
    said = [f"matrix products: {_cited(gemm_rows)}"]
    if of_class in OTHER_SOFTWARE:
        implied = _implied_gemm(profile, measured)
        low = low if implied is None else min(low, implied)
        said += [] if implied is None else ["down to what SGLang's published image implies (zbench/hardware/published)"]
    gemm, gemm_spread = _middle(low, high, LEAST_SPREAD)
    attention_rows = _rows("attention", of_class)
    if attention_rows:
        attention, attention_spread = _middle(*_ends(attention_rows, sustained), LEAST_SPREAD)
        said.append(f"attention: {_cited(attention_rows)}")
    else:
        attention, attention_spread = gemm * e.attention / e.gemm, math.hypot(gemm_spread, UNPUBLISHED)
        said.append("attention: none published of its class, as far below its matrix products as on an H100")
    hopper = composed("h100").hardware
    slower = (hopper.memory_bandwidth_gb_s or math.nan) / (card.memory_bandwidth_gb_s or math.nan)
    weaker = (hopper.peak_bf16_tflops or math.nan) * e.gemm / ((card.peak_bf16_tflops or math.nan) * gemm)
    decode_slower = math.sqrt(slower * weaker)
    peaks = (hopper.peak_bf16_tflops or math.nan) / (card.peak_bf16_tflops or math.nan)
    tokens = math.sqrt(slower)
    spread = SpreadConfig(
        gemm=gemm_spread,
        attention=round(attention_spread, 3),
        activations=round(0.15 + _token_part(measured) * abs(max(tokens, 1 / tokens) - 1), 3),
        gap=e.spread.gap,
        text=max(0.8, e.spread.text),
        decode=round(max(0.35, max(slower / weaker, weaker / slower) ** 0.5 - 1), 3),
        exchange=max(0.6, e.spread.exchange),
        host=max(0.8, e.spread.host),
        copy=max(0.25, e.spread.copy),
        overhead=e.spread.overhead,
        fp8=round(math.hypot(gemm_spread, UNPUBLISHED), 3),
        model=0.1,
        memory=max(0.12, e.spread.memory),
    )
    return replace(
        e,
        gemm=round(gemm, 4),
        attention=round(attention, 4),
        vae=round(e.vae * peaks / decode_slower, 4),
        vae_split=_scaled(e.vae_split, peaks / decode_slower),
        fast_vae=_scaled(e.fast_vae, peaks / decode_slower),
        token_s=round(e.token_s * tokens, 6),
        eager_token_s=round(e.eager_token_s * tokens, 6),
        fast_token_s=_scaled(e.fast_token_s, tokens, 6),
        fp8_gemm=_scaled(e.fp8_gemm, gemm / e.gemm) if card.peak_fp8_tflops else None,
        fp8_attention=_scaled(e.fp8_attention, attention / e.attention) if card.peak_fp8_tflops else None,
        spread=spread,
        source=f"Not measured on this GPU. Published of its class ({of_class}, calibrate/rates.yaml), each from "
        f"{sustained:.2f} of the least to the largest: {'; '.join(said)}. The rest is taken over from what was "
        f"measured: {e.source}",
    )


def _scaled(share: float | None, by: float, digits: int = 4) -> float | None:
    """None where it was not measured."""
    return None if share is None else round(share * by, digits)


def _rows(kind: str, of_class: str) -> list[Rate]:
    return [rate for rate in rates() if rate.kind == kind and of_class in rate.classes]


def _ends(rows: Sequence[Rate], sustained: float) -> tuple[float, float]:
    return sustained * min(r.share for r in rows), max(r.share for r in rows)


def _middle(low: float, high: float, least: float) -> tuple[float, float]:
    """The middle of a range, and its spread."""
    return math.sqrt(low * high), round(max(least, math.sqrt(high / low) - 1), 3)


def _cited(rows: Sequence[Rate]) -> str:
    return ", ".join(f"{r.tflops:g} of {r.peak:g} ({r.where})" for r in rows)


def _token_part(measured: Shares) -> float:
    """What of an eager forward's activations goes with tokens, of 1: that part may not follow the bandwidth."""
    seen = _plain_image("h100")
    parts, without = forward_parts(seen, measured), forward_parts(seen, _without_tokens(measured))
    return 1 - without.seconds["activations"] / parts.seconds["activations"]


def _without_tokens(measured: Shares) -> Shares:
    return measured._replace(efficiency=replace(measured.efficiency, eager_token_s=0.0))


def _plain_image(profile: str) -> Observation:
    """An eager image at the defaults, on a profile."""
    trial = Trial.from_config(composed(profile), projected=True)
    return Observation(profile, PRESET, trial, TEXT_TOKENS, None)


def _implied_gemm(profile: str, measured: Shares) -> float | None:
    """The share that a published image of other software implies, if all else were as in an eager one."""
    images = [f for f in published_for(profile) if f.image_s is not None and f.count == 1 and f.kind == "measured"]
    if not images:
        return None
    figure, cost = images[0], cost_of(_plain_image(profile), measured)
    outside_s = sum(parts.total_s for parts in cost.stages().values())
    forward = cost.step(cost.geometry.transformer.n_layers)
    left_s = ((figure.image_s or 0.0) - outside_s) / (figure.steps or DEFAULT_STEPS)
    gemm_s = left_s - (forward.total_s - forward.seconds["gemm"])
    return measured.efficiency.gemm * forward.seconds["gemm"] / gemm_s if gemm_s > 0 else None
