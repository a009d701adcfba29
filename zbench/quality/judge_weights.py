"""Which weights the judges of images have, by content; a path says where they lie, not what they are.

Torch-free: the parent asks whether they are still those that a record was judged by.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from zbench.config import MeasureConfig
from zbench.errors import ConfigError
from zbench.zimage.checksum import named_sha256
from zbench.zimage.layout import tokenizer_files


class JudgeWeights(NamedTuple):
    """What a key of `measure` names."""

    judge: str
    kind: str  # of what the path leads to
    is_there: Callable[[Path], bool]


JUDGES = {
    "lpips_weights": JudgeWeights("LPIPS", "safetensors file", Path.is_file),
    "clip_weights": JudgeWeights("CLIP", "folder of a CLIP model", Path.is_dir),
}
"""By the key of `measure`."""


def check_judges(measure: MeasureConfig) -> None:
    """Raise ConfigError for weights that are not here: what is named is never fetched."""
    for key, path in _named(measure).items():
        if not JUDGES[key].is_there(path):
            problem = f"no such {JUDGES[key].kind}; nothing is downloaded, give a local path"
            raise ConfigError(f"measure.{key}", getattr(measure, key), problem)


def judges_sha256(measure: MeasureConfig) -> dict[str, str]:
    """Key of `measure` to the digest of what it names, without the keys that name nothing that is there to be read.

    Of LPIPS it is that of one file, of CLIP that of its folder's weights, configs and tokenizer.
    """
    found = {}
    for key, path in _named(measure).items():
        try:
            digest = named_sha256(_files(path))
        except OSError:  # whoever loads it says what is wrong with it
            continue
        if digest is not None:
            found[key] = digest
    return found


def _named(measure: MeasureConfig) -> dict[str, Path]:
    paths = {key: getattr(measure, key) for key in JUDGES}
    return {key: Path(os.path.expanduser(path)) for key, path in paths.items() if path is not None}


def _files(path: Path) -> dict[str, Path]:
    if not path.is_dir():
        return {"": path}
    return {file.name: file for file in path.glob("*.safetensors")} | tokenizer_files(path)
