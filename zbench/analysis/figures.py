"""One row of figures a trial, derived from the raw samples of its last record, every time anew.

It refuses to mix sources: a speed-up compares measured with measured or projected with projected.
It formats nothing; `cells` and `table` do.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING

from zbench.analysis.labels import unique_labels
from zbench.analysis.quality import mean, quality_figures
from zbench.config import DBCacheConfig
from zbench.measurement import SLOWING, Measurement, Round, Source
from zbench.record import Reason, Record, State
from zbench.stats import median, median_interval, paired_speedup, quantile
from zbench.store import latest_records

if TYPE_CHECKING:
    import pandas as pd

NOT_VALIDATED = "not validated on Z-Image-Turbo"
BEYOND_SKIPPING = 1.2  # a speed-up this many times what skipped steps can give has another cause
INVALID = 0.5  # share of rounds above which those that are left may not stand for the trial
DISTURBED = 0.5  # share of rounds above which the median may be a disturbed one
SLOWED = 1.2  # a baseline whose median is this many times its quickest call had not the machine to itself


@dataclass(frozen=True)
class TrialSummary:
    """A trial's figures. None: it cannot be had, and `reasons` of the measurement says why."""

    sweep: str
    trial_id: str
    baseline_id: str  # the trial it is compared with
    label: str
    family: str  # none, dbcache, taylorseer or scm
    is_baseline: bool
    has_default_cache: bool  # DBCache with cache-dit's own defaults
    state: State
    source: Source | None
    latency_median_s: float | None = None
    latency_low_s: float | None = None  # 95 % interval of the median; None under 6 rounds or projected
    latency_high_s: float | None = None
    latency_p90_s: float | None = None
    speedup: float | None = None  # baseline's time for the workload over this one's (`stats.paired`)
    images: int = 1  # a call, which latencies are of
    images_per_s: float | None = None  # images over the sum of their latencies
    peak_memory_bytes: int | None = None
    memory_kind: str | None = None  # device, reserved, allocated (torch's allocator) or host RSS
    hardware: str | None = None  # title of what it is projected onto
    hardware_memory_gib: float | None = None  # of one device of it
    cached_steps: float | None = None  # mean an image
    steps: int | None = None
    identical_images: int | None = None
    compared_images: int | None = None
    psnr_mean_db: float | None = None  # of the images that are not identical
    psnr_worst_db: float | None = None
    ssim_mean: float | None = None
    ssim_worst: float | None = None
    ms_ssim_mean: float | None = None
    ms_ssim_worst: float | None = None
    latent_rel_error: float | None = None  # mean
    latent_rel_error_worst: float | None = None  # the largest
    lpips_mean: float | None = None
    lpips_worst: float | None = None  # the largest
    within_noise: bool = False  # no image differs more than the baseline's own do when they are made twice
    prompt_fidelity_mean: float | None = None  # share of the attributes asked for that are right, 0 to 1
    prompt_fidelity_worst: float | None = None
    clip_mean: float | None = None  # 0 to 100
    clip_worst: float | None = None
    noise_identical: bool | None = None  # of a baseline: whether its images made once more are the same
    noise_ssim_worst: float | None = None
    noise_psnr_worst_db: float | None = None  # of the images that are not identical
    latency_source: Source | None = None
    memory_source: Source | None = None
    cached_steps_source: Source | None = None
    quality_source: Source | None = None
    stop_reason: str | None = None
    rounds: int = 0  # valid ones
    invalid_rounds: int = 0
    joules_an_image: float | None = None  # of the whole device over the timed block; None under 10 s of it
    power_limited: float | None = None  # share of the device's samples in which its power limit held its clock down
    disturbed_rounds: int = 0  # by the host; they count all the same
    caveats: tuple[str, ...] = ()  # why these figures should not be trusted
    missing: tuple[tuple[str, str], ...] = ()  # value's path, why it is None
    reason_code: str | None = None
    reason: str | None = None

    @property
    def is_trusted(self) -> bool:
        """Whether nothing speaks against these figures: only then may the trial be called the best of any."""
        return not self.caveats

    @property
    def misfit(self) -> str | None:
        """That it needs more memory than the hardware it is projected onto has, which is one of its caveats."""
        peak, memory_gib = self.peak_memory_bytes, self.hardware_memory_gib
        if peak is None or memory_gib is None or peak <= memory_gib * 2**30:
            return None
        return f"does not fit into the {memory_gib:g} GiB of {self.hardware or 'its cap'}"

    @property
    def doubts(self) -> tuple[str, ...]:
        """Its caveats but a projection's `misfit`: why the figures themselves should not be trusted."""
        return tuple(caveat for caveat in self.caveats if self.hardware is None or caveat != self.misfit)

    @property
    def is_identical(self) -> bool:
        """Whether every image equals the baseline's."""
        return bool(self.compared_images) and self.identical_images == self.compared_images

    @property
    def is_unchanged(self) -> bool:
        """Whether no image differs from the baseline's by more than noise."""
        return self.is_identical or self.within_noise

    def why_missing(self, path: str) -> str | None:
        """Why `path` (`quality`, `memory.peak_device_bytes`, …) is None, if its worker said so."""
        said = dict(self.missing)
        return said.get(path) or said.get(path.split(".", maxsplit=1)[0])


