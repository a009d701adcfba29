"""One knob at a time: each swept value beside its neighbour; it lays out what `analysis.one_knob` found."""

import math
from collections.abc import Sequence

from zbench.analysis.labels import as_typed
from zbench.analysis.one_knob import Effect, KnobPair, knob_pairs
from zbench.analysis.telling import telling
from zbench.analysis.view import View
from zbench.report.tables.text_table import LEFT, RIGHT, TextTable
from zbench.report.text import cells

HEADERS = ("knob", "from → to", "all else as", "time, × [95 %]", "skipped steps", "peak memory", "SSIM", "so it is")
ALIGNS = (LEFT, LEFT, LEFT, RIGHT, RIGHT, RIGHT, RIGHT, LEFT)
MOST = 60
LEGEND = (
    "Each value beside its neighbour, with all else equal. Time: new over before, so less is faster, with its 95 % "
    "interval; where both took turns with the same uncached trial, by those turns. Skipped steps and SSIM: mean "
    "difference an image, in brackets the least and the largest. Memory: one peak of each trial, without an interval; "
    "none for host memory of one process, which only grows. Inert: same steps and images, the interval of time holds 1 "
    "and is within 5 %, memory within 2 % where it is known."
)


def effects_table(view: View) -> TextTable | None:
    """A row a pair of neighbours, without columns of which nothing is known; None where no knob was swept alone."""
    found = knob_pairs(view.only({row.key for row in telling(view.complete)}))
    if not found:
        return None
    more = (f"{len(found) - MOST} more pairs are left out.",) if len(found) > MOST else ()
    rows = [_row(pair) for pair in found[:MOST]]
    told = [place for place in range(len(HEADERS)) if any(row[place] != cells.ABSENT for row in rows)]
    return TextTable(
        head=(),
        headers=tuple(HEADERS[place] for place in told),
        aligns=tuple(ALIGNS[place] for place in told),
        rows=tuple(tuple(row[place] for place in told) for row in rows),
        legend=(*more, *_inert(found), LEGEND, *_of_pay(found[:MOST])),
    )


def verdict(pair: KnobPair) -> str:
    """`faster, worth its start after 14 calls`, `inert`, `slower`; nothing where the interval holds 1."""
    if pair.is_inert:
        return "inert"
    said = []
    if pair.latency is not None and pair.latency.high < 1:
        said.append("faster")
    elif pair.latency is not None and pair.latency.low > 1:
        said.append("slower")
    if pair.same_images:
        said.append("same images")
    if (calls := pair.pays_after) is not None:
        said.append(f"worth its start after {max(1, math.ceil(round(calls, 6)))} calls")
    return ", ".join(said) or "not told apart"


def _row(pair: KnobPair) -> tuple[str, ...]:
    before, after = map(_value, pair.values)
    return (
        pair.knob,
        f"{before} → {after}",
        cells.label(pair.base),
        _time(pair),
        _effect(pair.skipped, 1),
        _memory(pair.memory_bytes),
        _effect(pair.ssim, 3),
        f"{verdict(pair)} {cells.UNTRUSTED_MARK}" if pair.base.caveats or pair.new.caveats else verdict(pair),
    )


def _time(pair: KnobPair) -> str:
    ratio = pair.latency
    if ratio is None:
        return f"{cells.ABSENT} (too few rounds)"
    return f"{ratio.estimate:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]"


def _effect(effect: Effect | None, decimals: int) -> str:
    if effect is None:
        return cells.ABSENT
    mean, least, most = (f"{value:+z.{decimals}f}" for value in (effect.mean, effect.least, effect.most))
    return mean if least == most else f"{mean} ({least} to {most})"


def _memory(size_bytes: int | None) -> str:
    if size_bytes is None:
        return cells.ABSENT
    return f"{'-' if size_bytes < 0 else '+'}{cells.gib(abs(size_bytes))}"


def _value(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else as_typed(value)


def _inert(found: Sequence[KnobPair]) -> list[str]:
    """Each change of one knob that changed nothing, with the trials that show it."""
    by_change: dict[str, list[str]] = {}
    for pair in found:
        if pair.is_inert:
            change = f"{pair.knob} {' → '.join(map(_value, pair.values))}"
            memory = "" if pair.memory_bytes is None else f", memory {_memory(pair.memory_bytes)}"
            shown = f"{pair.base.label} and {pair.new.label}, time {_time(pair)}{memory}"
            by_change.setdefault(change, []).append(shown)
    return [
        f"{change} is inert: the same steps and images, no difference in time or memory ({cells.listed(shown)})."
        for change, shown in by_change.items()
    ]


def _of_pay(found: Sequence[KnobPair]) -> tuple[str, ...]:
    if all(pair.pays_after is None for pair in found):
        return ()
    return ("Worth its start: what loading and the first request take longer, over what a warm call is faster by.",)
