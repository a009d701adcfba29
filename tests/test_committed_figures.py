"""Committed records, whatever their schema, give the figures that they gave when they were written."""

import json
from pathlib import Path

import pytest

from zbench.analysis.view import view_of
from zbench.store import read_records

REPORTS = Path(__file__).parent.parent / "reports"
FIGURES: dict[str, dict[str, dict[str, object]]] = json.loads(
    (Path(__file__).parent / "golden" / "committed_figures.json").read_text(encoding="utf-8")
)
"""By journal and trial: every figure that is not empty, as the zbench before schema 2 derived it."""


@pytest.mark.parametrize("journal", sorted(FIGURES))
def test_a_record_of_schema_1_gives_the_figures_it_gave(journal: str) -> None:
    trials = {row.trial_id: row.to_dict() for row in view_of(read_records(REPORTS / journal)).trials}
    assert set(trials) == set(FIGURES[journal])
    for trial_id, figures in FIGURES[journal].items():
        now = json.loads(json.dumps(trials[trial_id]))
        assert {key: now[key] for key in figures} == figures
