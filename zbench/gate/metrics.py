"""The grammar of gates, `latency.median:3%`, and what each metric reads from a measurement; it judges nothing.

A name is a record's path without its unit, and a statistic where there is more than one sample. A limit in per cent
is relative; a plain number is absolute, its sign saying which way is worse: `quality.ssim:-0.01` lets it fall by 0.01.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from zbench.errors import ConfigError
from zbench.measurement import ImageQuality, Measurement
from zbench.stats import median

IDENTICAL_DB = 100.0
"""What an identical image counts as, and the most that any does: the least error in 256 × 256 pixels has 101 dB."""

Pair = tuple[str, int]
Read = Callable[[Measurement], float | None]


@dataclass(frozen=True)
class Figure:
    """What a metric's name stands for. Rounds of a `timed` one differ by chance, so that it needs an interval."""

    read: Read | None  # None: timed
    higher_is_better: bool = False
    positive: bool = False  # a size: nothing was measured where it is 0 or less


@dataclass(frozen=True)
class Metric:
    """One figure that is compared, and how far it may get worse."""

    name: str  # without the limit: latency.median
    margin: float  # above 0: a share if relative, else in the metric's own unit
    relative: bool

    @property
    def timed(self) -> bool:
        """Whether it is a time, of which every round is a sample."""
        return FIGURES[self.name].read is None

    @property
    def higher_is_better(self) -> bool:
        """Of likenesses."""
        return FIGURES[self.name].higher_is_better

    @property
    def positive(self) -> bool:
        """Whether 0 or less says that nothing was measured, as of memory."""
        return FIGURES[self.name].positive

    def value(self, measurement: Measurement) -> float | None:
        """The value of a metric that is not timed; None where the record has none."""
        read = FIGURES[self.name].read
        return None if read is None else read(measurement)

    def samples(self, measurement: Measurement) -> list[tuple[Pair, float]]:
        """(prompt_id, seed) and seconds of each valid round, in time order, of a timed metric."""
        if self.name == "latency.median":
            return measurement.paired_latencies_s
        stage = self.name.split(".")[1]
        valid = [r for r in measurement.rounds if r.valid and stage in r.stages_s]
        return [((r.prompt_id, r.seed), r.stages_s[stage]) for r in valid]

    def __str__(self) -> str:
        """As it is written: `latency.median:3%`."""
        sign = "-" if self.higher_is_better else ""
        return f"{self.name}:{100 * self.margin:g}%" if self.relative else f"{self.name}:{sign}{self.margin:g}"


def parse_metric(text: str) -> Metric:
    """A metric as a user writes it. Raises ConfigError naming what is wrong and what there is."""
    name, _, limit = text.partition(":")
    found = re.fullmatch(r"(-?\d+(?:\.\d+)?)(%?)", limit)
    if found is None or float(found[1]) == 0:
        raise ConfigError("--metric", text, "must be NAME:LIMIT, such as latency.median:3% or quality.ssim:-0.01")
    if name not in FIGURES:
        raise ConfigError("--metric", text, f"there is no metric {name!r}; there are: {', '.join(FIGURES)}")
    value, relative = float(found[1]), bool(found[2])
    if relative and abs(value) >= 100:
        raise ConfigError("--metric", text, "a limit in per cent lies below 100")
    falls = FIGURES[name].higher_is_better
    if (value < 0) != (falls and not relative):
        way = f"worse is less, so its limit is {-abs(value):g}" if falls else "worse is more, so its limit is above 0"
        raise ConfigError("--metric", text, "a limit in per cent is above 0" if relative else f"of {name} {way}")
    return Metric(name, abs(value) / 100 if relative else abs(value), relative)


def _memory(key: str) -> Figure:
    return Figure(lambda measurement: getattr(measurement.memory, key), positive=True)


def _images(part: str, key: str, pick: Callable[[Sequence[float]], float], higher_is_better: bool) -> Figure:
    """A statistic over the images of `Measurement.quality` or `.prompt_fidelity`."""

    def read(measurement: Measurement) -> float | None:
        values = [
            _psnr_db(image) if key == "psnr_db" else getattr(image, key) for image in getattr(measurement, part) or []
        ]
        known = [value for value in values if value is not None]
        return pick(known) if known else None

    return Figure(read, higher_is_better)


def _psnr_db(image: ImageQuality) -> float | None:
    return IDENTICAL_DB if image.identical or image.psnr_db is None else min(image.psnr_db, IDENTICAL_DB)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _of_images() -> dict[str, Figure]:
    kinds = [("quality", key, key, True) for key in ("ssim", "ms_ssim", "psnr_db")]
    kinds += [("quality", key, key, False) for key in ("lpips", "latent_rel_error")]
    kinds += [("prompt_fidelity", "share_right", "prompt", True)]
    figures = {}
    for part, key, shown, higher in kinds:
        name = f"quality.{shown.removesuffix('_db')}"
        figures[name] = _images(part, key, _mean, higher)
        figures[f"{name}.median"] = _images(part, key, median, higher)
        figures[f"{name}.worst"] = _images(part, key, min if higher else max, higher)
    return figures


FIGURES: dict[str, Figure] = {
    "latency.median": Figure(None),
    **{f"stages.{stage}.median": Figure(None) for stage in ("text_encode", "denoise", "decode")},
    **{f"memory.{p}": _memory(f"{p}_bytes") for p in ("peak_device", "peak_reserved", "peak_allocated")},
    "memory.host_peak_rss": _memory("host_peak_rss_bytes"),
    **_of_images(),
}
"""By name; those of images are means unless they say otherwise."""
