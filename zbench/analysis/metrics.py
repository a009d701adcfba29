"""The registry of metrics: each figure's name, unit, direction, and the one place that reads it from a measurement.

Progress, tables, gates, recommendations, exports and searches all ask here, so that one figure has one meaning. A name
is a record's path without its unit, and a statistic where there is more than one sample.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from zbench.analysis.outside import outside_time
from zbench.analysis.serving import ServingFigures, serving_figures
from zbench.measurement import Communication, ImageQuality, Measurement, RankView, Request
from zbench.stats import median, quantile

IDENTICAL_DB = 100.0
"""What an identical image counts as, and the most that any does: the least error in 256 × 256 pixels has 101 dB."""

STAGES = ("text_encode", "denoise", "decode")

ImageId = tuple[str, int]
"""Prompt id and seed."""

Samples = list[tuple[ImageId, float]]
"""Image and value of each valid round, in time order."""


@dataclass(frozen=True)
class Metric:
    """One figure of a trial.

    `read` gives it in `unit`, or None where the record has none. `samples` are set where rounds differ by chance, so
    that a verdict needs an interval. `exact`: a figure without chance in it, which a gate may compare as it is.
    `once`: a run has one such figure, chance and all; a gate compares it as it is, and says that it is one sample.
    """

    name: str
    unit: str
    about: str  # one of measurement.METRICS, whose source is this figure's
    read: Callable[[Measurement], float | None]
    higher_is_better: bool = False
    images: str = ""  # how images are combined: mean, median, worst; "" where there are none to combine
    samples: Callable[[Measurement], Samples] | None = None
    exact: bool = False
    once: bool = False
    positive: bool = False  # a size: nothing was measured where it is 0 or less
    of_likeness: bool = False  # to the reference's images, of which a reference has none
    judge: str = ""  # key of `measure` that names the judge's weights; "": it has none


def latencies_s(measurement: Measurement) -> list[float]:
    """Seconds of each valid round, or of each projected one."""
    return [latency_s for _, latency_s in measurement.paired_latencies_s]


def rounds_by_image(rounds: Iterable[Request]) -> dict[ImageId, list[Request]]:
    """Rounds of each image (prompt and seed) whose steps count, so that none counts more for having been made more
    often."""
    images: dict[ImageId, list[Request]] = {}
    for r in rounds:
        if r.shows_steps:
            images.setdefault((r.prompt_id, r.seed), []).append(r)
    return images


def mean(values: Iterable[float | None]) -> float | None:
    """Of the known ones; None where there are none."""
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None


def psnr_db(quality: ImageQuality) -> float | None:
    """Of one image, at most IDENTICAL_DB, which is also what an identical one counts as; None where it is unknown."""
    if quality.identical:
        return IDENTICAL_DB
    return None if quality.psnr_db is None else min(quality.psnr_db, IDENTICAL_DB)


def pooled_psnr_db(values: Sequence[float]) -> float:
    """The PSNR of the mean squared error over all images, so that an identical image is one without an error."""
    return -10 * math.log10(sum(10 ** (-db / 10) for db in values) / len(values))


HOST_RSS = "host RSS"
"""The kind of memory that a process keeps: its peak is that of all that it did so far."""


def peak_memory(measurement: Measurement) -> tuple[int | None, str | None]:
    """The peak in bytes that says most, and which it is: device, reserved or allocated (torch's), host RSS, or server,
    where that alone says."""
    if measurement.projection is not None:
        return measurement.projection.peak_device_bytes, "device"
    memory = measurement.memory
    kinds = (
        (memory.peak_device_bytes, "device"),
        (memory.peak_reserved_bytes, "reserved"),
        (memory.peak_allocated_bytes, "allocated"),
        (memory.host_peak_rss_bytes, HOST_RSS),
        (max((r.server_peak_bytes for r in measurement.requests if r.server_peak_bytes), default=None), "server"),
    )
    return next(((size, kind) for size, kind in kinds if size is not None), (None, None))


def device_memory_bytes(measurement: Measurement) -> float | None:
    """The peak on the device; None where only the host's is known, or what a server says of some memory of its own."""
    size, kind = peak_memory(measurement)
    return None if kind in (HOST_RSS, "server") else size


def rank_peak(view: RankView) -> tuple[int | None, str | None]:
    """The peak in bytes of one rank that says most, and which it is, as `peak_memory`."""
    kinds = (
        (view.peak_device_bytes, "device"),
        (view.peak_reserved_bytes, "reserved"),
        (view.peak_allocated_bytes, "allocated"),
        (view.host_peak_rss_bytes, HOST_RSS),
    )
    return next(((size, kind) for size, kind in kinds if size is not None), (None, None))


def exposed_share(communication: Communication) -> float | None:
    """Share (0 to 1) of a rank's forwards in which only a collective's kernel ran; None where none was seen."""
    return communication.exposed_s / communication.forwards_s if communication.forwards_s > 0 else None


def rank_stages_s(measurement: Measurement) -> dict[int, float]:
    """Rank to the median seconds of the stages of its valid requests; empty on one device.

    What comes after them is left out: the first rank of an image alone turns it into a picture.
    """
    by_rank: dict[int, list[float]] = {}
    for r in measurement.requests:
        for view in r.ranks if r.valid else ():
            by_rank.setdefault(view.rank, []).append(sum(view.stages_s.values()) or view.latency_s)
    return {rank: median(seconds) for rank, seconds in sorted(by_rank.items())}


def _largest_rank(measurement: Measurement) -> float | None:
    """Peak of the fullest rank, over the valid requests."""
    peaks = [rank_peak(view)[0] for r in measurement.requests if r.valid for view in r.ranks]
    return max((peak for peak in peaks if peak is not None), default=None)


def _exposed(measurement: Measurement) -> float | None:
    """Of the rank that waits most."""
    shares = [share for c in measurement.communication if (share := exposed_share(c)) is not None]
    return max(shares, default=None)


def _median_latency(measurement: Measurement) -> float | None:
    samples = latencies_s(measurement)
    return median(samples) if samples else None


def _latency_quantile(q: float) -> Callable[[Measurement], float | None]:
    def read(measurement: Measurement) -> float | None:
        samples = latencies_s(measurement)
        return quantile(samples, q) if samples else None

    return read


def _of_load(name: str, unit: str, figure: Callable[[ServingFigures], float | None], *, more: bool = False) -> Metric:
    """A figure that only a window of load has."""

    def read(measurement: Measurement) -> float | None:
        found = serving_figures(measurement)
        return None if found is None else figure(found)

    return Metric(name, unit, "latency", read, higher_is_better=more)


def _throughput(measurement: Measurement) -> float | None:
    """Images over the wall time of the window that went to them.

    A projection has no window, and records of schema 1 do not know theirs: there it is over the sum of the latencies. A
    projected call makes as many images as its proxy's.
    """
    valid = [r for r in measurement.requests if r.valid]
    total_s = measurement.window.wall_s_of(valid) if measurement.projection is None else None
    if total_s is None:
        total_s = sum(latencies_s(measurement))
    made = {(r.prompt_id, r.seed): r.images for r in measurement.requests}
    images = sum(made.get(image, 1) for image, _ in measurement.paired_latencies_s)
    return images / total_s if total_s > 0 else None


def _rates(measurement: Measurement) -> Samples:
    """Images a second of each valid round, without what zbench does between two."""
    made = {(r.prompt_id, r.seed): r.images for r in measurement.requests}
    return [(image, made[image] / latency_s) for image, latency_s in measurement.paired_latencies_s if latency_s > 0]


def _joules_an_image(measurement: Measurement) -> float | None:
    """Every request of its own counts, also those that are not valid: they drew power too."""
    images = sum(r.images for r in measurement.requests)
    return None if measurement.energy is None or not images else measurement.energy.joules / images


def _cached_steps(measurement: Measurement) -> float | None:
    """Mean an image, so that none counts more for having been made more often. None where a server does not say."""
    if measurement.effective.tells_cached_steps is False:
        return None
    images = rounds_by_image(measurement.requests)
    return mean(mean(len(r.cached_steps) for r in rounds) for rounds in images.values())


def _stage(stage: str) -> Metric:
    def samples(measurement: Measurement) -> Samples:
        if measurement.projection is not None:
            return []  # the rounds are its proxy's
        valid = [r for r in measurement.requests if r.valid and r.stages_s.get(stage, 0.0) > 0]  # 0: not timed
        return [((r.prompt_id, r.seed), r.stages_s[stage]) for r in valid]

    def read(measurement: Measurement) -> float | None:
        seconds = [s for _, s in samples(measurement)]
        return median(seconds) if seconds else None

    return Metric(f"stages.{stage}.median", "s", "latency", read, samples=samples)


def _memory(key: str) -> Metric:
    def read(measurement: Measurement) -> float | None:
        size: int | None = getattr(measurement.memory, f"{key}_bytes")
        return size

    return Metric(f"memory.{key}", "bytes", "memory", read, exact=True, positive=True)


def _of_images(
    name: str,
    unit: str,
    values: Callable[[Measurement], list[float | None]],
    *,
    higher_is_better: bool = True,
    of_likeness: bool = True,
    judge: str = "",
    together: Callable[[list[float]], float] = lambda known: sum(known) / len(known),
) -> list[Metric]:
    """The mean over images (or what is `together` in its place), their median, and the worst of them."""

    def combined(pick: Callable[[list[float]], float]) -> Callable[[Measurement], float | None]:
        def read(measurement: Measurement) -> float | None:
            known = [v for v in values(measurement) if v is not None]
            return pick(known) if known else None

        return read

    ways: tuple[tuple[str, str, Callable[[list[float]], float]], ...] = (
        ("", "mean", together),
        (".median", "median", median),
        (".worst", "worst", min if higher_is_better else max),
    )
    return [
        Metric(
            name=name + end,
            unit=unit,
            about="quality",
            read=combined(pick),
            higher_is_better=higher_is_better,
            images=images,
            exact=True,
            of_likeness=of_likeness,
            judge=judge,
        )
        for end, images, pick in ways
    ]


def _likeness(key: str) -> Callable[[Measurement], list[float | None]]:
    return lambda m: [getattr(image, key) for image in m.quality or []]


_ALL: list[Metric] = [
    Metric("latency.median", "s", "latency", _median_latency, samples=lambda m: list(m.paired_latencies_s)),
    *(Metric(f"latency.p{q}", "s", "latency", _latency_quantile(q / 100)) for q in (90, 95, 99)),
    Metric("cold.load", "s", "latency", lambda m: m.cold.load_s, once=True, positive=True),
    Metric("cold.first_latency", "s", "latency", lambda m: m.cold.first_latency_s, once=True, positive=True),
    Metric("cold.compile", "s", "latency", lambda m: m.compile_s, once=True),
    Metric("throughput", "images/s", "latency", _throughput, higher_is_better=True, samples=_rates),
    _of_load("response.p95", "s", lambda load: load.response_s(0.95)),
    _of_load("queue.p95", "s", lambda load: quantile(load.queued_s, 0.95) if load.queued_s else None),
    _of_load("requests.rate", "requests/s", lambda load: load.requests_per_s, more=True),
    _of_load("requests.failed", "requests", lambda load: load.failed_requests),
    _of_load("goodput", "requests/s", lambda load: load.goodput_per_s, more=True),
    Metric("server.told", "s", "latency", lambda m: None if (o := outside_time(m)) is None else o.server_s),
    Metric("server.outside", "s", "latency", lambda m: None if (o := outside_time(m)) is None else o.seconds),
    *(_stage(stage) for stage in STAGES),
    Metric("memory.peak", "bytes", "memory", lambda m: peak_memory(m)[0], positive=True),
    *(_memory(key) for key in ("peak_device", "peak_reserved", "peak_allocated", "host_peak_rss")),
    Metric("memory.on_device", "bytes", "memory", device_memory_bytes, positive=True),
    Metric("memory.rank", "bytes", "memory", _largest_rank, exact=True, positive=True),
    Metric("communication.exposed", "", "latency", _exposed),
    Metric("energy.per_image", "J", "latency", _joules_an_image, once=True, positive=True),
    Metric("steps.cached", "steps", "cached_steps", _cached_steps, higher_is_better=True),
    *_of_images("quality.ssim", "", _likeness("ssim")),
    *_of_images("quality.ms_ssim", "", _likeness("ms_ssim")),
    *_of_images("quality.psnr", "dB", lambda m: [psnr_db(i) for i in m.quality or []], together=pooled_psnr_db),
    *_of_images("quality.lpips", "", _likeness("lpips"), higher_is_better=False, judge="lpips_weights"),
    *_of_images("quality.latent_rel_error", "", _likeness("latent_rel_error"), higher_is_better=False),
    *_of_images("quality.prompt", "", lambda m: [p.share_right for p in m.prompt_fidelity or []], of_likeness=False),
    *_of_images(
        "quality.clip",
        "",
        lambda m: [p.clip_score for p in m.prompt_fidelity or []],
        of_likeness=False,
        judge="clip_weights",
    ),
]

REGISTRY: dict[str, Metric] = {metric.name: metric for metric in _ALL}
"""By name."""

GATED: dict[str, Metric] = {
    name: metric for name, metric in REGISTRY.items() if metric.samples is not None or metric.exact or metric.once
}
"""Those a gate can judge: with samples for an interval, without chance, or measured once a run."""
