"""What a pipeline's files hold, as two checksums: of its weights, and of every other file that decides what it makes.

They follow names within the pipeline and bytes, not where it lies. They open no tensor and parse no config; `digests`
sees to it that no file is read twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from zbench.zimage.contents import configs_of, weights_of
from zbench.zimage.digests import files_sha256
from zbench.zimage.layout import Checkpoint

Files = Mapping[str, Sequence[Path]]
"""Component to its weight files."""


class Content(NamedTuple):
    """What a pipeline's files hold."""

    weights_sha256: str | None  # of all weights that are read; None: all are random
    configs_sha256: str | None  # of every other file that decides what the pipeline makes
    lora_sha256: str | None = None  # of the LoRA's file, which is none of the pipeline's own; None: there is none


def content_of(checkpoint: Checkpoint) -> Content:
    """The content of what `load_pipeline` reads.

    Raises `WeightsError` where weights are missing, OSError where a file cannot be read.
    """
    return Content(weights_sha256(weights_of(checkpoint)), named_sha256(configs_of(checkpoint)))


def total_bytes(files: Files) -> int:
    """Bytes of all `files` together."""
    return sum(path.stat().st_size for paths in files.values() for path in paths)


def weights_sha256(files: Files, tell: Callable[[int], None] = lambda done_bytes: None) -> str | None:
    """`named_sha256` of weights under the names `component/file`.

    `tell` is called in this thread with the bytes read so far. Raises OSError where a file cannot be read.
    """
    named = {f"{component}/{path.name}": path for component, paths in files.items() for path in paths}
    return named_sha256(named, tell)


def named_sha256(files: Mapping[str, Path], tell: Callable[[int], None] = lambda done_bytes: None) -> str | None:
    """sha256 (hex) over the sorted lines `name  sha256-of-file`, each with a line feed; None without files.

    `tell` is called in this thread with the bytes read so far. Raises OSError where a file cannot be read.
    """
    if not files:
        return None
    digests = dict(zip(files, files_sha256(list(files.values()), tell), strict=True))
    lines = sorted(f"{name}  {digest}\n" for name, digest in digests.items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()
