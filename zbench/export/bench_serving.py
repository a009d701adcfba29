"""The JSON that SGLang's `bench_serving --output-file` writes, one object a trial of load, and what it lacks beside."""

from collections.abc import Iterator
from typing import Any

from zbench.analysis.serving import ServingFigures, serving_figures
from zbench.analysis.view import View
from zbench.errors import ZbenchError
from zbench.export.figures import complete_trials, exported, to_json
from zbench.report.text.serving import peaks
from zbench.stats import quantile


def to_bench_serving(view: View) -> str:
    """A list in the order of every table. The fields of bench_serving have its names and mean what they mean there.

    Under `zbench` stands what it does not print. Raises ZbenchError where no trial was under load.
    """
    found = list(_objects(complete_trials(view)))
    if not found:
        raise ZbenchError(
            "--format bench-serving: no trial was measured under load; add workload.arrivals=concurrent "
            "workload.concurrency=20 to a run"
        )
    return to_json(found)


def _objects(view: View) -> Iterator[dict[str, Any]]:
    for trial in exported(view):
        load = serving_figures(trial.measurement)
        if load is not None:
            names = {"sweep": trial.record.sweep, "trial_id": trial.record.trial_id, "label": trial.figures.label}
            lone = {"server_s": trial.figures.server_s, "outside_s": trial.figures.outside_s}
            yield {**_theirs(load), "zbench": {**names, **_ours(load), **lone}}


def _theirs(load: ServingFigures) -> dict[str, Any]:
    sizes = {name.lower(): size for name, size in peaks(load)} if load.peak_memory_mb else {}
    return {
        "duration": load.duration_s,
        "completed_requests": load.completed_requests,
        "completed_outputs": load.completed_outputs,
        "failed_requests": load.failed_requests,
        "throughput_qps": load.requests_per_s,
        "output_throughput_ops": load.outputs_per_s,
        "latency_mean": load.latency_mean_s,
        "latency_median": load.latency_s(0.5),
        **{f"latency_p{q}": load.latency_s(q / 100) for q in (50, 90, 95, 99)},
        "num_outputs_per_prompt": load.outputs_per_prompt,
        **{f"peak_memory_mb_{name}": sizes.get(name, 0) for name in ("max", "mean", "median")},
    }


def _ours(load: ServingFigures) -> dict[str, Any]:
    quantiles = (50, 95, 99)
    return {
        **{f"response_p{q}_s": load.response_s(q / 100) for q in quantiles},
        **{f"queue_p{q}_s": quantile(load.queued_s, q / 100) if load.queued_s else None for q in quantiles},
        "first_done_s": load.first_done_s,
        "steady_s": load.steady_s,
        "latency_objective_s": load.objective_s,
        "within_objective": load.within_objective,
        "goodput_per_s": load.goodput_per_s,
        "meets_objective": load.meets_objective,
        "failures": dict(load.failures),
    }
