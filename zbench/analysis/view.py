"""A view of records: the last record of each trial with its figures, in the order of every table; computed once.

Table, page, CSV, recommendation and exports all take a view, so that none of them derives a figure of its own.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING

from zbench.analysis.figures import NOT_VALIDATED, TrialFigures, figures_of, with_implausible
from zbench.analysis.labels import unique_labels
from zbench.record import Record
from zbench.store import latest_records

if TYPE_CHECKING:
    import pandas as pd

TrialKey = tuple[str, str]
"""Sweep and trial id."""


@dataclass(frozen=True)
class View:
    """Figures and records of trials, in one order."""

    trials: tuple[TrialFigures, ...]
    records: tuple[Record, ...]
    journal: tuple[Record, ...]  # the same records in the order in which they were first written

    @property
    def pairs(self) -> Iterator[tuple[TrialFigures, Record]]:
        """Each trial's figures with its record."""
        return zip(self.trials, self.records, strict=True)

    @cached_property
    def by_key(self) -> dict[TrialKey, Record]:
        """Each record by its sweep and trial id."""
        return {(record.sweep, record.trial_id): record for record in self.records}

    @property
    def complete(self) -> tuple[TrialFigures, ...]:
        """The trials that have figures."""
        return tuple(row for row in self.trials if row.state == "COMPLETE")


def view_of(records: Iterable[Record]) -> View:
    """In the order of every table: each piece of work's trials, its reference first, then its baseline, then the
    fastest first; then the FAILED, then the PRUNED.

    Raises RecordError where a record's config is not one of this zbench.
    """
    last = latest_records(records)
    by_key = {(r.sweep, r.trial_id): r for r in last}
    rows = [
        figures_of(record, label, by_key.get((record.sweep, record.reference_id)), by_key.get(_baseline(record)))
        for record, label in zip(last, unique_labels(last), strict=True)
    ]
    rows = with_implausible(rows, last)
    groups = {key: place for place, key in enumerate(dict.fromkeys((r.sweep, r.reference_id) for r in last))}

    def place(pair: tuple[TrialFigures, Record]) -> tuple[int, int, bool, bool, float, float, str]:
        row = pair[0]
        return (
            ("COMPLETE", "FAILED", "PRUNED").index(row.state),
            groups[row.sweep, row.reference_id],
            not row.is_reference,
            not row.is_baseline,
            -(row.speedup or 0.0),
            row.latency_median_s or 0.0,
            row.label,
        )

    ordered = sorted(zip(rows, last, strict=True), key=place)
    return View(tuple(row for row, _ in ordered), tuple(record for _, record in ordered), tuple(last))


def frame_of(view: View) -> "pd.DataFrame":
    """One row a trial, a column a field of TrialFigures but `missing`, and `validation`; None where there is none."""
    import pandas as pd

    columns = [f.name for f in fields(TrialFigures) if f.name != "missing"]
    rows = [{name: getattr(row, name) for name in columns} for row in view.trials]
    frame = pd.DataFrame(rows, columns=columns, dtype=object)
    frame["caveats"] = ["; ".join(row["caveats"]) or None for row in rows]
    frame["validation"] = [NOT_VALIDATED if row["source"] in ("proxy", "projected") else None for row in rows]
    return frame


def _baseline(record: Record) -> TrialKey:
    return record.sweep, record.baseline_id
