"""One row of figures a trial, derived from the raw samples of its last record, every time anew.

It refuses to mix sources: a speed-up compares measured with measured or projected with projected.
It formats nothing; `cells` and `table` do.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

from zbench.measurement import ImageQuality, Measurement, Round, Source
from zbench.record import Reason, Record, State
from zbench.report.labels import unique_labels
from zbench.stats import median, median_interval, paired_speedup, quantile

if TYPE_CHECKING:
    import pandas as pd

NOT_VALIDATED = "not validated on Z-Image-Turbo"
BEYOND_SKIPPING = 1.2  # a speed-up this many times what skipped steps can give has another cause


@dataclass(frozen=True)
class TrialSummary:
    """A trial's figures. None: it cannot be had, and `reasons` of the measurement says why."""

    sweep: str
    trial_id: str
    baseline_id: str  # the trial it is compared with
    label: str
    family: str  # none, dbcache, taylorseer or scm
    is_baseline: bool
    state: State
    source: Source | None
    latency_median_s: float | None = None
    latency_low_s: float | None = None  # 95 % interval of the median; None under 6 rounds or projected
    latency_high_s: float | None = None
    latency_p90_s: float | None = None
    speedup: float | None = None  # baseline's time for the workload over this one's (`stats.paired`)
    images_per_s: float | None = None  # images over the sum of their latencies
    peak_memory_bytes: int | None = None
    memory_kind: str | None = None  # device, reserved, allocated (torch's allocator) or host RSS
    cached_steps: float | None = None  # mean an image
    steps: int | None = None
    identical_images: int | None = None
    compared_images: int | None = None
    psnr_mean_db: float | None = None  # of the images that are not identical
    psnr_worst_db: float | None = None
    ssim_mean: float | None = None
    ssim_worst: float | None = None
    latent_rel_error: float | None = None  # mean
    latency_source: Source | None = None
    memory_source: Source | None = None
    cached_steps_source: Source | None = None
    quality_source: Source | None = None
    stop_reason: str | None = None
    rounds: int = 0  # valid ones
    invalid_rounds: int = 0
    caveats: tuple[str, ...] = ()  # why these figures should not be trusted
    missing: tuple[tuple[str, str], ...] = ()  # value's path, why it is None
    reason_code: str | None = None
    reason: str | None = None

    @property
    def is_trusted(self) -> bool:
        """Whether nothing speaks against these figures: only then may the trial be called the best of any."""
        return not self.caveats

    @property
    def is_identical(self) -> bool:
        """Whether every image equals the baseline's."""
        return bool(self.compared_images) and self.identical_images == self.compared_images

    def why_missing(self, path: str) -> str | None:
        """Why `path` (`quality`, `memory.peak_device_bytes`, …) is None, if its worker said so."""
        said = dict(self.missing)
        return said.get(path) or said.get(path.split(".", maxsplit=1)[0])


def latest_records(records: Iterable[Record]) -> list[Record]:
    """The last record of each trial of each sweep, in order of first appearance."""
    last: dict[tuple[str, str], Record] = {}
    for record in records:
        last[record.sweep, record.trial_id] = record
    return list(last.values())


def summarise_trials(records: Iterable[Record]) -> list[TrialSummary]:
    """Rows in the order of every table: each baseline and the trials compared with it, fastest first;
    then the FAILED, then the PRUNED.
    """
    last = latest_records(records)
    labels = unique_labels(last)
    by_id = {(r.sweep, r.trial_id): r.measurement for r in last}
    rows = [
        (record, _row(record, label, by_id.get((record.sweep, record.baseline_id))))
        for record, label in zip(last, labels, strict=True)
    ]
    groups = list(dict.fromkeys((r.sweep, r.baseline_id) for r in last))

    def place(pair: tuple[Record, TrialSummary]) -> tuple[int, int, bool, float, float, str]:
        record, row = pair
        return (
            ("COMPLETE", "FAILED", "PRUNED").index(row.state),
            groups.index((record.sweep, record.baseline_id)),
            not row.is_baseline,
            -(row.speedup or 0.0),
            row.latency_median_s or 0.0,
            row.label,
        )

    return [row for _, row in sorted(rows, key=place)]


def summarise(records: Iterable[Record]) -> "pd.DataFrame":
    """`summarise_trials` as a table: one row a trial, a column a field of TrialSummary, None where there is none."""
    import pandas as pd

    columns = [f.name for f in fields(TrialSummary) if f.name != "missing"]
    rows = [{name: getattr(row, name) for name in columns} for row in summarise_trials(records)]
    frame = pd.DataFrame(rows, columns=columns, dtype=object)
    frame["caveats"] = ["; ".join(row["caveats"]) or None for row in rows]
    frame["validation"] = [NOT_VALIDATED if row["source"] in ("proxy", "projected") else None for row in rows]
    return frame


def latency_samples_s(measurement: Measurement) -> list[float]:
    """Seconds of each valid round, or of each projected one."""
    return [latency_s for _, latency_s in measurement.paired_latencies_s]


