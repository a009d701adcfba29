"""What each version of SGLang accepts, and a launch without what one lacks.

The table is made from named wheels' source by `benchmarks/sglang_flags.py`. A version that is installed is asked itself
(`sglang serve --help`, which takes it half a minute).
"""

import json
import re
import shutil
import subprocess
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from zbench.engines.sglang.launch import SGLangLaunch
from zbench.errors import ConfigError

TABLE = Path(__file__).parent / "flags.json"
NEWEST = "0.5.23"
INSTALLED = "installed"
OPTION = "--sglang-version"
HELP_TIMEOUT_S = 180.0

COMPONENT_PATH = re.compile(r"--[a-z-]+-path")
"""A flag for every component of a pipeline, such as `--vae-path`: accepted and in no parser."""

CONSEQUENCES = {
    "--kv-gather-degree": "; it then refuses the sequence degree, which must be Ulysses × ring: use parallel=ring",
}
"""What comes of leaving a flag out, where that is more than nothing."""


@dataclass(frozen=True)
class Accepted:
    """What one version takes."""

    version: str
    flags: Collection[str]
    environment: Collection[str] | None = None
    """Variables that it reads; None where nobody could be asked."""
    request: Collection[str] | None = None
    """Fields that a request declares; None where nobody could be asked."""
    component_paths: bool = True

    def takes(self, flag: str) -> bool:
        """Whether `sglang serve` knows the flag."""
        return flag in self.flags or (self.component_paths and COMPONENT_PATH.fullmatch(flag) is not None)


def known_versions() -> list[str]:
    """Those of the table, oldest first."""
    return list(_table())


def accepted(version: str) -> Accepted:
    """What a version of the table, or `installed`, takes. Raises ConfigError for one that nobody knows."""
    if version == INSTALLED:
        return _installed()
    if version not in _table():
        known = ", ".join(known_versions())
        way = f"there are {known}, and {INSTALLED}; benchmarks/sglang_flags.py reads another's wheel"
        raise ConfigError(OPTION, version, way)
    row = _table()[version]
    return Accepted(version, frozenset(row["flags"]), row["environment"], row["request"], bool(row["component_paths"]))


def fitted(launch: SGLangLaunch, takes: Accepted) -> SGLangLaunch:
    """The launch without the flags and variables that the version lacks; a note names each, with its value."""
    words, kept, notes = list(launch.arguments), [], []
    place = 0
    while place < len(words):
        word = words[place]
        length = 2 if word.startswith("--") else 1
        if length == 1 or takes.takes(word):
            kept += words[place : place + length]
        else:
            then = CONSEQUENCES.get(word, "")
            notes.append(f"sglang {takes.version} has no {word}, so {word} {words[place + 1]} is left out{then}.")
        place += length
    environment = dict(launch.environment)
    for name in [name for name in environment if takes.environment is not None and name not in takes.environment]:
        notes.append(f"sglang {takes.version} reads no {name}, so {name}={environment.pop(name)} is left out.")
    undeclared = [key for key in launch.request if takes.request is not None and key not in takes.request]
    if undeclared:
        notes.append(f"Requests of sglang {takes.version} declare no {', '.join(undeclared)}; it may ignore that.")
    return replace(launch, arguments=tuple(kept), environment=environment, notes=(*launch.notes, *notes))


def flags_in_help(text: str) -> frozenset[str]:
    """The flags that a `--help` shows."""
    return frozenset(re.findall(r"(?<![\w-])--[a-z0-9][a-z0-9.-]*[a-z0-9]", text))


def _installed() -> Accepted:
    program = shutil.which("sglang")
    if program is None:
        known = ", ".join(known_versions())
        raise ConfigError(OPTION, INSTALLED, f"there is no sglang on the PATH; name a version: {known}")
    try:
        done = subprocess.run([program, "serve", "--help"], capture_output=True, text=True, timeout=HELP_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(OPTION, INSTALLED, f"{program} serve --help did not answer ({error})") from error
    flags = flags_in_help(done.stdout)
    if "--model-path" not in flags:
        last = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        raise ConfigError(OPTION, INSTALLED, f"{program} serve --help shows no --model-path ({last})")
    return Accepted(INSTALLED, flags)


@cache
def _table() -> dict[str, dict[str, list[str]]]:
    table: dict[str, dict[str, list[str]]] = json.loads(TABLE.read_text(encoding="utf-8"))
    return table