def summarise_trials(records: Iterable[Record]) -> list[TrialSummary]:
    """Rows in the order of every table: each baseline and the trials compared with it, fastest first;
    then the FAILED, then the PRUNED.
    """
    last = latest_records(records)
    labels = unique_labels(last)
    by_id = {(r.sweep, r.trial_id): r.measurement for r in last}
    rows = [
        _row(record, label, by_id.get((record.sweep, record.baseline_id)))
        for record, label in zip(last, labels, strict=True)
    ]
    rows = _with_implausible(rows, last)
    groups = list(dict.fromkeys((r.sweep, r.baseline_id) for r in last))

    def place(row: TrialSummary) -> tuple[int, int, bool, float, float, str]:
        return (
            ("COMPLETE", "FAILED", "PRUNED").index(row.state),
            groups.index((row.sweep, row.baseline_id)),
            not row.is_baseline,
            -(row.speedup or 0.0),
            row.latency_median_s or 0.0,
            row.label,
        )

    return sorted(rows, key=place)


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
    hardware = record.config.get("hardware") or {}
    common = TrialSummary(
        sweep=record.sweep,
        trial_id=record.trial_id,
        baseline_id=record.baseline_id,
        label=label,
        family=_family(record),
        is_baseline=record.is_baseline,
        has_default_cache=_has_default_cache(record),
        state=record.state,
        source=record.source,
        reason_code=reason.code if reason else None,
        reason=reason.message if reason else None,
        hardware=hardware.get("title") or hardware.get("name"),
        hardware_memory_gib=_memory_gib(record),
    )
    if record.measurement is None:
        return common
    return _with_figures(common, record, record.measurement, baseline)


def _with_figures(
    row: TrialSummary, record: Record, measurement: Measurement, baseline: Measurement | None
) -> TrialSummary:
    samples = latency_samples_s(measurement)
    interval = None if measurement.projection else (median_interval(samples) if samples else None)
    images = rounds_by_image(measurement.rounds)
    memory_bytes, memory_kind = _memory(measurement)
    sources = measurement.sources
    row = replace(
        row,
        source=measurement.source,
        latency_median_s=median(samples) if samples else None,
        latency_low_s=interval[0] if interval else None,
        latency_high_s=interval[1] if interval else None,
        latency_p90_s=quantile(samples, 0.9) if samples else None,
        speedup=_speedup(measurement, baseline),
        images_per_s=_images(measurement) / sum(samples) if samples and sum(samples) > 0 else None,
        images=max((r.images for r in measurement.rounds), default=1),
        peak_memory_bytes=memory_bytes,
        memory_kind=memory_kind,
        cached_steps=mean(mean(len(r.cached_steps) for r in rounds) for rounds in images.values()),
        steps=_steps(record, measurement),
        latency_source=sources.get("latency"),
        memory_source=sources.get("memory"),
        cached_steps_source=sources.get("cached_steps"),
        quality_source=sources.get("quality"),
        stop_reason=measurement.stop_reason,
        rounds=sum(r.valid for r in measurement.rounds),
        invalid_rounds=sum(not r.valid for r in measurement.rounds),
        joules_an_image=_joules_an_image(measurement),
        power_limited=measurement.telemetry.power_limited,
        disturbed_rounds=sum(bool(r.disturbances) for r in measurement.rounds),
        missing=tuple(measurement.reasons.items()),
        **quality_figures(measurement, baseline),
    )
    misfit = () if row.misfit is None else (row.misfit,)
    return replace(row, caveats=(*measurement.validity, *_disturbed(measurement), *_invalid(measurement), *misfit))


def _invalid(measurement: Measurement) -> tuple[str, ...]:
    """A caveat where so many rounds do not count that the others are too few to speak for the trial."""
    rounds = measurement.rounds
    invalid = [r for r in rounds if not r.valid]
    if len(invalid) <= INVALID * len(rounds):
        return () if rounds or measurement.projection else ("no round was valid",)
    counts = _counted(cause for r in invalid for cause in r.invalid_reasons)
    told = (
        "no round was valid" if len(invalid) == len(rounds) else f"{len(invalid)} of {len(rounds)} rounds were invalid"
    )
    return (f"{told} ({counts})" if counts else told,)


