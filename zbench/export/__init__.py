"""Records in formats other tools read, each a function from a view of records to text or bytes; writes no file.

Text formats are in FORMATS, those that only fit into a file in BINARY_FORMATS. Formats for tools that track measured
performance refuse projected and proxy records (`figures.measured_trials`), since they have no way to mark them.
"""

from collections.abc import Callable

from zbench.analysis.view import View
from zbench.export.bencher import to_bencher
from zbench.export.github_action import to_github_action
from zbench.export.parquet import to_parquet
from zbench.export.pytest_benchmark import to_pytest_benchmark
from zbench.export.rounds import ROUND_COLUMNS, rounds_csv
from zbench.report.tables.main import to_csv

FORMATS: dict[str, Callable[[View], str]] = {
    "csv": to_csv,
    "csv-rounds": rounds_csv,
    "pytest-benchmark": to_pytest_benchmark,
    "bencher": to_bencher,
    "github-action-benchmark": to_github_action,
}

BINARY_FORMATS: dict[str, Callable[[View], bytes]] = {
    "parquet": to_parquet,
}

__all__ = ["BINARY_FORMATS", "FORMATS", "ROUND_COLUMNS"]
