"""Which weights the judges of images have, by content; a path says where they lie, not what they are.

Torch-free: the parent asks whether they are still those that a record was judged by.
"""

from __future__ import annotations

from pathlib import Path

from zbench.config import MeasureConfig
from zbench.zimage.checksum import named_sha256
from zbench.zimage.layout import tokenizer_files


def judges_sha256(measure: MeasureConfig) -> dict[str, str]:
    """Key of `measure` to the digest of what it names, without the keys that name nothing that is there to be read.

    Of LPIPS it is that of one file, of CLIP that of its folder's weights, configs and tokenizer.
    """
    named = {"lpips_weights": measure.lpips_weights, "clip_weights": measure.clip_weights}
    found = {}
    for key, path in named.items():
        if path is None:
            continue
        try:
            digest = named_sha256(_files(Path(path).expanduser()))
        except OSError:  # whoever loads it says what is wrong with it
            continue
        if digest is not None:
            found[key] = digest
    return found


def _files(path: Path) -> dict[str, Path]:
    if not path.is_dir():
        return {"": path}
    return {file.name: file for file in path.glob("*.safetensors")} | tokenizer_files(path)
