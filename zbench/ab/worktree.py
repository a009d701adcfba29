"""A git revision of zbench checked out beside the working tree, for as long as a comparison takes."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from zbench.errors import ConfigError
from zbench.executors.client import HOME


class Checkout(NamedTuple):
    """A revision on disk."""

    folder: Path
    commit: str


@contextmanager
def worktree(flag: str, revision: str) -> Iterator[Checkout]:
    """`revision` of zbench's own checkout, or, where zbench is installed without one, of the current folder's.

    It is removed afterwards. Raises ConfigError naming `flag` where there is no such revision, or no repository.
    """
    repository = HOME if (HOME / ".git").exists() else Path.cwd()
    try:
        commit = _git(repository, "rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}")
        _git(repository, "cat-file", "-e", f"{commit}:zbench/worker/__init__.py")
    except (OSError, subprocess.CalledProcessError) as error:
        raise ConfigError(
            flag, revision, f"is no revision of zbench in the repository at {repository} ({_said(error)})"
        ) from error
    with tempfile.TemporaryDirectory(prefix="zbench-ab-") as parent:
        folder = Path(parent) / commit[:12]
        try:
            _git(repository, "worktree", "add", "--detach", str(folder), commit)
        except subprocess.CalledProcessError as error:
            raise ConfigError(flag, revision, f"git cannot check it out ({_said(error)})") from error
        try:
            yield Checkout(folder, commit)
        finally:
            with suppress(subprocess.CalledProcessError):
                _git(repository, "worktree", "remove", "--force", str(folder))


def _git(repository: Path, *arguments: str) -> str:
    """Output of a git command; variables such as GIT_DIR would point elsewhere inside somebody's git hook."""
    variables = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    command = ["git", "-C", str(repository), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=variables)
    said: str = done.stdout.strip()
    return said


def _said(error: OSError | subprocess.CalledProcessError) -> str:
    if isinstance(error, OSError):
        return f"git cannot be run: {error.strerror}"
    return str((error.stderr.strip().splitlines() or ["git said nothing"])[-1])
