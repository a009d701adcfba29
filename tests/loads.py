"""Records of windows of load whose times a test writes down."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from factories import complete, trial

from zbench.measurement import Arrivals, FailedRequest, Request, Window
from zbench.record import Record
from zbench.trial import Trial

MIB = 2**20


def under(of: Trial | None = None, **load: Any) -> Trial:
    """A trial under this load."""
    of = of or trial()
    return replace(of, workload=replace(of.workload, **load))


def loaded(
    of: Trial,
    times: Sequence[tuple[float, float, float, float]],
    *,
    peaks_mb: Sequence[float] | None = None,
    lost: Sequence[str] = (),
    wall_s: float | None = None,
    load_s: float | None = None,
) -> Record:
    """`times` are due, sent, begun and done of each request; `lost` the codes of further ones that failed at 0 s."""
    workload, record = of.workload, complete(of)
    assert record.measurement is not None
    like: Request = record.measurement.requests[0]
    prompts = workload.prompts
    requests = [
        replace(
            like,
            index=index,
            prompt_id=prompts[index % len(prompts)].id,
            due_s=due_s,
            sent_s=sent_s,
            begun_s=begun_s,
            done_s=done_s,
            latency_s=done_s - sent_s,
            server_s=done_s - begun_s,
            server_peak_bytes=None if peaks_mb is None else int(peaks_mb[index] * MIB),
        )
        for index, (due_s, sent_s, begun_s, done_s) in enumerate(times)
    ]
    arrivals = Arrivals(
        kind=workload.arrivals,  # type: ignore[arg-type]
        concurrency=workload.concurrency,
        rate_per_s=workload.rate_per_s,
        objective_s=workload.latency_objective_s,
        at_once=1,
        warmed_up=workload.warm_up,
    )
    failures = [
        FailedRequest(len(times) + place, prompts[0].id, 0, 0.0, 0.0, 0.0, code, "it said so")
        for place, code in enumerate(lost)
    ]
    ended_s = max(done_s for *_, done_s in times) if wall_s is None else wall_s
    window = Window(
        requests,
        "all_sent",
        started_at="2026-01-01T00:00:00.000+00:00",
        wall_s=ended_s,
        arrivals=arrivals,
        failures=failures,
    )
    cold = replace(record.measurement.cold, load_s=load_s)
    return replace(record, measurement=replace(record.measurement, window=window, cold=cold))


def at_once(of: Trial, first_s: float, steady_s: float, count: int, **more: Any) -> Record:
    """`count` requests sent at once and served one after another."""
    dones = [first_s + steady_s * place for place in range(count)]
    times = [(0.0, 0.0, max(0.0, done_s - steady_s), done_s) for done_s in dones]
    return loaded(of, times, **more)
