"""Why figures of a trial should not be trusted: sentences from raw rounds, each about the metrics it throws doubt on.

A caveat counts only where such a metric was measured: other load on this machine cannot spoil what a roofline computed.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from zbench.analysis.metrics import REGISTRY, latencies_s, rank_stages_s
from zbench.analysis.quality import is_its_own_reference
from zbench.measurement import CALLED, METRICS, SLOWING, Effective, Measurement
from zbench.methods.cache import method_of
from zbench.record import Record
from zbench.stats import Modes, median, two_modes
from zbench.trial import Trial

BEYOND_SKIPPING = 1.2  # a speed-up this many times what skipped steps can give has another cause
INVALID = 0.5  # share of rounds above which those that are left may not stand for the trial
DISTURBED = 0.5  # share of rounds above which the median may be a disturbed one
SLOWED = 1.2  # a baseline whose median is this many times its quickest call had not the machine to itself
STRAGGLING = 1.1  # a rank whose stages take so many times the ranks' median holds the others up
SHOWS = 1.03  # a speed-up below it is none that skipping a step of a few dozen gives
MOST_CUT = 3  # prompts that are named as cut; the others are counted


@dataclass(frozen=True)
class Caveat:
    """A sentence without a full stop, and the metrics (`measurement.METRICS`) that it throws doubt on."""

    text: str
    about: tuple[str, ...]

    def counts(self, measurement: Measurement) -> bool:
        """Whether any of the metrics it is about came from the rounds that were run."""
        return any(measurement.sources.get(metric) in ("measured", "proxy") for metric in self.about)


def own_caveats(measurement: Measurement) -> list[str]:
    """What a trial's own rounds say against it."""
    said = [*measurement.validity, *measurement.effective.doubts]
    found = [Caveat(text, ("latency", "memory")) for text in said]
    found += [
        *_failed(measurement),
        *_beside(measurement),
        *_disturbed(measurement),
        *_invalid(measurement),
        *_straggling(measurement),
        *_compiling(measurement),
    ]
    modes = two_levels(measurement)
    found += [] if modes is None else [Caveat(modes, ("latency",))]
    return [caveat.text for caveat in found if caveat.counts(measurement)]


def two_levels(measurement: Measurement) -> str | None:
    """That its latencies have two modes, or changed once within the window; None of a load, whose requests wait."""
    if measurement.projection is not None or measurement.window.arrivals.kind != "sequential":
        return None
    modes = two_modes(measurement.paired_latencies_s)
    return None if modes is None else levels_told(modes, _told_of_modes(measurement, modes))


def levels_told(modes: Modes, what_parts: str = "") -> str:
    """Both modes with their shares, or the shift; `what_parts` the modes, where that is known."""
    low, high = (f"{value:.3g} s" if value < 1000 else f"{value:.0f} s" for value in (modes.low, modes.high))
    n = len(modes.is_high)
    if modes.is_shift:
        levels = [(low, modes.n_low), (high, modes.n_high)]
        (before, first), (after, last) = reversed(levels) if modes.is_high[0] else levels
        return (
            f"its latency shifted from {before} (the first {first} requests) to {after} (the last {last}), and stayed"
        )
    return (
        f"its latency has two modes, {low} ({modes.n_low} of {n} requests) and {high} ({modes.n_high} of {n})"
        f"{what_parts}: a median and an interval stand for neither"
    )


def _told_of_modes(measurement: Measurement, modes: Modes) -> str:
    """What parts the slower requests from the others, where that was recorded."""
    requests = [r for r in measurement.requests if r.valid]
    slow, quick = (
        [r for r, is_high in zip(requests, modes.is_high, strict=True) if is_high is side] for side in (True, False)
    )
    if max(len(r.cached_steps) for r in slow) < min(len(r.cached_steps) for r in quick):
        return ", where fewer steps were skipped"
    disturbed = [cause for r in slow for cause in r.disturbances if cause in SLOWING]
    if all(set(r.disturbances) & set(SLOWING) for r in slow) and not any(
        set(r.disturbances) & set(SLOWING) for r in quick
    ):
        return f", all of which were disturbed ({_counted(cause.replace('_', ' ') for cause in disturbed)})"
    return ""


def other_content(record: Record, other: Record | None, role: str) -> str | None:
    """That `other`, the trial's reference or baseline, was made with other weights or configs.

    One that names other files is so on purpose (`sweep.reference_weights`); what those held when the trial was judged
    is in its measurement.
    """
    own, theirs = record.valid_measurement, None if other is None else other.valid_measurement
    if own is None or other is None or theirs is None:
        return None
    ours = Effective.of_content(own.reference_sha256) if on_purpose(record, other) else own.effective
    what = ours.differs_in_content(theirs.effective)
    if what is None:
        return None
    return f"its {role} was made with other {CALLED[what]}, so that the two are not compared; sweep again measures both"


