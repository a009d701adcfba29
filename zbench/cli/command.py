"""What a command is: a row of the table that help, usage, errors and completion are made from."""

from collections.abc import Callable
from typing import NamedTuple


class Command(NamedTuple):
    """One command. `arguments` are those of its usage line, `summary` a sentence without capital and full stop."""

    name: str
    group: str
    arguments: str
    summary: str
    function: "Callable[[Command, list[str]], int]"
    is_hydra: bool = False  # shows its help and completes its words by Hydra
    is_verdict: bool = False  # its exit code is its answer, whether or not the words to it could be printed

    @property
    def call(self) -> str:
        """How it is called, without options: `report RUN …`."""
        return f"{self.name} {self.arguments}".rstrip()

    @property
    def usage(self) -> str:
        """The line that its help begins with."""
        return f"zbench {self.call} [OPTION …]"

    @property
    def description(self) -> str:
        """The summary as a sentence."""
        return f"{self.summary[0].upper()}{self.summary[1:]}."
