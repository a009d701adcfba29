"""A git revision of zbench checked out beside the working tree, for as long as a comparison takes."""

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from zbench.errors import ConfigError


@contextmanager
def worktree(flag: str, revision: str, checkout: Path) -> Iterator[Path]:
    """A folder with `revision` of the repository at `checkout`, removed afterwards.

    Raises ConfigError naming `flag` where there is no such revision, or no repository.
    """
    commit = _git(flag, revision, checkout, "rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}")
    with tempfile.TemporaryDirectory(prefix="zbench-ab-") as parent:
        folder = Path(parent) / commit[:12]
        _git(flag, revision, checkout, "worktree", "add", "--detach", str(folder), commit)
        try:
            yield folder
        finally:
            _git(flag, revision, checkout, "worktree", "remove", "--force", str(folder))


def _git(flag: str, revision: str, checkout: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(checkout), *arguments], capture_output=True, text=True, check=True)
    except OSError as error:
        raise ConfigError(flag, revision, f"git cannot be run ({error.strerror})") from error
    except subprocess.CalledProcessError as error:
        said = (error.stderr.strip().splitlines() or ["git said nothing"])[-1]
        raise ConfigError(flag, revision, f"is no revision that git can check out from {checkout} ({said})") from error
    return done.stdout.strip()
