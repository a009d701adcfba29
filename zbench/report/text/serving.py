"""The block that SGLang's `bench_serving` prints, of a window of load, line by line; it derives nothing.

`bench_serving_block` is that of sglang 0.5.23, `page_block` the older one that the cookbook shows for Z-Image-Turbo.
"""

from collections.abc import Iterator

from zbench.analysis.serving import ServingFigures, mean
from zbench.record import Record
from zbench.stats import median
from zbench.trial import Trial

TITLE = " Serving Benchmark Result "
WIDTH = 60
LINE = "-" * 50
NOT_SET = "not set"
UNLIMITED = "inf"


def bench_serving_block(record: Record, load: ServingFigures) -> str:
    """As sglang 0.5.23 prints it (multimodal_gen/benchmarks/bench_serving.py), each value padded as there."""
    trial = record.trial
    lines = [f"{TITLE:=^{WIDTH}}"]
    lines += [_padded(f"{name}:", value) for name, value in _what(trial)]
    lines += [LINE, _padded("Benchmark duration (s):", load.duration_s)]
    lines += [_padded(f"{name}:", value) for name, value in _traffic(trial, load)]
    lines += [_padded("Completed outputs:", load.completed_outputs)]
    lines += [_padded("Outputs per prompt:", load.outputs_per_prompt), LINE]
    lines += [_padded("Request throughput (req/s):", load.requests_per_s)]
    lines += [_padded("Output throughput (outputs/s):", load.outputs_per_s)]
    lines += [_padded("Latency Mean (s):", load.latency_mean_s), _padded("Latency Median (s):", load.latency_s(0.5))]
    lines += [_padded(f"Latency P{q} (s):", load.latency_s(q / 100)) for q in (90, 95, 99)]
    if load.peak_memory_mb:
        lines += [LINE, *(_padded(f"Peak Memory {name} (MB):", value) for name, value in peaks(load))]
    return "\n".join([*lines, "-" * WIDTH])


def page_block(record: Record, load: ServingFigures) -> str:
    """As the page shows what an older one printed: latencies with four decimals, of percentiles P99 alone."""
    trial = record.trial
    lines = [f"{TITLE:=^{WIDTH}}"]
    lines += [f"{f'{name}:':<40} {value}" for name, value in _what(trial)]
    lines += [LINE, f"{'Benchmark duration (s):':<40} {load.duration_s:.2f}"]
    lines += [f"{f'{name}:':<40} {value}" for name, value in _traffic(trial, load)]
    lines += [LINE, f"{'Request throughput (req/s):':<40} {load.requests_per_s:.2f}"]
    latencies = (("Mean", load.latency_mean_s), ("Median", load.latency_s(0.5)), ("P99", load.latency_s(0.99)))
    lines += [f"{f'Latency {name} (s):':<40} {value:.4f}" for name, value in latencies]
    if load.peak_memory_mb:
        lines += [LINE, *(f"{f'Peak Memory {name} (MB):':<40} {value:.2f}" for name, value in peaks(load))]
    return "\n".join([*lines, "=" * WIDTH])


def peaks(load: ServingFigures) -> tuple[tuple[str, float], ...]:
    """Largest, mean and median of the requests' peaks."""
    sizes = load.peak_memory_mb
    return ("Max", max(sizes)), ("Mean", mean(sizes)), ("Median", median(sizes))


def _what(trial: Trial) -> Iterator[tuple[str, str]]:
    yield "Task", "text-to-image"
    yield "Model", trial.pipeline.hub_id or trial.pipeline.name
    yield "Dataset", trial.workload.name


def _traffic(trial: Trial, load: ServingFigures) -> Iterator[tuple[str, str]]:
    workload = trial.workload
    yield "Request rate", UNLIMITED if workload.arrivals == "concurrent" else str(workload.rate_per_s or "replay")
    yield "Max request concurrency", str(workload.concurrency or NOT_SET)
    yield "Successful requests", f"{load.completed_requests}/{load.requests}"


def _padded(name: str, value: float | str) -> str:
    """As its `print_value_formatted` has it, thousands of a whole number included."""
    if isinstance(value, str):
        return f"{name:<45} {value:<30}"
    if isinstance(value, float):
        return f"{name:<45} {value:<30.2f}"
    for size, unit in ((1e6, "M"), (1e3, "K")):
        if value >= size:
            return f"{name:<45} {value / size:<30.2f}{unit}"
    return f"{name:<45} {value:<30}"
