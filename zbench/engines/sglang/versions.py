"""What each version of SGLang accepts, and a launch without what one lacks.

The table is made from named wheels' source by `benchmarks/sglang_flags.py`. An installed version is asked for its name,
and where the table lacks it for its flags (`sglang serve --help`, which takes it half a minute).
"""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from zbench.engines.sglang.launch import SGLangLaunch
from zbench.errors import ConfigError

TABLE = Path(__file__).parent / "flags.json"
NEWEST = "0.5.23"
INSTALLED = "installed"
OPTION = "--sglang-version"
PROGRAM = ("sglang",)
VERSION = re.compile(r"(?m)^sglang version: (\S+)$")
"""What `sglang version` prints."""

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
    keeps_forced_masks: bool | None = None
    """Whether a forced step mask holds after the first request; None where nobody could be asked."""

    def takes(self, flag: str) -> bool:
        """Whether `sglang serve` knows the flag."""
        return flag in self.flags or (self.component_paths and COMPONENT_PATH.fullmatch(flag) is not None)


def known_versions() -> list[str]:
    """Those of the table, oldest first."""
    return list(_table())


def accepted(
    version: str, *, key: str = OPTION, program: Sequence[str] = PROGRAM, environment: Mapping[str, str] | None = None
) -> Accepted:
    """What a version of the table, or `installed`, takes.

    An installed one of the table's versions is taken at the table's word; another is asked for its flags. `program` is
    how it is called, in `environment` (this process's). Raises ConfigError that names `key` for one that nobody knows.
    """
    if version == INSTALLED:
        found = os.environ if environment is None else environment
        place = shutil.which(program[0], path=found.get("PATH"))
        if place is None:
            known = ", ".join(known_versions())
            raise ConfigError(key, INSTALLED, f"there is no {program[0]} on the PATH; name a version: {known}")
        return _installed(key, tuple(program), tuple(sorted(found.items())), os.stat(place).st_mtime_ns)
    if version not in _table():
        known = ", ".join(known_versions())
        way = f"there are {known}, and {INSTALLED}; benchmarks/sglang_flags.py reads another's wheel"
        raise ConfigError(key, version, way)
    row = _table()[version]
    return Accepted(
        version,
        frozenset(row["flags"]),
        row["environment"],
        row["request"],
        bool(row["component_paths"]),
        bool(row["keeps_forced_masks"]),
    )


def lacking(launch: SGLangLaunch, takes: Accepted) -> dict[str, str]:
    """The launch's flags and variables that the version lacks, with their values."""
    words = launch.arguments
    told = {word: words[place + 1] for place, word in enumerate(words) if word.startswith("--")}
    missing = {flag: value for flag, value in told.items() if not takes.takes(flag)}
    read = takes.environment
    return missing | {n: value for n, value in launch.environment.items() if read is not None and n not in read}


def fitted(launch: SGLangLaunch, takes: Accepted) -> SGLangLaunch:
    """The launch without the flags and variables that the version lacks; a note names each, with its value."""
    missing, notes = lacking(launch, takes), []
    for name, value in missing.items():
        if name.startswith("--"):
            then = CONSEQUENCES.get(name, "")
            notes.append(f"sglang {takes.version} has no {name}, so {name} {value} is left out{then}.")
        else:
            notes.append(f"sglang {takes.version} reads no {name}, so {name}={value} is left out.")
    words = launch.arguments
    out = {at + step for at, word in enumerate(words) if word in missing for step in (0, 1)}
    kept = tuple(word for at, word in enumerate(words) if at not in out)
    environment = {name: value for name, value in launch.environment.items() if name not in missing}
    undeclared = [key for key in launch.request if takes.request is not None and key not in takes.request]
    if undeclared:
        notes.append(f"Requests of sglang {takes.version} declare no {', '.join(undeclared)}; it may ignore that.")
    return replace(launch, arguments=kept, environment=environment, notes=(*launch.notes, *notes))


def flags_in_help(text: str) -> frozenset[str]:
    """The flags that a `--help` shows."""
    return frozenset(re.findall(r"(?<![\w-])--[a-z0-9][a-z0-9.-]*[a-z0-9]", text))


@cache
def _installed(
    key: str, program: tuple[str, ...], environment: tuple[tuple[str, str], ...], changed_ns: int
) -> Accepted:
    """Asked once, unless it changed: its version, which takes it a moment; where the table has none such, its help."""
    variables, typed = dict(environment), " ".join(program)
    told = VERSION.search(_answer(key, (*program, "version"), variables))
    if told is not None and told[1] in _table():
        return accepted(told[1])
    said = _answer(key, (*program, "serve", "--help"), variables)
    flags = flags_in_help(said)
    if "--model-path" not in flags:
        last = (said.strip().splitlines() or ["it printed nothing"])[-1]
        raise ConfigError(key, INSTALLED, f"{typed} serve --help shows no --model-path ({last})")
    return Accepted(INSTALLED if told is None else told[1], flags)


def _answer(key: str, command: tuple[str, ...], variables: dict[str, str]) -> str:
    """What a command prints; on stderr, where that is all."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=HELP_TIMEOUT_S, env=variables)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(key, INSTALLED, f"{' '.join(command)} did not answer ({error})") from error
    return done.stdout or done.stderr


@cache
def _table() -> dict[str, dict[str, list[str]]]:
    table: dict[str, dict[str, list[str]]] = json.loads(TABLE.read_text(encoding="utf-8"))
    return table