def rounds_by_image(rounds: Iterable[Round]) -> dict[tuple[str, int], list[Round]]:
    """Valid rounds of each image (prompt and seed), so that no image counts more for having been made more often."""
    images: dict[tuple[str, int], list[Round]] = {}
    for r in rounds:
        if r.valid:
            images.setdefault((r.prompt_id, r.seed), []).append(r)
    return images


def _row(record: Record, label: str, baseline: Measurement | None) -> TrialSummary:
    reason: Reason | None = record.reason
    common = TrialSummary(
        sweep=record.sweep,
        trial_id=record.trial_id,
        baseline_id=record.baseline_id,
        label=label,
        family=_family(record),
        is_baseline=record.is_baseline,
        state=record.state,
        source=record.source,
        reason_code=reason.code if reason else None,
        reason=reason.message if reason else None,
    )
    if record.measurement is None:
        return common
    return _with_figures(common, record, record.measurement, baseline)


def _with_figures(
    row: TrialSummary, record: Record, measurement: Measurement, baseline: Measurement | None
) -> TrialSummary:
    samples = latency_samples_s(measurement)
    interval = None if measurement.projection else (median_interval(samples) if samples else None)
    speedup = _speedup(measurement, baseline)
    images = rounds_by_image(measurement.rounds)
    memory_bytes, memory_kind = _memory(measurement)
    quality = measurement.quality or []
    finite = [q.psnr_db for q in quality if q.psnr_db is not None]
    errors = [q.latent_rel_error for q in quality if q.latent_rel_error is not None]
    sources = measurement.sources
    steps = _steps(record, measurement)
    cached_steps = _mean([_mean([len(r.cached_steps) for r in rounds]) for rounds in images.values()])
    return replace(
        row,
        source=measurement.source,
        latency_median_s=median(samples) if samples else None,
        latency_low_s=interval[0] if interval else None,
        latency_high_s=interval[1] if interval else None,
        latency_p90_s=quantile(samples, 0.9) if samples else None,
        speedup=speedup,
        images_per_s=len(samples) / sum(samples) if samples and sum(samples) > 0 else None,
        peak_memory_bytes=memory_bytes,
        memory_kind=memory_kind,
        cached_steps=cached_steps,
        steps=steps,
        identical_images=sum(q.identical for q in quality) if quality else None,
        compared_images=len(quality) if quality else None,
        psnr_mean_db=_mean(finite),
        psnr_worst_db=min(finite, default=None),
        ssim_mean=_mean([q.ssim for q in quality]),
        ssim_worst=_worst_ssim(quality),
        latent_rel_error=_mean(errors),
        latency_source=sources.get("latency"),
        memory_source=sources.get("memory"),
        cached_steps_source=sources.get("cached_steps"),
        quality_source=sources.get("quality"),
        stop_reason=measurement.stop_reason,
        rounds=sum(r.valid for r in measurement.rounds),
        invalid_rounds=sum(not r.valid for r in measurement.rounds),
        caveats=(
            *measurement.validity,
            *([] if samples else ["no round was valid"]),
            *_implausible(record, speedup, cached_steps, steps),
        ),
        missing=tuple(measurement.reasons.items()),
    )


def _family(record: Record) -> str:
    cache = record.config.get("cache", {})
    return "taylorseer" if cache.get("enable_taylorseer") else str(cache.get("method", "none"))


def _speedup(measurement: Measurement, baseline: Measurement | None) -> float | None:
    """None without a baseline, or where one is measured and the other projected."""
    if baseline is None or baseline.sources.get("latency") != measurement.sources.get("latency"):
        return None
    return paired_speedup(measurement.paired_latencies_s, baseline.paired_latencies_s)


def _implausible(record: Record, speedup: float | None, cached_steps: float | None, steps: int | None) -> list[str]:
    """On the baseline's own devices N steps of which c are skipped take at least (N - c)/N of its time."""
    parallel = record.config.get("parallel", {})
    sharded = any(isinstance(degree, int) and degree > 1 for degree in parallel.values())
    if speedup is None or cached_steps is None or not steps or sharded or cached_steps >= steps:
        return []
    most = steps / (steps - cached_steps)
    if speedup <= most * BEYOND_SKIPPING:
        return []
    return [
        f"{speedup:.2f}× is more than skipping {cached_steps:.1f} of {steps} steps can give ({most:.2f}× at most): the "
        "machine was busier while the baseline ran; measure again with sweep.fresh=true"
    ]


def _memory(measurement: Measurement) -> tuple[int | None, str | None]:
    if measurement.projection is not None:
        return measurement.projection.peak_device_bytes, "device"
    memory = measurement.memory
    kinds = (
        (memory.peak_device_bytes, "device"),
        (memory.peak_reserved_bytes, "reserved"),
        (memory.peak_allocated_bytes, "allocated"),
        (memory.host_peak_rss_bytes, "host RSS"),
    )
    return next(((size, kind) for size, kind in kinds if size is not None), (None, None))


def _steps(record: Record, measurement: Measurement) -> int | None:
    asked = record.config.get("pipeline", {}).get("steps")
    if isinstance(asked, int):
        return asked
    return max((len(r.steps_s) for r in measurement.rounds), default=None)


def _worst_ssim(quality: Sequence[ImageQuality]) -> float | None:
    return min((q.ssim for q in quality), default=None)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None
