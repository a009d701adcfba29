"""One row a measured round: the raw samples."""

from collections.abc import Iterator

from zbench.analysis.view import View
from zbench.record import Record
from zbench.report.tables.text_table import rows_to_csv

ROUND_COLUMNS = (
    "sweep",
    "trial_id",
    "label",
    "latency_source",
    "index",
    "prompt_id",
    "seed",
    "started_at",
    "latency_s",
    "text_encode_s",
    "denoise_s",
    "decode_s",
    "images",
    "n_cached_steps",
    "cached_steps",
    "image_sha256",
    "valid",
    "invalid_reasons",
    "rank_latencies_s",  # by rank, of several devices
)


def rounds_csv(view: View) -> Iterator[str]:
    """One row a measured round, a piece a trial. A projected trial's rounds are those of its proxy, and say so."""
    yield rows_to_csv([], ROUND_COLUMNS)
    for figures, record in view.pairs:
        yield rows_to_csv(round_rows(record, figures.label), ROUND_COLUMNS, header=False)


def round_rows(record: Record, label: str) -> list[dict[str, object]]:
    """ROUND_COLUMNS of each round of a record, invalid ones included; none without a measurement."""
    measurement = record.measurement
    if measurement is None:
        return []
    untold = measurement.effective.tells_cached_steps is False
    source = "proxy" if measurement.projection is not None else measurement.sources.get("latency")
    return [
        dict(
            zip(
                ROUND_COLUMNS,
                (
                    record.sweep,
                    record.trial_id,
                    label,
                    source,
                    r.index,
                    r.prompt_id,
                    r.seed,
                    measurement.window.at(r.due_s),
                    r.latency_s,
                    r.stages_s.get("text_encode"),
                    r.stages_s.get("denoise"),
                    r.stages_s.get("decode"),
                    r.images,
                    None if untold else len(r.cached_steps),
                    " ".join(map(str, r.cached_steps)),
                    r.image_sha256,
                    r.valid,
                    "; ".join(r.invalid_reasons),
                    " ".join(str(view.latency_s) for view in sorted(r.ranks, key=lambda v: v.rank)) or None,
                ),
                strict=True,
            )
        )
        for r in measurement.requests
    ]
