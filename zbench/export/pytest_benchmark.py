"""The JSON that `pytest-benchmark compare FILE…` reads, as `pytest --benchmark-json` writes it."""

import statistics
import textwrap
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from zbench.analysis.labels import varying
from zbench.analysis.metrics import latencies_s
from zbench.analysis.view import View
from zbench.export.figures import Exported, exported, measured_trials, to_json
from zbench.trial import Trial

FORMAT_VERSION = "5.0.0"
"""The pytest-benchmark whose layout this is."""

EXTRA = (
    "sweep",
    "trial_id",
    "reference_id",
    "baseline_id",
    "source",
    "latency_low_s",
    "latency_high_s",
    "load_s",
    "first_request_s",
    "compile_s",
    "resident_load_s",
    "resident_first_request_s",
    "speedup",
    "images_per_s",
    "peak_memory_bytes",
    "memory_kind",
    "cached_steps",
    "steps",
    "ssim_mean",
    "ssim_worst",
    "psnr_mean_db",
    "psnr_worst_db",
    "lpips_worst",
    "prompt_fidelity_worst",
    "invalid_rounds",
)
"""Figures of a trial that go into `extra_info`, where they can be had; also its caveats and its environment."""


def to_pytest_benchmark(view: View) -> Iterator[str]:
    """One benchmark a trial, whose samples are its valid rounds, in seconds; a piece a benchmark.

    `name` and `param` are the trial's label and `fullname` is that after `zbench::`, the same in every file, so that
    `--between` and `--group-by fullname` pair the trials of two runs. `group` says what a trial is compared with, so
    that a table holds one piece of work. `params` are the config values that are not the same for all trials.
    `machine_info` and `commit_info` (zbench's own checkout) are those of the last trial measured.
    """
    shown = measured_trials(view, "pytest-benchmark")
    baselines = {(row.sweep, row.baseline_id): row.label for row in shown.trials if row.is_baseline}
    trials: list[Trial] = []
    last: tuple[str, dict[str, Any]] = ("", {})  # when it ended, and its environment
    for trial in exported(shown):
        trials.append(trial.record.trial)
        last = max(last, (_ended(trial), trial.record.environment), key=lambda entry: entry[0])
    ended, environment = last
    head = {"machine_info": _machine_info(environment), "commit_info": _commit_info(environment)}
    tail = {"datetime": ended, "version": FORMAT_VERSION}
    yield to_json(head).removesuffix("\n}\n") + ',\n  "benchmarks": ['
    between = "\n"
    for trial, params in zip(exported(shown), varying(trials), strict=True):
        baseline = baselines.get((trial.figures.sweep, trial.figures.baseline_id))
        yield between + textwrap.indent(to_json(_benchmark(trial, params, baseline)).rstrip(), " " * 4)
        between = ",\n"
    yield "\n  ]," + to_json(tail).removeprefix("{")


def sample_stats(samples: Sequence[float]) -> dict[str, Any]:
    """`stats` of a benchmark, each as pytest-benchmark defines it, in seconds; `samples` holds at least one."""
    ordered = sorted(samples)
    mean = statistics.mean(samples)
    stddev = statistics.stdev(samples) if len(samples) > 1 else 0.0
    q1, q3 = _quartiles(ordered)
    iqr = q3 - q1
    low, high = q1 - 1.5 * iqr, q3 + 1.5 * iqr
    stddev_outliers = sum(not mean - stddev <= s <= mean + stddev for s in samples)
    iqr_outliers = sum(not low <= s <= high for s in samples)
    total = sum(samples)
    return {
        "min": ordered[0],
        "max": ordered[-1],
        "mean": mean,
        "stddev": stddev,
        "rounds": len(samples),
        "median": statistics.median(samples),
        "iqr": iqr,
        "q1": q1,
        "q3": q3,
        "iqr_outliers": iqr_outliers,
        "stddev_outliers": stddev_outliers,
        "outliers": f"{stddev_outliers};{iqr_outliers}",
        "ld15iqr": ordered[bisect_left(ordered, low)],
        "hd15iqr": ordered[bisect_right(ordered, high) - 1],
        "ops": len(samples) / total if total else 0,
        "total": total,
        "data": list(samples),
        "iterations": 1,
    }


def _quartiles(ordered: Sequence[float]) -> tuple[float, float]:
    """Medians of the halves; of an odd number of samples, interpolated between the two ways of halving them."""
    n, rest = divmod(len(ordered), 4)
    if len(ordered) == 1:
        return ordered[0], ordered[0]
    if rest == 1:
        q1 = 0.25 * ordered[n - 1] + 0.75 * ordered[n]
        return q1, 0.75 * ordered[3 * n] + 0.25 * ordered[3 * n + 1]
    if rest == 3:
        q1 = 0.75 * ordered[n] + 0.25 * ordered[n + 1]
        return q1, 0.25 * ordered[3 * n + 1] + 0.75 * ordered[3 * n + 2]
    half = len(ordered) // 2
    return statistics.median(ordered[:half]), statistics.median(ordered[half:])


def _benchmark(trial: Exported, params: dict[str, Any], baseline: str | None) -> dict[str, Any]:
    row = trial.figures
    figures = {name: getattr(row, name) for name in EXTRA}
    return {
        "group": f"against {baseline or row.baseline_id}",
        "name": row.label,
        "fullname": f"zbench::{row.label}",
        "params": params or None,
        "param": row.label,
        "extra_info": {
            **{name: value for name, value in figures.items() if value is not None},
            "caveats": list(row.caveats),
            "environment": trial.record.environment.get("fingerprint"),
        },
        "options": {"timer": "perf_counter", **asdict(trial.record.measure)},
        "stats": sample_stats(latencies_s(trial.measurement)),
    }


def _ended(trial: Exported) -> str:
    window = trial.measurement.window
    return max(window.at(r.due_s) for r in trial.measurement.requests)


def _machine_info(environment: dict[str, Any]) -> dict[str, Any]:
    """pytest-benchmark's own keys where a record knows them, and what else it knows."""
    return {
        "system": str(environment.get("os", "")).split("-")[0],
        "python_version": environment.get("python"),
        "cpu": {"brand_raw": environment.get("cpu"), "count": environment.get("cores")},
        **{key: environment.get(key) for key in ("os", "host_memory_bytes", "devices", "driver", "versions")},
        "fingerprint": environment.get("fingerprint"),
    }


def _commit_info(environment: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": environment.get("git_revision") or "unversioned",
        "time": None,
        "author_time": None,
        "dirty": bool(environment.get("git_dirty")),
        "project": "zbench",
        "branch": "(unknown)",
    }
