"""Records in formats other tools read, each from a view of records to text, in pieces where it may be long, or bytes.

zbench's own text formats are in FORMATS, those that only fit into a file in BINARY_FORMATS. Installed packages and the
user add formats as classes that fit `ExportFormat`. Formats for tools that track measured performance refuse projected
and proxy records (`figures.measured_trials`), since they have no way to mark them.
"""

from collections.abc import Callable, Iterator
from typing import Protocol

from zbench.analysis.view import View
from zbench.errors import ConfigError
from zbench.export.bench_serving import to_bench_serving
from zbench.export.bencher import to_bencher
from zbench.export.github_action import to_github_action
from zbench.export.parquet import to_parquet
from zbench.export.pytest_benchmark import to_pytest_benchmark
from zbench.export.rounds import ROUND_COLUMNS, rounds_csv
from zbench.plugins import installed, load_object
from zbench.report.tables.main import to_csv

FORMATS: dict[str, Callable[[View], str | Iterator[str]]] = {
    "csv": to_csv,
    "csv-rounds": rounds_csv,
    "pytest-benchmark": to_pytest_benchmark,
    "bencher": to_bencher,
    "github-action-benchmark": to_github_action,
    "bench-serving": to_bench_serving,
}

BINARY_FORMATS: dict[str, Callable[[View], bytes]] = {
    "parquet": to_parquet,
}

__all__ = ["BINARY_FORMATS", "FORMATS", "ROUND_COLUMNS", "ExportFormat", "find_format", "format_names"]


class ExportFormat(Protocol):
    """A format from outside zbench; it is made without arguments."""

    def render(self, view: View) -> str | bytes:
        """All of a run, as it is to stand in a file; bytes are not printed."""
        ...


def format_names() -> list[str]:
    """zbench's own formats, then those that installed packages add, of which nothing is imported."""
    return list(dict.fromkeys([*FORMATS, *BINARY_FORMATS, *(entry.name for entry in installed("export"))]))


def find_format(name: str, *, allow_code: bool = False) -> Callable[[View], str | bytes | Iterator[str]]:
    """What renders a view in the format of this name, which may be `module:Class`; zbench's own names come first.

    Raises ConfigError for a name that nothing has, and as `plugins.load_object` does, also while it renders.
    """
    own = FORMATS.get(name) or BINARY_FORMATS.get(name)
    if own is not None:
        return own
    names = format_names()
    if ":" not in name and name not in names:
        raise ConfigError("--format", name or "''", f"no such format; there are: {', '.join(names)}, or module:Class")
    made: ExportFormat = load_object(
        "export", "--format", name, ExportFormat, lambda found: found(), allow_code=allow_code
    )
    return made.render