def on_purpose(record: Record, other: Record) -> bool:
    """Whether `other`, its reference or baseline, names other weights or no LoRA: their content is to differ."""
    return other.trial_id != record.trial_id and record.trial.pipeline.named_files != other.trial.pipeline.named_files


def unlike_its_reference(record: Record, reference: Record) -> str | None:
    """That a trial's images are not its reference's although it skips no step and computes alike.

    Where weights wait changes no image, so offload may differ. It is the second net, beside the content of weights.
    """
    ours, theirs = record.valid_measurement, reference.valid_measurement
    if ours is None or theirs is None or not ours.quality or record.is_reference:
        return None
    may_skip = ours.effective.tells_cached_steps is False and method_of(record.trial.cache).skips
    if (
        may_skip
        or any(r.cached_steps for r in ours.requests)
        or not computes_alike(record.trial, reference.trial, offload=False)
    ):
        return None
    if is_its_own_reference(ours, theirs):
        return None
    worst = min(q.ssim for q in ours.quality)
    return (
        f"it skipped no step and computes as its reference does, yet its images differ (SSIM {worst:.3f} at worst): "
        "something else changed between the two; measure both again with sweep.fresh=true"
    )


def without_effect(record: Record, reference: Record | None, within_noise: bool, speedup: float | None) -> str | None:
    """That a server took a cache setting and shows nothing of it: the uncached images, or no more than their own noise
    and no speed-up.

    Where images were judged and are equal to the last byte, the measurement itself says so.
    """
    measured, method = record.valid_measurement, method_of(record.trial.cache)
    if measured is None or measured.effective.tells_cached_steps is not False or not method.skips:
        return None
    theirs = None if reference is None else reference.valid_measurement
    if measured.quality and all(one.identical for one in measured.quality):
        return None
    if theirs is not None and _hashes(measured) == _hashes(theirs):
        shown = "its images are the uncached ones to the last byte"
    elif within_noise and speedup is not None and speedup < SHOWS:
        shown = f"its images lie within the noise of the uncached ones and take as long ({speedup:.2f}×)"
    else:
        return None
    return f"the server was asked for {method.label}, and {shown}: it ignored the setting, or skipped no step by it"


def _hashes(measurement: Measurement) -> set[tuple[str, int, str | None]]:
    return {(r.prompt_id, r.seed, r.image_sha256) for r in measurement.requests}


def beyond_skipping(record: Record, baseline: Record | None, speedup: float | None) -> str | None:
    """Computed and sharded as the baseline is, a trial that computes n steps takes at least n/b of its time, where
    the baseline computes b.
    """
    if speedup is None or baseline is None or not computes_alike(record.trial, baseline.trial, offload=True):
        return None
    if record.trial.workload.is_load or record.trial.workload.mixes:
        return None  # who waits less is faster by more than what was skipped; and steps may be each prompt's own
    skipped, of_baseline = _skipped(record), _skipped(baseline)
    steps = record.trial.pipeline.steps
    if skipped is None or of_baseline is None or skipped >= steps:
        return None
    most = (steps - of_baseline) / (steps - skipped)
    if speedup <= most * BEYOND_SKIPPING:
        return None
    return f"{speedup:.2f}× is more than skipping {skipped:.1f} of {steps} steps can give ({most:.2f}× at most)"


def _skipped(record: Record) -> float | None:
    measured = record.valid_measurement
    return None if measured is None else REGISTRY["steps.cached"].read(measured)


def cut_prompts(record: Record) -> str | None:
    """What is to be said of its prompts that were longer than the pipeline takes; None where none was."""
    measured = record.valid_measurement
    if measured is None or not measured.effective.cut_tokens:
        return None
    cut, pipeline = measured.effective.cut_tokens, record.trial.pipeline
    listed = ", ".join(f"{prompt_id} by {count}" for prompt_id, count in list(cut.items())[:MOST_CUT])
    listed += f" and {len(cut) - MOST_CUT} more" if len(cut) > MOST_CUT else ""
    if record.trial.hardware is not None:
        return f"Prompts were cut, in tokens, by the proxy of {pipeline.name} alone: {listed}."
    way = f"pipeline.max_sequence_length={pipeline.max_sequence_length} ends them"
    return f"Prompts were cut, in tokens: {listed}; {way}, and what lies beyond is not painted ({pipeline.name})."


UNTOLD = ": it or its baseline was disturbed, which cannot be told; measure both again with sweep.fresh=true"
"""Added to `beyond_skipping` where the baseline's own calls do not show that it was slowed."""

BLAMED = (
    f"the machine was busy while it ran (its median is more than {SLOWED:g} times its quickest call), so that "
    "speed-ups over it are too high; measure again with sweep.fresh=true"
)
"""Of a baseline that was slowed, as an implausible speed-up over it and its own calls show."""


def computes_alike(trial: Trial, other: Trial, *, offload: bool) -> bool:
    """Whether two trials of one piece of work differ in step skipping at most; with `offload`, not in that either."""
    groups = [(trial.parallel, other.parallel), (trial.compute, other.compute), (trial.pipeline, other.pipeline)]
    groups += [(trial.offload, other.offload)] if offload else []
    return all(own == theirs for own, theirs in groups)


