"""The stages' table: seconds of each, the rate it computed at and the share of the ceiling; measured trials alone."""

from collections.abc import Mapping, Sequence
from typing import Any

from zbench.analysis.metrics import STAGES
from zbench.analysis.stages import NOT_MEASURED, StageFigures, stage_figures, told_stages_s
from zbench.analysis.view import View
from zbench.methods.dtypes import ceiling_name
from zbench.record import Record
from zbench.report.tables.text_table import LEFT, RIGHT, TextTable
from zbench.report.text import cells

WORDS = {"text_encode": "text encode", "denoise": "denoise", "decode": "decode"}

OF_ONE = (
    "one untimed request of the first prompt and seed, for which the server is asked to wait for its GPU; what "
    "encodes and carries the picture is in none"
)


def stage_table(view: View) -> TextTable | None:
    """One row a measured trial, in their order, two columns a stage; None where none has a timed stage."""
    found = [(row, record, stage_figures(record)) for row, record in view.pairs]
    rows = [(row, record, figures) for row, record, figures in found if figures]
    if not rows:
        return None
    stages = [stage for stage in STAGES if any(stage in figures for _, _, figures in rows)]
    shared = any(f.share is not None for _, _, figures in rows for f in figures.values())
    headers = ["trial"]
    for stage in stages:
        headers += [f"{WORDS[stage]}, s", f"{WORDS[stage]}, TFLOP/s{' (share)' if shared else ''}"]
    body = [(cells.label(row), *(c for s in stages for c in _cells(figures.get(s)))) for row, _, figures in rows]
    legend = [
        "Medians of the warm rounds. TFLOP/s: matrix products, convolutions and attention that ran, over seconds."
    ]
    told = [row.label for row, record, _ in rows if record.measurement and told_stages_s(record.measurement)]
    if told:
        legend.append(f"Of {cells.listed(told)}: {OF_ONE}.")
    if shared:
        legend.append(
            "Share: the seconds these would take at the device's measured rates, over the seconds they took. "
            f"{_ceilings([record for _, record, _ in rows])}"
        )
    legend += _reasons([(row.label, figures) for row, _, figures in rows])
    aligns = (LEFT, *[RIGHT] * (len(headers) - 1))
    return TextTable((), tuple(headers), aligns, tuple(body), tuple(legend))


def _cells(figures: StageFigures | None) -> tuple[str, str]:
    if figures is None:
        return cells.ABSENT, cells.ABSENT
    rate = cells.ABSENT if figures.tflops is None else cells.digits(figures.tflops)
    share = "" if figures.share is None else f" ({cells.percent(figures.share)})"
    return cells.digits(figures.seconds), rate + share


def _ceilings(records: Sequence[Record]) -> str:
    """What the shares refer to, once each: device, dtype, rates and when they were measured."""
    said = dict.fromkeys(
        _ceiling(record.environment.get("ceilings") or {}, str(record.measurement.effective.dtype))
        for record in records
        if record.measurement is not None
    )
    return " ".join(text for text in said if text)


def _ceiling(ceilings: Mapping[str, Any], dtype: str) -> str:
    name, figures = ceiling_name(dtype), ceilings.get("figures") or {}
    gemm, attention = figures.get(f"gemm_{name}_tflops"), figures.get(f"attention_{name}_tflops")
    if not gemm or not attention:
        return ""
    backend = (ceilings.get("attention_backend") or {}).get(name)
    return (
        f"Ceilings of {ceilings.get('device')} in {dtype}: matmul {cells.digits(gemm)} TFLOP/s, attention "
        f"{cells.digits(attention)} TFLOP/s{f' ({backend})' if backend else ''}, measured "
        f"{str(ceilings.get('measured_at'))[:10]} with torch {ceilings.get('torch')}."
    )


def _reasons(rows: Sequence[tuple[str, Mapping[str, StageFigures]]]) -> list[str]:
    """A line for each reason why a rate or a share is lacking, with the stages and trials it holds for."""
    lacking: dict[tuple[str, str], dict[str, set[str]]] = {}
    for label, figures in rows:
        for stage, f in figures.items():
            for what, why in (("TFLOP/s", f.why_no_rate), ("share", f.why_no_share)):
                if why is not None:
                    lacking.setdefault((what, why), {}).setdefault(stage, set()).add(label)
    labels = [label for label, _ in rows]
    lines = []
    for (what, why), by_stage in lacking.items():
        stages = cells.listed([WORDS[stage] for stage in STAGES if stage in by_stage])
        concerned = set().union(*by_stage.values())
        of = "" if len(concerned) == len(labels) else f" ({cells.listed([x for x in labels if x in concerned])})"
        scope = "" if why == NOT_MEASURED else f" of {stages}"
        lines.append(f"No {what}{scope}{of}: {why}.")
    return lines
