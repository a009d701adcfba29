"""What the exports share: which trials have figures to hand on, and what is read of each.

Refuses to hand on as measured what was projected or measured on a proxy. Says on stderr what it leaves out.
"""

import json
from collections.abc import Iterator
from typing import NamedTuple

from zbench.analysis.figures import TrialFigures
from zbench.analysis.view import View
from zbench.errors import ZbenchError
from zbench.measurement import Measurement
from zbench.record import Record
from zbench.sanitize import json_text
from zbench.streams import talk


class Exported(NamedTuple):
    """A COMPLETE trial: its record, what was measured, and its figures, `figures.label` being its unique name."""

    record: Record
    measurement: Measurement
    figures: TrialFigures


def exported(view: View) -> Iterator[Exported]:
    """The trials of `view` that have figures, in its order, each read when it is its turn."""
    for row, record in view.pairs:
        measured = record.valid_measurement
        if measured is not None:
            yield Exported(record, measured, row)


def complete_trials(view: View) -> View:
    """The COMPLETE trials in the order of every table; how many FAILED ones are left out goes to stderr."""
    failed = sum(row.state == "FAILED" for row in view.trials)
    if failed:
        talk(f"note: left out {count(failed)} FAILED, without figures")
    return view.only({row.key for row in view.complete})


def measured_trials(view: View, form: str) -> View:
    """The COMPLETE trials with a latency, for a format that cannot mark what was not measured.

    Raises ZbenchError if any was projected or measured on a proxy, and if none is left: an empty file would look
    like success to the tool that reads it. Trials without a latency are left out, which goes to stderr.
    """
    summaries = view.complete
    unmeasured = [row for row in summaries if row.source != "measured"]
    if unmeasured:
        raise ZbenchError(
            f"--format {form} cannot mark what was not measured, and of {count(len(summaries))} {len(unmeasured)} "
            f"are projected or measured on a proxy (such as {unmeasured[0].label}); export csv, csv-rounds or parquet, "
            "which name each figure's source"
        )
    trials = complete_trials(view)
    timed = trials.only({row.key for row in trials.trials if row.latency_median_s is not None})
    if len(timed.trials) < len(trials.trials):
        talk(f"note: left out {count(len(trials.trials) - len(timed.trials))} without a latency")
    if not timed.trials:
        raise ZbenchError(f"--format {form}: no trial has a latency to export; zbench report says why")
    return timed


def memory_measure(row: TrialFigures, separator: str) -> str:
    """The name of its peak memory: which peak it is stands in it, unless it is the device's, as they do not compare."""
    words = ["peak", "memory"]
    if row.memory_kind not in (None, "device"):
        words += str(row.memory_kind).split()
    return separator.join(words)


def to_json(data: object) -> str:
    """Indented JSON that ends in a line feed; ValueError for NaN and infinity."""
    return json_text(json.dumps(data, ensure_ascii=False, allow_nan=False, indent=2)) + "\n"


def count(number: int) -> str:
    """That many trials, in words."""
    return f"{number} trial" if number == 1 else f"{number} trials"
