"""Of very many trials a page shows those that tell most, and says how many there are."""

import csv
import io
from dataclasses import replace

from factories import complete, trial

from zbench.analysis.pareto import front
from zbench.analysis.telling import MOST_WHOLE, SHOWN, telling
from zbench.analysis.view import view_of
from zbench.config import DBCacheConfig
from zbench.report.tables.main import main_table, render


def many(number):
    """A reference and others, each a little faster than the one before and, but for every tenth, worse."""
    records = [complete(trial(), latency_s=1.0, n_rounds=2)]
    for i in range(1, number):
        cache = DBCacheConfig(residual_diff_threshold=i / 1000)
        ssim = 0.999 - 0.0005 * i if i % 10 else 0.5
        made = complete(trial(cache), latency_s=1 - i / (4 * number), cached=(2, 3, 4), ssim=ssim, n_rounds=2)
        records.append(replace(made, reference_id=records[0].trial_id))
    return records


def test_up_to_a_hundred_are_all_shown():
    view = view_of(many(MOST_WHOLE))
    assert telling(view.complete) == view.complete
    assert not any(line.startswith("Showing") for line in main_table(view).legend)


def test_of_more_the_front_the_reference_and_the_fastest_are_shown_in_order():
    view = view_of(many(160))
    shown = telling(view.complete)
    assert len(shown) == SHOWN
    assert [row for row in view.complete if row in shown] == list(shown)
    assert shown[0].is_reference
    leading = front(view.complete)
    assert {row.key for row in leading[-30:]} <= {row.key for row in shown}, "the front, the most alike of it"
    table = main_table(view)
    assert len(table.rows) == SHOWN
    assert table.legend[0].startswith("Showing 40 of 160 trials") and "summary.csv" in table.legend[0]


def test_csv_has_every_trial():
    assert len(list(csv.DictReader(io.StringIO(render(view_of(many(160)), "csv"))))) == 160
