"""Which steps were skipped and what was compared there, step by step over the images, from raw rounds."""

from zbench.analysis.metrics import rounds_by_image
from zbench.measurement import Measurement
from zbench.stats import median


def skip_shares(measurement: Measurement, steps: int) -> list[float]:
    """For each step, the share of images in which it was skipped (0 to 1)."""
    images = rounds_by_image(measurement.requests)
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
    for rounds in rounds_by_image(measurement.requests).values():
        compared: dict[int, list[float]] = {}
        for r in rounds:
            for step, difference in r.residual_diffs.items():
                if difference >= 0:
                    compared.setdefault(int(step), []).append(difference)
        for number, differences in compared.items():
            by_step.setdefault(number, []).append(median(differences))
    return dict(sorted(by_step.items()))
