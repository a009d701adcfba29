"""Bencher Metric Format (BMF), which `bencher run --adapter json --file FILE` reads."""

from zbench.analysis.figures import TrialFigures
from zbench.analysis.view import View
from zbench.export.figures import count, measured_trials, memory_measure, to_json
from zbench.report.text.cells import listed
from zbench.streams import talk

NS_PER_S = 1e9


def to_bencher(view: View) -> str:
    """One benchmark a trial, named by its label.

    The specification (bencher.dev/docs/reference/bencher-metric-format): an object of benchmarks by name (at most
    1024 characters), each an object of measures by slug (at most 64), each `{"value", "lower_value", "upper_value"}`,
    all numbers, only `value` required. Of the built-in measures `latency` is in nanoseconds and `throughput` in
    operations a second, here images. Other measures are made when first seen, without a unit, so these are:

    - `peak-memory`: bytes, of the device; another peak has its own slug (`peak-memory-host-rss`);
    - `cold-load-s`, `cold-first-request-s`: of a trial that loaded its pipeline; `compile-s`: where code was compiled;
    - `cached-steps`: mean an image; `speedup`: over the baseline, ×;
    - `ssim-worst`, `psnr-worst-db`, `lpips-worst`, `prompt-fidelity-worst`: of the worst image.

    Bounds are the 95 % interval of the median. A figure that cannot be had is no measure at all; so a reference has no
    `ssim-worst`. Nor is there a place for a trial's caveats: stderr names those with any.
    """
    rows = measured_trials(view, "bencher").trials
    doubtful = [row.label for row in rows if row.caveats]
    if doubtful:
        talk(f"note: {count(len(doubtful))} with caveats that this format cannot show: {listed(doubtful)}")
    return to_json({row.label: _measures(row) for row in rows})


def _measures(row: TrialFigures) -> dict[str, dict[str, float]]:
    latency = {
        "value": row.latency_median_s,
        "lower_value": row.latency_low_s,
        "upper_value": row.latency_high_s,
    }
    values: dict[str, float | None] = {
        "throughput": row.images_per_s,
        "cold-load-s": row.load_s,
        "cold-first-request-s": row.first_request_s,
        "compile-s": row.compile_s or None,
        memory_measure(row, "-").lower(): row.peak_memory_bytes,
        "cached-steps": row.cached_steps,
        "speedup": row.speedup,
        "ssim-worst": row.ssim_worst,
        "psnr-worst-db": row.psnr_worst_db,
        "lpips-worst": row.lpips_worst,
        "prompt-fidelity-worst": row.prompt_fidelity_worst,
    }
    return {
        "latency": {bound: seconds * NS_PER_S for bound, seconds in latency.items() if seconds is not None},
        **{slug: {"value": value} for slug, value in values.items() if value is not None},
    }