def was_slowed(baseline: Measurement) -> bool:
    """Whether the typical round took far longer than the quickest call, warm-ups included.

    Only of a trial that skips no step, so that its calls are alike; never of a projected one.
    """
    if baseline.projection is not None or any(r.cached_steps for r in baseline.requests):
        return False
    samples = latencies_s(baseline)
    return bool(samples) and median(samples) > SLOWED * min([*samples, *baseline.warmup_latencies_s])


def _failed(measurement: Measurement) -> list[Caveat]:
    """Requests of a load that brought no image, which statistics of the others do not show."""
    failures = measurement.window.failures
    if not failures:
        return []
    every = len(failures) + len(measurement.requests)
    said = f"{len(failures)} of {every} requests failed ({_counted(failed.code for failed in failures)})"
    return [Caveat(said, ("latency",))]


def _beside(measurement: Measurement) -> list[Caveat]:
    """Where another zbench may have measured on its device at the same time, by someone's choice."""
    turn = measurement.window.turn
    if turn is None or (turn.kept != "shared" and not turn.beside):
        return []
    if turn.kept == "shared":
        said = "it shared its device with whoever measured there (executor.share_device=true)"
    else:
        said = f"others measured on its device meanwhile, with executor.share_device=true: {'; '.join(turn.beside)}"
    return [Caveat(said, ("latency", "memory"))]


def _disturbed(measurement: Measurement) -> list[Caveat]:
    """Where so many rounds were disturbed that the median may be one of them."""
    rounds = measurement.requests
    disturbed = [] if measurement.quality_only else [r for r in rounds if set(r.disturbances) & set(SLOWING)]
    if len(disturbed) <= DISTURBED * len(rounds):
        return []
    counts = _counted(cause.replace("_", " ") for r in disturbed for cause in r.disturbances if cause in SLOWING)
    said = f"{len(disturbed)} of {len(rounds)} rounds were disturbed ({counts}); sweep.fresh=true measures again"
    return [Caveat(said, ("latency",))]


def _compiling(measurement: Measurement) -> list[Caveat]:
    """Where requests of the window compiled, as for prompts of a length that no warm-up had."""
    compiling = [r for r in measurement.requests if "compiled" in r.invalid_reasons]
    if not compiling or measurement.quality_only:
        return []
    seconds = sum(r.compile_s or 0.0 for r in compiling)
    took = f" ({seconds:.1f} s in all)" if seconds else ""
    said = f"{len(compiling)} of {len(measurement.requests)} requests compiled code{took}: warm-up had no such shapes"
    return [Caveat(said, ("latency",))]


def _invalid(measurement: Measurement) -> list[Caveat]:
    """Where so many rounds do not count that the others are too few to speak for the trial; of a load any, as the
    others waited for it."""
    rounds = measurement.requests
    invalid = [r for r in rounds if not r.shows_steps]
    if len(invalid) <= INVALID * len(rounds):
        slowed = [r for r in invalid if r.invalid_reasons != ["compiled"]]  # which is said by itself
        if slowed and measurement.window.arrivals.kind != "sequential":
            causes = _counted(cause for r in slowed for cause in r.invalid_reasons)
            said = f"{len(slowed)} of {len(rounds)} requests do not count ({causes}), and others waited for them"
            return [Caveat(said, ("latency",))]
        return [] if rounds or measurement.projection else [Caveat("no round was valid", METRICS)]
    reasons = [cause for r in invalid for cause in r.invalid_reasons]
    spoilt = not reasons or any(r.has_spoilt_images for r in invalid)
    told = (
        "no round was valid" if len(invalid) == len(rounds) else f"{len(invalid)} of {len(rounds)} rounds were invalid"
    )
    said = f"{told} ({_counted(reasons)})" if reasons else told
    return [Caveat(said, METRICS if spoilt else ("latency",))]


def _straggling(measurement: Measurement) -> list[Caveat]:
    """Where one rank takes far longer than the others; of an even number the lower of the two middle ones counts."""
    stages_s = rank_stages_s(measurement)
    if len(stages_s) < 2:
        return []
    middle = sorted(stages_s.values())[(len(stages_s) - 1) // 2]
    rank = max(stages_s, key=lambda rank: stages_s[rank])
    if stages_s[rank] <= STRAGGLING * middle:
        return []
    views = (view for r in measurement.requests for view in r.ranks if view.rank == rank and view.device)
    device = next((f" ({view.device})" for view in views), "")
    said = (
        f"rank {rank}{device} holds the others up: its stages take {stages_s[rank]:.3f} s, "
        f"{stages_s[rank] / middle:.2f} times the ranks' median"
    )
    return [Caveat(said, ("latency",))]


def _counted(causes: Iterable[str]) -> str:
    """Each cause and how often it was, the commonest first."""
    return ", ".join(f"{cause} {count}" for cause, count in Counter(causes).most_common())
