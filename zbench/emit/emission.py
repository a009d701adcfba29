"""What is written for one tool: files, what is to be known of them, and what checks them. It writes none."""

from dataclasses import dataclass
from typing import Any

import yaml

from zbench.sanitize import printable


@dataclass(frozen=True)
class EmittedFile:
    """One file, by the name that it has in the folder it is written to."""

    name: str
    text: str  # ends with a line feed


@dataclass(frozen=True)
class Emission:
    """A trial in one tool's words."""

    tool: str
    files: tuple[EmittedFile, ...]
    notes: tuple[str, ...] = ()
    check: str | None = None
    """The command that checks it where the tool is, for a shell; None where the tool is what measured."""

    def to_text(self) -> str:
        """One file as it is, so that `> FILE` keeps it; several below their names. Without a line feed at its end."""
        if len(self.files) == 1:
            return self.files[0].text.rstrip("\n")
        return "\n\n".join(f"# ==== {file.name} ====\n{file.text.rstrip()}" for file in self.files)

    def to_dict(self) -> dict[str, Any]:
        """For programs; JSON-ready."""
        files = {file.name: file.text for file in self.files}
        return {"tool": self.tool, "files": files, "notes": list(self.notes), "check": self.check}


def commented(*lines: str) -> str:
    """Lines as comments of a shell, of YAML and of Python; no text leaves its comment."""
    return "".join(f"# {printable(line)}\n" for line in lines)


def python_text(text: str) -> str:
    """A text as Python writes it; none that a CI would take for a command (`##[error]`)."""
    return repr(text).replace("##", r"#\x23")


def yaml_text(data: dict[str, Any]) -> str:
    """YAML in the order given; no text is a command to a CI."""
    dumped: str = yaml.dump(data, Dumper=_OneLineDumper, sort_keys=False, width=LONGEST_LINE)
    return dumped.replace("##", r"\x23#")


LONGEST_LINE = 2**30
"""So that no text is broken, and none of it begins a line."""


class _OneLineDumper(yaml.SafeDumper):
    """Puts double quotes around what has `##` in it, where it can be written as an escape."""

    def represent_text(self, text: str) -> yaml.ScalarNode:
        """As YAML's own, but for the quotes."""
        return self.represent_scalar("tag:yaml.org,2002:str", text, style='"' if "##" in text else None)


_OneLineDumper.add_representer(str, _OneLineDumper.represent_text)
