"""A view of records: the last record of each trial with its figures, in the order of every table; computed once.

Table, page, CSV, recommendation and exports all take a view, so that none of them derives a figure of its own. It holds
figures; records are read when they are asked for, where they come from a journal.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from zbench.analysis import caveats as doubt
from zbench.analysis.figures import TrialFigures, figures_of
from zbench.analysis.labels import told_apart
from zbench.analysis.scaling import DeviceScaling, OneDevice
from zbench.analysis.speedup import companion_id
from zbench.record import Record
from zbench.stored import StoredRecords, TrialKey, uncollected


@dataclass(frozen=True)
class View:
    """Figures of trials, in one order, and the record of each."""

    trials: tuple[TrialFigures, ...]
    by_key: Mapping[TrialKey, Record]  # by sweep and trial id, in the order in which trials were first written

    @property
    def pairs(self) -> Iterator[tuple[TrialFigures, Record]]:
        """Each trial's figures with its record."""
        return ((row, self.by_key[row.key]) for row in self.trials)

    @property
    def records(self) -> Iterator[Record]:
        """Each trial's record, in the order of the figures."""
        return (self.by_key[row.key] for row in self.trials)

    @property
    def journal(self) -> Iterator[Record]:
        """The same records in the order in which they were first written."""
        shown = {row.key for row in self.trials}
        return (self.by_key[key] for key in self.by_key if key in shown)

    @property
    def complete(self) -> tuple[TrialFigures, ...]:
        """The trials that have figures."""
        return tuple(row for row in self.trials if row.state == "COMPLETE")

    def only(self, keys: Collection[TrialKey]) -> "View":
        """The same figures and records, of these trials alone."""
        return replace(self, trials=tuple(row for row in self.trials if row.key in keys))


def view_of(records: Iterable[Record] | StoredRecords) -> View:
    """In the order of every table: each piece of work's trials, its reference first, then its baseline, then the
    fastest first; those on one kind of device together; then the FAILED, then the PRUNED.

    Raises RecordError where a record's config is not one of this zbench.
    """
    if isinstance(records, StoredRecords):
        by_key: Mapping[TrialKey, Record] = records
        own_labels = list(records.labels.values())
    else:
        by_key = {(record.sweep, record.trial_id): record for record in records}
        own_labels = [record.label for record in by_key.values()]
    keys = list(by_key)
    labels = told_apart(own_labels, lambda i: by_key[keys[i]].trial, lambda i: f"{keys[i][0]}/{keys[i][1][:6]}")
    with uncollected():
        rows = _figures(by_key, keys, labels)
    groups = {key: place for place, key in enumerate(dict.fromkeys((row.sweep, row.reference_id) for row in rows))}

    devices = {(row.sweep, row.trial_id): row.device for row in rows if row.is_reference}

    def place(row: TrialFigures) -> tuple[int, int, bool, str, bool, bool, float, float, str]:
        return (
            ("COMPLETE", "FAILED", "PRUNED").index(row.state),
            groups[row.sweep, row.reference_id],
            row.device != devices.get((row.sweep, row.reference_id), row.device),  # the reference's come first
            row.device or "",
            not row.is_reference,
            not row.is_baseline,
            -(row.speedup or 0.0),
            row.latency_median_s or 0.0,
            row.label,
        )

    return View(tuple(sorted(rows, key=place)), by_key)


def _figures(by_key: Mapping[TrialKey, Record], keys: Sequence[TrialKey], labels: Sequence[str]) -> list[TrialFigures]:
    """Of each record, in one pass. Speed-ups beyond what skipping can give are marked: the baseline where its own calls
    show that it was slowed, else the trial, as it cannot be told which of the two was disturbed.
    """
    rows = []
    slowed: dict[TrialKey, bool] = {}
    one_device = OneDevice(by_key)
    for key, label in zip(keys, labels, strict=True):
        record = by_key[key]
        of_baseline = (record.sweep, record.baseline_id)
        baseline = by_key.get(of_baseline)
        beside = None if record.valid_measurement is None else companion_id(record.valid_measurement)
        companion = None if beside in (None, record.baseline_id) else by_key.get((record.sweep, str(beside)))
        row = figures_of(record, label, by_key.get((record.sweep, record.reference_id)), baseline, companion)
        if row.devices > 1:
            row = _against_one_device(row, one_device.compare(record))
        beyond = doubt.beyond_skipping(record, baseline, row.speedup)
        if beyond is not None and baseline is not None:
            if of_baseline not in slowed:
                measured = baseline.valid_measurement
                slowed[of_baseline] = measured is not None and doubt.was_slowed(measured)
            if not slowed[of_baseline]:
                row = replace(row, caveats=(*row.caveats, beyond + doubt.UNTOLD))
        rows.append(row)
    rows = _with_residencies(rows)
    return [replace(row, caveats=(*row.caveats, doubt.BLAMED)) if slowed.get(row.key) else row for row in rows]


def _with_residencies(rows: Sequence[TrialFigures]) -> list[TrialFigures]:
    """Trials that found their pipeline resident with what the trial that it was loaded for paid, where that is here."""
    payers = {row.key: row for row in rows if row.load_s is not None}
    found = []
    for row in rows:
        payer = payers.get((row.sweep, row.launched_for)) if row.launched_for is not None else None
        if payer is not None and row.load_s is None:
            row = replace(
                row,
                resident_after=payer.label,
                resident_load_s=payer.load_s,
                resident_first_request_s=payer.first_request_s,
            )
        found.append(row)
    return found


def _against_one_device(row: TrialFigures, scaling: DeviceScaling | None) -> TrialFigures:
    """With what its devices bought, or why that is not known."""
    if scaling is None:
        return row
    if scaling.request is None:
        return replace(row, missing=(*row.missing, ("parallel_efficiency", str(scaling.why_none))))
    return replace(row, one_device_speedup=scaling.request.speedup, parallel_efficiency=scaling.request.efficiency)
