"""What judging a mask costs, and whether a mask's time follows from how many steps it computes; reads one journal.

    zbench sweep search=masks sweep.name=masks
    python benchmarks/mask_cost.py runs/masks/records.jsonl

Of trials whose images alone were judged: seconds of their calls, and beyond: what lies between the starts of two such
trials in a row less the calls of the first. Of those that were timed by turns with the uncached one: time over its own
time, and how far that lies from a straight line over the number of computed steps. Random weights have no search over
masks, as their images say nothing; typed masks do as well: `experiment=five_masks`, alone and with
`measure.quality_only=true`.
"""

import argparse
import statistics
from datetime import datetime
from itertools import pairwise
from pathlib import Path

from zbench.analysis.holdout import mask_of
from zbench.analysis.view import view_of
from zbench.record import Record
from zbench.store import latest, read_records

FOLLOWS = 0.02
"""How far a mask's time may lie from the line, as a share of it, so that its time follows from its steps."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("journal", type=Path)
    records = read_records(parser.parse_args().journal)
    untimed = any(map(is_untimed, records))
    if untimed:
        print_trials(records)
    if not all(map(is_untimed, records)):
        print_times(records)


def print_trials(records: list[Record]) -> None:
    """Of each judged trial what its calls took, and what came beside them."""
    beyond_s = [
        begun(other) - begun(one) - calls_s(one)
        for one, other in pairwise(records)
        if is_untimed(one) and is_untimed(other)
    ]
    judged = [calls_s(record) for record in records if is_untimed(record)]
    if not beyond_s:
        raise SystemExit("fewer than two trials in a row whose images alone were judged")
    print(f"{len(judged)} trials of images alone: {sum(judged):.1f} s in calls, {statistics.median(judged):.3f} s each")
    share = statistics.median(beyond_s) / statistics.median(judged)
    print(f"beyond its calls: {statistics.median(beyond_s):.3f} s a trial (median), {share:.1%} of them")


def print_times(records: list[Record]) -> None:
    """Of each timed mask its share of the baseline's time, beside the line through all of them."""
    kept = list(latest(records).values())
    rows = {row.trial_id: row for row in view_of(kept).trials}
    masked = [record.trial.compute for record in kept if "0" in (mask_of(record.trial) or "")]
    points = []
    for record in kept:
        mask, speedup = mask_of(record.trial), rows[record.trial_id].speedup
        alike = record.trial.compute in masked and record.trial.workload.seeds == records[0].trial.workload.seeds
        if mask is not None and speedup is not None and alike:
            points.append((mask.count("1"), 1 / speedup, mask))
    if len({computed for computed, _, _ in points}) < 3:
        raise SystemExit("masks of fewer than three numbers of steps were timed: no line to hold them to")
    slope, base = statistics.linear_regression([float(p[0]) for p in points], [p[1] for p in points])
    print(f"time = {base:.3f} + {slope:.4f} × computed steps, of the baseline's time")
    off = 0.0
    for computed, share, mask in sorted(points):
        away = share / (base + slope * computed) - 1
        off = max(off, abs(away))
        print(f"  {mask}: {share:.3f} ({away:+.2%})")
    print(f"farthest from the line: {off:.2%} (goal: {FOLLOWS:.0%} at most)")


def is_untimed(record: Record) -> bool:
    return record.measurement is not None and record.measurement.quality_only


def calls_s(record: Record) -> float:
    return 0.0 if record.measurement is None else sum(r.latency_s for r in record.measurement.requests)


def begun(record: Record) -> float:
    """Seconds since 1970."""
    assert record.measurement is not None and record.measurement.window.started_at is not None
    return datetime.fromisoformat(record.measurement.window.started_at).timestamp()


if __name__ == "__main__":
    main()
