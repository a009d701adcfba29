"""Apache Parquet, one row a round: raw samples with everything needed to group, filter and plot them."""

import io
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from itertools import islice
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from zbench.analysis.figures import TrialFigures
from zbench.analysis.labels import varying
from zbench.analysis.view import View
from zbench.errors import ZbenchError
from zbench.export.figures import Exported, complete_trials, exported
from zbench.export.rounds import ROUND_COLUMNS, round_rows

if TYPE_CHECKING:
    import pandas as pd

FLOAT, INTEGER, BOOLEAN, STRING = "Float64", "Int64", "boolean", "string"  # pandas' dtypes that know null from NaN
DTYPES: dict[type, str] = {float: FLOAT, int: INTEGER, bool: BOOLEAN, str: STRING}
LISTS = {"cached_steps": "int64", "steps_s": "float64"}
"""Columns of lists, and what is in them."""

ROUND_DTYPES = {
    **dict.fromkeys(ROUND_COLUMNS, STRING),
    **dict.fromkeys(("index", "seed", "images", "n_cached_steps"), INTEGER),
    **dict.fromkeys(("latency_s", "text_encode_s", "denoise_s", "decode_s"), FLOAT),
    "valid": BOOLEAN,
    "cached_steps": "object",
    "steps_s": "object",
    "projected_latency_s": FLOAT,
}
BATCH = 1000
"""Trials that are held at once."""

IMAGE_DTYPES = {
    "identical": BOOLEAN,
    **dict.fromkeys(("psnr_db", "ssim", "ms_ssim", "lpips", "latent_rel_error"), FLOAT),
    **dict.fromkeys(("prompt_share_right", "clip_score"), FLOAT),
}
"""Figures of a round's image (prompt and seed), the same in every round of it."""

_OWN = ("sweep", "trial_id", "label")  # fields of TrialFigures that stand in a round's own columns


def to_parquet(view: View) -> bytes:
    """`round_frames` as Parquet, a row group each. Raises ZbenchError without pyarrow."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ZbenchError(
            "--format parquet needs pyarrow: pip install 'pyarrow>=18' (zbench's extra parquet)"
        ) from error
    out = io.BytesIO()
    writer: Any = None
    for frame in round_frames(view):
        if writer is None:
            schema = pa.Schema.from_pandas(frame, preserve_index=False)
            for name, item in LISTS.items():
                schema = schema.set(schema.get_field_index(name), pa.field(name, pa.list_(pa.type_for_alias(item))))
            writer = pq.ParquetWriter(out, schema)
        writer.write_table(pa.Table.from_pandas(frame, schema=schema, preserve_index=False))
    writer.close()
    return out.getvalue()


def round_frames(view: View) -> "Iterator[pd.DataFrame]":
    """One row a round of each COMPLETE trial, invalid rounds included; null, never NaN, where there is no value.

    Columns: those of `csv-rounds`, with the steps' seconds and the cached steps as lists; the round's projected
    latency, if its trial is projected (`latency_s` is then its proxy's and `latency_source` says so); the likeness of
    its image to the reference's; every config value that is not the same for all trials, by dotted key; and under
    `trial_` the figures of its trial, the same in every row of it, so that one row a trial gives the table back.
    A frame holds BATCH trials; there is one at least, of the same columns.
    """
    import pandas as pd

    shown = complete_trials(view)
    configs = varying([record.trial for record in shown.records])
    dtypes = {**ROUND_DTYPES, **IMAGE_DTYPES, **_config_dtypes(configs), **_trial_dtypes()}
    texts = {name for name in (configs[0] if configs else {}) if dtypes[name] == STRING}
    trials = zip(exported(shown), configs, strict=True)
    for batch in _batches(trials):
        rows = [row for trial, config in batch for row in _rows(trial, config)]
        columns = {}
        for name, dtype in dtypes.items():
            values = [row[name] for row in rows]
            columns[name] = pd.Series([_text(value) for value in values] if name in texts else values, dtype=dtype)
        yield pd.DataFrame(columns)


def _batches(trials: Iterable[tuple[Exported, dict[str, Any]]]) -> Iterator[list[tuple[Exported, dict[str, Any]]]]:
    waiting = iter(trials)
    yield list(islice(waiting, BATCH))
    while batch := list(islice(waiting, BATCH)):
        yield batch


def _rows(trial: Exported, config: dict[str, Any]) -> list[dict[str, Any]]:
    measurement, row = trial.measurement, trial.figures
    quality = {(q.prompt_id, q.seed): q for q in measurement.quality or []}
    fidelity = {(p.prompt_id, p.seed): p for p in measurement.prompt_fidelity or []}
    figures: dict[str, Any] = {f"trial_{name}": getattr(row, name) for name in _figure_names()}
    figures["trial_caveats"] = "; ".join(row.caveats) or None
    rows = []
    projected = _projected_latencies(trial)
    for r, cells, projected_s in zip(measurement.requests, round_rows(trial.record, row.label), projected, strict=True):
        alike, fit = quality.get((r.prompt_id, r.seed)), fidelity.get((r.prompt_id, r.seed))
        rows.append(
            {
                **cells,
                "invalid_reasons": cells["invalid_reasons"] or None,
                "cached_steps": list(r.cached_steps),
                "steps_s": list(r.steps_s),
                "projected_latency_s": projected_s,
                **{name: getattr(alike, name, None) for name in IMAGE_DTYPES},
                "prompt_share_right": fit.share_right if fit else None,
                "clip_score": fit.clip_score if fit else None,
                **config,
                **figures,
            }
        )
    return rows


def _projected_latencies(trial: Exported) -> list[float | None]:
    """For each round what it would take on the projected hardware; only valid rounds are projected, in turn."""
    waiting: dict[tuple[str, int], list[float]] = defaultdict(list)
    for p in trial.measurement.projection.rounds if trial.measurement.projection else ():
        waiting[p.prompt_id, p.seed].append(p.latency_s)
    return [
        waiting[r.prompt_id, r.seed].pop(0) if r.valid and waiting[r.prompt_id, r.seed] else None
        for r in trial.measurement.requests
    ]


def _figure_names() -> list[str]:
    return [f.name for f in fields(TrialFigures) if f.name not in (*_OWN, "missing")]


def _trial_dtypes() -> dict[str, str]:
    """By the types that TrialFigures declares, so that a file of few trials has the columns of one of many."""
    hints = get_type_hints(TrialFigures)
    return {f"trial_{name}": _dtype_of(hints[name]) for name in _figure_names()}


def _dtype_of(hint: Any) -> str:
    kinds = {*get_args(hint), hint} & set(DTYPES)
    return DTYPES[kinds.pop()] if len(kinds) == 1 else STRING


def _config_dtypes(configs: Sequence[dict[str, Any]]) -> dict[str, str]:
    """One type for all values of a key, else text."""
    dtypes = {}
    for key in configs[0] if configs else ():
        kinds = {type(config[key]) for config in configs if config[key] is not None}
        dtypes[key] = FLOAT if kinds == {int, float} else STRING if len(kinds) != 1 else DTYPES.get(kinds.pop(), STRING)
    return dtypes


def _text(value: object) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)