def _images(measurement: Measurement) -> int:
    """Images made in the calls of `latency_samples_s`; a projected call makes as many as its proxy's."""
    made = {(r.prompt_id, r.seed): r.images for r in measurement.rounds}
    return sum(made.get(pair, 1) for pair, _ in measurement.paired_latencies_s)


def _joules_an_image(measurement: Measurement) -> float | None:
    """Every round of the block counts, also those that are not valid: they drew power too."""
    images = sum(r.images for r in measurement.rounds)
    return None if measurement.energy is None or not images else measurement.energy.joules / images


def _memory_gib(record: Record) -> float | None:
    """What the trial may use: of the hardware it is projected onto, or under the cap it was held to."""
    hardware = record.config.get("hardware") or {}
    sizes = (hardware.get("memory_gib"), hardware.get("vram_limit_gib"), record.config.get("vram_limit_gib"))
    return min((size for size in sizes if size is not None), default=None)


def _disturbed(measurement: Measurement) -> tuple[str, ...]:
    """A caveat where so many rounds were disturbed that the median may be one of them."""
    rounds = measurement.rounds
    disturbed = [r for r in rounds if set(r.disturbances) & set(SLOWING)]
    if len(disturbed) <= DISTURBED * len(rounds):
        return ()
    counts = _counted(cause.replace("_", " ") for r in disturbed for cause in r.disturbances if cause in SLOWING)
    return (f"{len(disturbed)} of {len(rounds)} rounds were disturbed ({counts}); sweep.fresh=true measures again",)


def _counted(causes: Iterable[str]) -> str:
    """Each cause and how often it was, the commonest first."""
    return ", ".join(f"{cause} {count}" for cause, count in Counter(causes).most_common())


def _family(record: Record) -> str:
    cache = record.config.get("cache", {})
    return "taylorseer" if cache.get("enable_taylorseer") else str(cache.get("method", "none"))


def _speedup(measurement: Measurement, baseline: Measurement | None) -> float | None:
    """None without a baseline, or where one is measured and the other projected."""
    if baseline is None or baseline.sources.get("latency") != measurement.sources.get("latency"):
        return None
    return paired_speedup(measurement.paired_latencies_s, baseline.paired_latencies_s)


def _has_default_cache(record: Record) -> bool:
    defaults = {key: value for key, value in asdict(DBCacheConfig()).items() if key != "grid"}
    return bool(record.config.get("cache") == defaults)


def _with_implausible(rows: Sequence[TrialSummary], records: Sequence[Record]) -> list[TrialSummary]:
    """Marks speed-ups beyond what skipping can give: the baseline where its own calls show that it was slowed.

    Otherwise the trial is marked, as it cannot be told which of the two was disturbed.
    """
    slowed = {(r.sweep, r.trial_id) for r in records if r.measurement is not None and _was_slowed(r.measurement)}
    blamed = set()
    marked = []
    by_id = {(r.sweep, r.trial_id): r for r in records}
    for row, record in zip(rows, records, strict=True):
        beyond = _beyond_skipping(row, record, by_id.get((row.sweep, row.baseline_id)))
        if beyond is not None and (row.sweep, row.baseline_id) in slowed:
            blamed.add((row.sweep, row.baseline_id))
        elif beyond is not None:
            told = f"{beyond}: it or its baseline was disturbed, which cannot be told; measure both again"
            row = replace(row, caveats=(*row.caveats, f"{told} with sweep.fresh=true"))
        marked.append(row)
    said = (
        f"the machine was busy while it ran (its median is more than {SLOWED:g} times its quickest call), so that "
        "speed-ups over it are too high; measure again with sweep.fresh=true"
    )
    return [
        replace(row, caveats=(*row.caveats, said)) if (row.sweep, row.trial_id) in blamed else row for row in marked
    ]


def _beyond_skipping(row: TrialSummary, record: Record, baseline: Record | None) -> str | None:
    """Computed and sharded as the baseline is, N steps of which c are skipped take at least (N - c)/N of its time."""
    speedup, cached_steps, steps = row.speedup, row.cached_steps, row.steps
    if speedup is None or cached_steps is None or not steps or baseline is None or cached_steps >= steps:
        return None
    if any(record.config.get(group) != baseline.config.get(group) for group in ("parallel", "offload", "compute")):
        return None
    most = steps / (steps - cached_steps)
    if speedup <= most * BEYOND_SKIPPING:
        return None
    return f"{speedup:.2f}× is more than skipping {cached_steps:.1f} of {steps} steps can give ({most:.2f}× at most)"


def _was_slowed(baseline: Measurement) -> bool:
    """Whether the typical round took far longer than the quickest call, warm-ups included, where none skips a step."""
    samples = [] if baseline.projection is not None else latency_samples_s(baseline)
    return bool(samples) and median(samples) > SLOWED * min([*samples, *baseline.warmup_latencies_s])


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
