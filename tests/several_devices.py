"""Records of trials on several devices with known answers: one device takes 1.000 s an image, two take 0.600 s."""

from dataclasses import replace
from typing import Any

from factories import GIB, complete, trial

from zbench.config import ComputeConfig, ParallelConfig
from zbench.measurement import Communication, RankView
from zbench.record import Record
from zbench.trial import Trial

STEPS = 8
ONE = {"text_encode": 0.05, "denoise": 0.8, "decode": 0.1}
"""Seconds on one device; 0.05 s belong to no stage."""
TWO = {"text_encode": 0.05, "denoise": 0.4, "decode": 0.1}
"""On two, in 0.6 s."""


def on(devices: ParallelConfig | None = None, **groups: Any) -> Trial:
    """The tiny pipeline on the CPU, sharded as told."""
    return trial(**{"parallel": devices or ParallelConfig(), "compute": ComputeConfig(device="cpu"), **groups})


def timed(
    of: Trial,
    latency_s: float,
    stages_s: dict[str, float],
    *,
    images: int = 1,
    ranks: tuple[float, ...] = (),
    peaks_gib: tuple[float, ...] = (),
    exposed: tuple[float, ...] = (),
    **figures: Any,
) -> Record:
    """A record whose every request takes `latency_s`, on each of `ranks` (seconds) in its own time.

    `peaks_gib` and `exposed` (share of the forwards) are those of the ranks, in their order.
    """
    record = complete(of, latency_s=latency_s, spread=0.0, **figures)
    measured = record.measurement
    assert measured is not None
    views = [
        RankView(
            rank=rank,
            latency_s=seconds,
            stages_s=stages_s | {"denoise": stages_s["denoise"] + seconds - latency_s},
            steps_s=[stages_s["denoise"] / STEPS] * STEPS,
            device=f"cuda:{rank}",
            peak_device_bytes=int(peaks_gib[rank] * GIB) if peaks_gib else None,
        )
        for rank, seconds in enumerate(ranks)
    ]
    requests = [
        replace(r, stages_s=dict(stages_s), steps_s=[stages_s["denoise"] / STEPS] * STEPS, images=images, ranks=views)
        for r in measured.requests
    ]
    said = [
        Communication(rank, stages_s["denoise"], 2 * share * stages_s["denoise"], share * stages_s["denoise"])
        for rank, share in enumerate(exposed)
    ]
    measured = replace(measured, window=replace(measured.window, requests=requests), communication=said)
    return replace(record, measurement=measured)


def one_device(latency_s: float = 1.0, **changes: Any) -> Record:
    """1.000 s an image."""
    return timed(on(), latency_s, ONE, **changes)


def two_devices(parallel: ParallelConfig | None = None, latency_s: float = 0.6, **changes: Any) -> Record:
    """0.600 s an image."""
    given: dict[str, Any] = {"ranks": (latency_s, latency_s - 0.01), "peaks_gib": (14.0, 13.5), "exposed": (0.06, 0.04)}
    return timed(on(parallel or ParallelConfig(ulysses_size=2)), latency_s, TWO, **{**given, **changes})


def data_parallel(latency_s: float = 1.02, **changes: Any) -> Record:
    """Two images in 1.020 s."""
    return timed(
        on(ParallelConfig(dp_size=2)), latency_s, ONE, images=2, ranks=(latency_s, latency_s - 0.01), **changes
    )
