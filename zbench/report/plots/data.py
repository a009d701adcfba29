"""Numbers behind the bars, the map and the residual differences, from raw rounds; draws nothing."""

from zbench.analysis.figures import latency_samples_s, rounds_by_image
from zbench.measurement import Measurement
from zbench.stats import median

STAGES = ("text_encode", "denoise", "decode", "offload_transfer")
VISIBLE = 0.002  # of the whole; less than that is no stage worth a colour


def stage_seconds(measurement: Measurement) -> dict[str, float]:
    """Median seconds of each stage, and `other`: what of the median latency belongs to none.

    Of a projection the denoising is what its rounds take beyond everything else that was projected.
    """
    samples = latency_samples_s(measurement)
    if not samples:
        return {}
    total = median(samples)
    if measurement.projection is not None:
        projected = measurement.projection.stages_s
        stages = {name: projected[name] for name in STAGES if projected.get(name)}
        stages["denoise"] = max(0.0, total - sum(projected.values()))
    else:
        valid = [r for r in measurement.rounds if r.valid]
        names = [name for name in STAGES if any(name in r.stages_s for r in valid)]
        stages = {name: median([r.stages_s.get(name, 0.0) for r in valid]) for name in names}
    other = total - sum(stages.values())
    return {**stages, "other": other} if other > VISIBLE * total else stages


def skip_shares(measurement: Measurement, steps: int) -> list[float]:
    """For each step, the share of images in which it was skipped (0 to 1)."""
    images = rounds_by_image(measurement.rounds)
    shares = [0.0] * steps
    for rounds in images.values():
        for r in rounds:
            for step in r.cached_steps:
                if step < steps:
                    shares[step] += 1 / len(rounds) / len(images)
    return [min(share, 1.0) for share in shares]


def residual_diffs(measurement: Measurement) -> dict[int, list[float]]:
    """Step, in order, to the residual difference that was compared there: one number an image, the median of its
    rounds. A negative one stands for no comparison and is left out.
    """
    by_step: dict[int, list[float]] = {}
    for rounds in rounds_by_image(measurement.rounds).values():
        compared: dict[int, list[float]] = {}
        for r in rounds:
            for step, difference in r.residual_diffs.items():
                if difference >= 0:
                    compared.setdefault(int(step), []).append(difference)
        for number, differences in compared.items():
            by_step.setdefault(number, []).append(median(differences))
    return dict(sorted(by_step.items()))
