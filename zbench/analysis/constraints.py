"""What a user asks of a configuration: a limit on one figure, and how a trial stands to it.

Likeness to the reference is judged by the worst image: a mean hides the one that was spoilt. Fidelity to the prompts is
judged by the mean: a share of a dozen attributes is too coarse for one image to decide.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from zbench.analysis.figures import FIELDS, TrialFigures
from zbench.analysis.metrics import IDENTICAL_DB, REGISTRY, Metric
from zbench.errors import ConfigError

GIB = 2**30
DEVICE = "memory.peak_device_bytes"
PSNR = "PSNR of the worst image"
SHARE = "mean share of attributes"

Unchanged = Literal["reference", "identical", "under_noise"]
"""Why a likeness cannot miss its limit, whatever the figure: the images are the reference's own, but for noise."""


@dataclass(frozen=True)
class Limits:
    """The limits that a user may give; None: not given."""

    max_vram_gib: float | None = None
    min_ssim: float | None = None
    min_psnr_db: float | None = None
    min_prompt_fidelity: float | None = None
    max_lpips: float | None = None
    min_clip_score: float | None = None
    max_latency_s: float | None = None


@dataclass(frozen=True)
class Judged:
    """One constraint and how a trial stands to it."""

    flag: str
    limit: float
    what: str
    unit: str
    value: float | None  # None if there is no figure
    unchanged: Unchanged | None
    missed_by: float | None  # 0: satisfied; None: there is no figure
    why_missing: str | None

    def __str__(self) -> str:
        """`SSIM of the worst image is 0.801, 0.149 short of --min-ssim 0.95`."""
        bound = f"{self.flag} {self.limit:g}"
        if self.unchanged == "reference":
            return f"it is the quality reference itself, within {bound}"
        if self.unchanged == "under_noise":
            return f"its images differ from the reference's by no more than noise, within {bound}"
        if self.unchanged == "identical":
            return f"{self.what} is that of identical images, within {bound}"
        if self.value is None or self.missed_by is None:
            return f"{self.what} is unknown ({self.why_missing or 'not recorded'}), so {bound} cannot be judged"
        says = f"{self.what} is {_figure(self.value)}{self.unit}"
        if self.missed_by == 0:
            return f"{says}, within {bound}"
        way = "above" if self.value > self.limit else "short of"
        return f"{says}, {_figure(self.missed_by)}{self.unit} {way} {bound}"


@dataclass(frozen=True)
class Constraint:
    """A bound on one metric of the registry, which says the figure, its unit and which way is better."""

    flag: str  # as on the command line; of the hardware's memory, the config key
    limit: float  # in the metric's unit, sizes in GiB
    metric: Metric
    what: str
    path: str  # where a measurement says why the figure is missing
    hardware: str | None = None  # title of the hardware whose memory it is

    def read(self, row: TrialFigures) -> float | None:
        """The trial's figure; sizes in GiB."""
        value: float | None = getattr(row, FIELDS[self.metric.name])
        return value / GIB if value is not None and self._in_gib else value

    def applies(self, row: TrialFigures) -> bool:
        """Whether it is asked of the trial at all: the memory of hardware only of what is projected onto that."""
        return self.hardware is None or (row.hardware, row.hardware_memory_gib) == (self.hardware, self.limit)

    def judge(self, row: TrialFigures) -> Judged:
        """How the trial stands to it."""
        value, unchanged = self.read(row), self._unchanged(row)
        if unchanged is not None or not self.applies(row):
            missed_by: float | None = 0.0
        elif value is None:
            missed_by = None
        else:
            missed_by = max(0.0, self.limit - value if self.metric.higher_is_better else value - self.limit)
        unit = "GiB" if self._in_gib else self.metric.unit
        why = row.why_missing(self.path) if value is None else None
        return Judged(self.flag, self.limit, self.what, f" {unit}" if unit else "", value, unchanged, missed_by, why)

    def miss(self, row: TrialFigures) -> float | None:
        """By how much the figure misses the limit: 0 if it does not, None if there is no figure."""
        return self.judge(row).missed_by

    @property
    def _in_gib(self) -> bool:
        return self.metric.unit == "bytes"

    def _unchanged(self, row: TrialFigures) -> Unchanged | None:
        if not self.metric.of_likeness:
            return None
        if row.is_reference:
            return "reference"
        if row.is_identical:
            return "identical"
        return "under_noise" if row.within_noise else None

    def __str__(self) -> str:
        """`--min-ssim 0.95`."""
        return f"{self.flag} {self.limit:g}"


def flag_of(name: str) -> str:
    """`--min-ssim` of the limit `min_ssim`."""
    return f"--{name.replace('_', '-')}"


def constraints_of(limits: Limits, spelt: Callable[[str], str] = flag_of) -> list[Constraint]:
    """One for each limit that was given. Raises ConfigError for one that cannot be meant.

    `spelt` gives what the user types for the name of a limit: a flag, or the key of a config.
    """
    asked = (
        ("max_vram_gib", (0, math.inf), "memory.on_device", "peak device memory", DEVICE),
        ("min_ssim", (-1, 1), "quality.ssim.worst", "SSIM of the worst image", "quality"),
        ("min_psnr_db", (0, IDENTICAL_DB), "quality.psnr.worst", PSNR, "quality"),
        ("min_prompt_fidelity", (0, 1), "quality.prompt", SHARE, "prompt_fidelity"),
        ("max_lpips", (0, math.inf), "quality.lpips.worst", "LPIPS of the worst image", "quality"),
        ("min_clip_score", (0, 100), "quality.clip", "mean CLIP score", "prompt_fidelity"),
        ("max_latency_s", (0, math.inf), "latency.median", "median latency", "latency"),
    )
    return [
        Constraint(spelt(name), _checked(spelt(name), limit, *between), REGISTRY[metric], what, path)
        for name, between, metric, what, path in asked
        if (limit := getattr(limits, name)) is not None
    ]


def hardware_memory(rows: Sequence[TrialFigures]) -> list[Constraint]:
    """The memory of each hardware that something projected does not fit into."""
    found = dict.fromkeys((row.hardware or "", row.hardware_memory_gib or 0.0) for row in rows if row.misfit)
    metric = REGISTRY["memory.on_device"]
    return [
        Constraint("hardware.memory_gib", gib, metric, f"peak device memory on {title}", DEVICE, title)
        for title, gib in found
    ]


def _checked(flag: str, limit: float, low: float, high: float) -> float:
    if not math.isfinite(limit) or not low <= limit <= high:
        wanted = f"within {low} and {high:g}" if math.isfinite(high) else f"a finite number of at least {low}"
        why = ", which is what identical images count as" if high == IDENTICAL_DB else ""
        raise ConfigError(flag, limit, f"must be {wanted}{why}")
    return limit


def _figure(value: float) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".") if abs(value) < 10 else f"{value:.1f}"
