"""A trial in the words of the tools that people deploy with: zbench, SGLang, cache-dit, diffusers; it runs none.

Every setting of the trial is in a tool's words or in a note (`zbench.carried`). `emit_slurm` is for a whole sweep.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from zbench.emit.cache_dit import emit_cache_dit
from zbench.emit.diffusers import emit_diffusers
from zbench.emit.emission import Emission, EmittedFile
from zbench.emit.overrides import zbench_command, zbench_overrides
from zbench.emit.sglang import emit_sglang
from zbench.emit.slurm import emit_slurm, names_executor
from zbench.errors import ZbenchError
from zbench.sanitize import printable
from zbench.trial import Trial

__all__ = [
    "TOOLS",
    "Emission",
    "EmittedFile",
    "emit",
    "emit_slurm",
    "emit_zbench",
    "names_executor",
    "write",
    "zbench_command",
    "zbench_overrides",
]

TOOLS = ("zbench", "sglang", "cache-dit", "diffusers")


def emit(trial: Trial, tool: str, *, sglang_version: str | None = None, measured: str | None = None) -> Emission:
    """The trial for one of TOOLS; `measured` says how it was, None: nobody did.

    Raises ConfigError for a version of SGLang that nobody knows.
    """
    makers: dict[str, Callable[[Trial], Emission]] = {
        "zbench": emit_zbench,
        "sglang": lambda trial: emit_sglang(trial, sglang_version, measured),
        "cache-dit": emit_cache_dit,
        "diffusers": emit_diffusers,
    }
    return makers[tool](trial)


def emit_zbench(trial: Trial) -> Emission:
    """The line that measures it: all of the trial is in it."""
    line = zbench_command(trial, zbench_overrides(trial))
    return Emission("zbench", (EmittedFile("zbench.sh", f"#!/usr/bin/env bash\n{line}\n"),))


def write(emissions: Sequence[Emission], folder: Path, head: Sequence[str] = ()) -> list[Path]:
    """The files of every tool, and NOTES.txt with `head` and what is to be known of each; their paths.

    Scripts can be executed. Raises ZbenchError where the folder cannot be written to.
    """
    said = [*head]
    for emission in emissions:
        check = [f"check it: {emission.check}"] if emission.check is not None else []
        said += ["", f"{emission.tool}:", *(f"  {note}" for note in [*emission.notes, *check])]
    files = [file for emission in emissions for file in emission.files]
    notes = "".join(f"{printable(line)}\n" for line in said)
    paths = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file in [*files, EmittedFile("NOTES.txt", notes)]:
            path = folder / file.name
            path.write_text(file.text, encoding="utf-8", errors="backslashreplace")
            os.chmod(path, 0o755 if path.suffix == ".sh" else 0o644)
            paths.append(path)
    except OSError as error:
        raise ZbenchError(f"cannot write to {folder}: {error.strerror or error}; name another folder") from error
    return paths
