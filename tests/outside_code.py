"""Code from outside zbench: modules and packages in a folder of their own, and zbench as a user runs it with them."""

import importlib
import subprocess
import sys
from pathlib import Path

from commands import zbench_here

from zbench.record import Record
from zbench.store import read_records

SMALL = (
    "hardware=cpu",
    "pipeline=zimage_tiny",
    "workload=single",
    "measure=quick",
    "measure.min_rounds=2",
    "measure.max_rounds=2",
)
SAYS_WHEN_IMPORTED = """
import pathlib
pathlib.Path({trace!r}).touch()
class Nothing:
    def __init__(self, *args, **kwargs):
        pathlib.Path({made!r}).touch()
"""


class Outside:
    """A folder with modules and packages from outside zbench, importable here and in processes started here."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.trace, self.made = folder / "imported", folder / "made"

    def module(self, name: str, text: str) -> None:
        (self.folder / f"{name}.py").write_text(text)

    def nothing(self, name: str) -> str:
        """A target that leaves traces when it is imported and when it is made."""
        self.module(name, SAYS_WHEN_IMPORTED.format(trace=str(self.trace), made=str(self.made)))
        return f"{name}:Nothing"

    def package(self, name: str, group: str, **named: str) -> None:
        """An installed package of entry points."""
        info = self.folder / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        lines = [f"[{group}]", *(f"{entry} = {value}" for entry, value in named.items())]
        (info / "entry_points.txt").write_text("\n".join(lines) + "\n")


def zbench(*args: str) -> "subprocess.CompletedProcess[str]":
    """A command, in the current folder. What it imports of the code outside is imported anew by the next one."""
    importlib.invalidate_caches()
    try:
        return zbench_here(Path.cwd(), *args)
    finally:
        forget(Path.cwd() / "outside")  # where the fixture puts it


def forget(folder: Path) -> None:
    """What was imported from there: another module of the same name may come from elsewhere."""
    for name, module in list(sys.modules.items()):
        if Path(getattr(module, "__file__", None) or "/").is_relative_to(folder):
            del sys.modules[name]


def records() -> list[Record]:
    """Of the one run in the current folder."""
    (journal,) = Path("runs").glob("*/records.jsonl")
    return read_records(journal)
