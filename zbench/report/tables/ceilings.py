"""Measured ceilings as a table or JSON: a figure a row, or why there is none; it refuses to judge them."""

import json
from typing import Any

from zbench.report.tables.text_table import LEFT, RIGHT, TextTable, to_text
from zbench.report.text import cells
from zbench.sanitize import json_text
from zbench.stats import median

UNITS = {"_tflops": "TFLOP/s", "_gb_s": "GB/s"}
NAMES = {
    "gemm": "matmul",
    "projection": "projections",
    "ffn_in": "FFN in",
    "ffn_out": "FFN out",
    "default": "torch's choice",
    "cudnn": "cuDNN",
    "copy": "copy in memory, read and written",
    "host_to_device": "host to device",
    "device_to_host": "device to host",
}


def render_ceilings(ceilings: dict[str, Any], form: str) -> str:
    """`ceilings` as `hardware.ceiling_bench` measured them; `form` is table or json."""
    if form == "json":
        return json_text(json.dumps(ceilings, ensure_ascii=False, indent=2, allow_nan=False))
    shapes = ceilings["shapes"]
    rows = tuple(_row(name, value, ceilings) for name, value in sorted(ceilings["figures"].items(), key=_place))
    head = (
        f"{ceilings['device']}, torch {ceilings['torch']}"
        + (f", driver {ceilings['driver']}" if ceilings["driver"] else "")
        + f"; shapes of {shapes['preset']}: {shapes['tokens']} tokens × {shapes['dim']}, FFN {shapes['ffn_dim']}, "
        f"{shapes['n_heads']} heads × {shapes['head_dim']}",
    )
    absent: dict[str, list[str]] = {}
    for name, why in ceilings["reasons"].items():
        absent.setdefault(why, []).append(_words(name, ceilings))
    legend = ["Samples: their number and half their range over the median."]
    legend += [f"{cells.ABSENT} {'; '.join(names)}: {why}." for why, names in absent.items()]
    headers, aligns = ("what", "rate", "unit", "samples"), (LEFT, RIGHT, LEFT, RIGHT)
    return to_text(TextTable(head, headers, aligns, rows, tuple(legend))).rstrip("\n")


def _row(name: str, value: float | None, ceilings: dict[str, Any]) -> tuple[str, str, str, str]:
    rate = cells.ABSENT if value is None else cells.digits(value)
    return _words(name, ceilings), rate, UNITS[_suffix(name)], _spread(ceilings["samples_s"].get(name, []))


def _suffix(name: str) -> str:
    return next(end for end in UNITS if name.endswith(end))


def _words(name: str, ceilings: dict[str, Any]) -> str:
    """`gemm_bf16_ffn_in_tflops` is `matmul bf16, FFN in`; the figure of a block or the best backend says so."""
    stem = name.removesuffix(_suffix(name))
    if stem.startswith(("gemm_", "attention_")):
        kind, dtype, *part = stem.split("_", maxsplit=2)
        if part:
            detail = NAMES.get(part[0], part[0])
        elif kind == "gemm":
            detail = "a block's GEMMs together"
        else:
            best = ceilings["attention_backend"].get(dtype)
            detail = "fastest" + (f" ({NAMES.get(best, best)})" if best else "")
        return f"{NAMES.get(kind, kind)} {dtype}, {detail}"
    for start, words in NAMES.items():
        if stem.startswith(start):
            memory = stem.removeprefix(start).strip("_")
            return f"{words}, {memory} memory" if memory else words
    return stem


def _spread(samples: list[float]) -> str:
    if not samples:
        return ""
    half_range = (max(samples) - min(samples)) / 2
    return f"{len(samples)}, ±{cells.percent(half_range / median(samples), 1)}"


def _place(figure: tuple[str, float | None]) -> tuple[int, str, bool, str]:
    """Matmuls, attention, copies; of each dtype first what is made of the others."""
    kind, _, rest = figure[0].partition("_")
    dtype, _, part = rest.partition("_")
    order = ("gemm", "attention")
    return (order.index(kind) if kind in order else len(order), dtype, part != "tflops", figure[0])
