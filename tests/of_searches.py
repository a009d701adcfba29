"""Records that searches made, of which cost and likeness are written down."""

from dataclasses import replace
from typing import Any

from factories import complete, trial

from zbench.config import DBCacheConfig, SCMConfig
from zbench.measurement import QUALITY_ONLY
from zbench.record import Record

OPTUNA = "zbench sweep search=optuna cache=dbcache"


def timed(n: int, latency_s: float, ssim: float, command: str = OPTUNA, **changes: Any) -> Record:
    """Of which so many steps were skipped that its speed can be."""
    cache = DBCacheConfig(residual_diff_threshold=0.01 * (n + 1))
    record = complete(trial(cache), latency_s=latency_s, ssim=ssim, cached=(2, 3, 4, 5, 6, 7), spread=0.0)
    return replace(record, command=command, **changes)


def judged(mask: str, ssim: float | None) -> Record:
    """Of which images alone were judged."""
    of = trial(SCMConfig(steps_mask=mask, scm_policy="static"))
    record = complete(of, ssim=ssim, cached=tuple(i for i, digit in enumerate(mask) if digit == "0"))
    assert record.measurement is not None
    reasons = {**record.measurement.reasons, "latency": QUALITY_ONLY}
    requests = [replace(r, valid=False, invalid_reasons=[QUALITY_ONLY]) for r in record.measurement.requests]
    window = replace(record.measurement.window, requests=requests)
    measured = replace(record.measurement, window=window, reasons=reasons)
    return replace(record, measurement=measured, command="zbench sweep search=masks")


BASE = replace(complete(trial(), latency_s=1.0, spread=0.0), command=OPTUNA)
