"""What a user asks of a configuration: a limit on one figure, and how a trial stands to it.

Likeness to the reference is judged by the worst image: a mean hides the one that was spoilt. Fidelity to the prompts is
judged by the mean: a share of a dozen attributes is too coarse for one image to decide.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from zbench.analysis.figures import TrialFigures
from zbench.analysis.metrics import IDENTICAL_DB, REGISTRY
from zbench.errors import ConfigError

GIB = 2**30

Unchanged = Literal["reference", "identical", "under_noise"]
"""Why a likeness cannot miss its limit, whatever the figure: the images are the reference's own, but for noise."""


@dataclass(frozen=True)
class Limits:
    """The limits that a user may give; None: not given."""

    max_vram_gib: float | None = None
    min_ssim: float | None = None
    min_psnr_db: float | None = None
    min_prompt_fidelity: float | None = None


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
    """A bound on one metric of the registry; which way is better decides whether it is a floor or a ceiling."""

    flag: str  # as on the command line; of the hardware's memory, the config key
    limit: float
    metric: str
    what: str
    unit: str
    read: Callable[[TrialFigures], float | None]
    path: str  # where a measurement says why the figure is missing
    hardware: str | None = None  # title of the hardware whose memory it is

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
            short = self.limit - value if REGISTRY[self.metric].higher_is_better else value - self.limit
            missed_by = max(0.0, short)
        why = row.why_missing(self.path) if value is None else None
        return Judged(self.flag, self.limit, self.what, self.unit, value, unchanged, missed_by, why)

    def miss(self, row: TrialFigures) -> float | None:
        """By how much the figure misses the limit: 0 if it does not, None if there is no figure."""
        return self.judge(row).missed_by

    def _unchanged(self, row: TrialFigures) -> Unchanged | None:
        if self.path != "quality":
            return None
        if row.is_reference:
            return "reference"
        if row.is_identical:
            return "identical"
        return "under_noise" if row.within_noise else None

    def __str__(self) -> str:
        """`--min-ssim 0.95`."""
        return f"{self.flag} {self.limit:g}"


def constraints_of(limits: Limits) -> list[Constraint]:
    """One for each limit that was given. Raises ConfigError for one that cannot be meant."""
    made = []
    if limits.max_vram_gib is not None:
        flag, path = "--max-vram-gib", "memory.peak_device_bytes"
        limit = _checked(flag, limits.max_vram_gib, 0, math.inf)
        made.append(Constraint(flag, limit, "memory.on_device", "peak device memory", " GiB", vram_gib, path))
    if limits.min_ssim is not None:
        flag, metric = "--min-ssim", "quality.ssim.worst"
        limit = _checked(flag, limits.min_ssim, -1, 1)
        made.append(Constraint(flag, limit, metric, "SSIM of the worst image", "", _ssim, "quality"))
    if limits.min_psnr_db is not None:
        flag, metric = "--min-psnr-db", "quality.psnr.worst"
        limit = _checked(flag, limits.min_psnr_db, 0, IDENTICAL_DB)
        made.append(Constraint(flag, limit, metric, "PSNR of the worst image", " dB", _psnr, "quality"))
    if limits.min_prompt_fidelity is not None:
        flag, path = "--min-prompt-fidelity", "prompt_fidelity"
        limit = _checked(flag, limits.min_prompt_fidelity, 0, 1)
        what = "mean share of attributes"
        made.append(Constraint(flag, limit, "quality.prompt", what, "", _prompt_fidelity, path))
    return made


def hardware_memory(rows: Sequence[TrialFigures]) -> list[Constraint]:
    """The memory of each hardware that something projected does not fit into."""
    what, path = "peak device memory on ", "memory.peak_device_bytes"
    found = dict.fromkeys((row.hardware or "", row.hardware_memory_gib or 0.0) for row in rows if row.misfit)
    return [
        Constraint("hardware.memory_gib", memory_gib, "memory.on_device", what + title, " GiB", vram_gib, path, title)
        for title, memory_gib in found
    ]


def vram_gib(row: TrialFigures) -> float | None:
    """Peak memory on the device; None where only the host's is known."""
    on_device = row.peak_memory_bytes is not None and row.memory_kind != "host RSS"
    return (row.peak_memory_bytes or 0) / GIB if on_device else None


def _ssim(row: TrialFigures) -> float | None:
    return row.ssim_worst


def _psnr(row: TrialFigures) -> float | None:
    return row.psnr_worst_db


def _prompt_fidelity(row: TrialFigures) -> float | None:
    return row.prompt_fidelity_mean


def _checked(flag: str, limit: float, low: float, high: float) -> float:
    if not math.isfinite(limit) or not low <= limit <= high:
        wanted = f"within {low} and {high:g}" if math.isfinite(high) else f"a finite number of at least {low}"
        why = ", which is what identical images count as" if high == IDENTICAL_DB else ""
        raise ConfigError(flag, limit, f"must be {wanted}{why}")
    return limit


def _figure(value: float) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".") if abs(value) < 10 else f"{value:.1f}"
