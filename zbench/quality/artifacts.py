"""A trial's folder of images and latents: `<prompt_id>-<seed>.png` and `latents.safetensors`; it compares nothing.

Images are lossless PNGs and latents are float32 safetensors, so what is read back is bit for bit what was made.
`made_by.json` names the content of the pipeline that made them, so that images of weights that were replaced since are
never taken for those of the new ones. It is the last to be written, and while images are written it names none of them.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from zbench.measurement import Effective

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LATENTS = "latents.safetensors"
MADE_BY = "made_by.json"


@dataclass(frozen=True)
class Artifact:
    """One image of a trial and the latents it was decoded from."""

    prompt_id: str
    seed: int
    image: NDArray[np.uint8]  # height × width × 3, RGB
    latents: NDArray[np.float32] | None


def stem(prompt_id: str, seed: int) -> str:
    """File name without its suffix, and the tensor's name; what a file name must not hold is percent-encoded."""
    safe = "".join(c if c.isalnum() or c in "._-" else quote(c, safe="") for c in prompt_id)
    return f"{safe}-{seed}"


def image_path(folder: Path, prompt_id: str, seed: int) -> Path:
    """Where a trial's image of this prompt and seed lies."""
    return folder / f"{stem(prompt_id, seed)}.png"


def save_artifacts(folder: Path, artifacts: list[Artifact], made_by: Effective | None = None) -> None:
    """Write all of a trial's artifacts in place of those that are there; each file appears whole or not at all.

    `made_by` is what took effect when they were made.
    """
    from PIL import Image
    from safetensors.numpy import save

    stems = {stem(a.prompt_id, a.seed) for a in artifacts}
    with _Replacing(folder, made_by or Effective(), stems):
        for artifact in artifacts:
            path = image_path(folder, artifact.prompt_id, artifact.seed)
            partial = path.with_suffix(".png.partial")
            Image.fromarray(artifact.image).save(partial, format="PNG", compress_level=1)
            os.replace(partial, path)
        tensors = {stem(a.prompt_id, a.seed): a.latents for a in artifacts if a.latents is not None}
        partial = folder / (LATENTS + ".partial")
        partial.write_bytes(save(tensors))
        os.replace(partial, folder / LATENTS)


def copy_artifacts(source: Path, folder: Path) -> None:
    """Put copies of the artifacts in `source` in place of those in `folder`."""
    made_by = contents(source)
    with _Replacing(folder, made_by.effective, made_by.stems or ()):
        for name in [*(f"{s}.png" for s in made_by.stems or ()), LATENTS]:
            if (source / name).is_file():
                shutil.copyfile(source / name, folder / name)


@dataclass(frozen=True)
class FolderContents:
    """What a folder says of its images."""

    stems: frozenset[str] | None  # of the images that are whole; None: it does not say (older)
    effective: Effective  # of the pipeline that made them, as far as its content goes


def contents(folder: Path) -> FolderContents:
    """What `folder` holds; an older one does not say, and one whose word is broken holds nothing."""
    try:
        said = json.loads((folder / MADE_BY).read_text(encoding="utf-8"))
        return FolderContents(frozenset(said["images"]), Effective.of_content(said))
    except FileNotFoundError:
        return FolderContents(None, Effective())
    except (OSError, ValueError, KeyError, TypeError):
        return FolderContents(frozenset(), Effective())


class _Replacing:
    """While images are replaced a folder says that it holds none, and after that which and of what content."""

    def __init__(self, folder: Path, made_by: Effective, stems: Collection[str]) -> None:
        self._folder, self._made_by, self._stems = folder, made_by, stems

    def __enter__(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._say(())

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            return
        for path in self._folder.glob("*.png"):
            if path.stem not in self._stems:
                path.unlink()
        self._say(self._stems)

    def _say(self, stems: Collection[str]) -> None:
        content = {f"{kind}_sha256": digest for kind, digest in self._made_by.content.items()}
        said = {**content, "images": sorted(stems)}
        partial = self._folder / (MADE_BY + ".partial")
        partial.write_text(json.dumps(said, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        os.replace(partial, self._folder / MADE_BY)


def read_artifact(folder: Path, prompt_id: str, seed: int) -> Artifact | None:
    """One artifact; None if its image is not there, or not whole. `latents` is None where only the image is.

    Raises OSError or ValueError if a file is there and cannot be read.
    """
    import numpy as np
    from PIL import Image
    from safetensors import SafetensorError, safe_open

    path = image_path(folder, prompt_id, seed)
    whole = contents(folder).stems
    if not path.is_file() or (whole is not None and stem(prompt_id, seed) not in whole):
        return None
    with Image.open(path) as picture:
        image = np.asarray(picture.convert("RGB"))
    latents = None
    if (folder / LATENTS).is_file():
        name = stem(prompt_id, seed)
        try:
            with safe_open(folder / LATENTS, framework="np") as file:
                latents = file.get_tensor(name) if name in file.keys() else None  # noqa: SIM118 (not a dict)
        except SafetensorError as error:
            raise ValueError(f"{folder / LATENTS}: {error}") from error
    return Artifact(prompt_id, seed, image, latents)
