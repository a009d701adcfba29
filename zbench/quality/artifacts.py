"""A trial's folder of images and latents: `<prompt_id>-<seed>.png` and `latents.safetensors`; it compares nothing.

Images are lossless PNGs and latents are float32 safetensors, so what is read back is bit for bit what was made.
`made_by.json` names the content of the pipeline that made them, so that images of weights that were replaced since are
never taken for those of the new ones. It is the last to be written, and while images are written it names none of them.
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO
from urllib.parse import quote

import msgspec

from zbench.decode import plain, typed
from zbench.errors import StoreError, cannot_write
from zbench.files import replace_file
from zbench.measurement import Effective

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

LATENTS = "latents.safetensors"
MADE_BY = "made_by.json"
MOST_SIDE = 8192
"""Pixels of a side of an image that is opened; Pillow's own limit on all of them is three quarters of its square."""


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

    `made_by` is what took effect when they were made. Raises StoreError where they cannot be written.
    """
    from PIL import Image
    from safetensors.numpy import save

    stems = {stem(a.prompt_id, a.seed) for a in artifacts}
    arrays = [array for a in artifacts for array in (a.image, a.latents) if array is not None]
    with _one_line(folder, sum(array.nbytes for array in arrays)), _Replacing(folder, made_by or Effective(), stems):
        for artifact in artifacts:
            png = io.BytesIO()
            Image.fromarray(artifact.image).save(png, format="PNG", compress_level=1)
            replace_file(image_path(folder, artifact.prompt_id, artifact.seed), png.getvalue())
        tensors = {stem(a.prompt_id, a.seed): a.latents for a in artifacts if a.latents is not None}
        replace_file(folder / LATENTS, save(tensors))


def copy_artifacts(source: Path, folder: Path) -> None:
    """Put copies of the artifacts in `source` in place of those in `folder`. Raises StoreError where it cannot."""
    made_by = contents(source)
    names = [name for name in (*(f"{s}.png" for s in made_by.stems or ()), LATENTS) if (source / name).is_file()]
    needed_bytes = sum((source / name).stat().st_size for name in names)
    with _one_line(folder, needed_bytes), _Replacing(folder, made_by.effective, made_by.stems or ()):
        for name in names:
            shutil.copyfile(source / name, folder / name)


@contextmanager
def _one_line(folder: Path, needed_bytes: int) -> Iterator[None]:
    """Raise StoreError for what of `needed_bytes` of images cannot be written."""
    try:
        yield
    except OSError as error:
        told = cannot_write(
            f"images to {folder}", error, folder, needed_bytes, "see that the run folder can be written"
        )
        raise StoreError(told) from error


def missing(folder: Path, images: Iterable[tuple[str, int]]) -> bool:
    """Whether an image (prompt id, seed) of those that a trial made, or the file of its latents, is not there whole."""
    whole = contents(folder).stems
    paths = [folder / LATENTS]
    for prompt_id, seed in images:
        if whole is not None and stem(prompt_id, seed) not in whole:
            return True
        paths.append(image_path(folder, prompt_id, seed))
    return not all(path.is_file() and path.stat().st_size for path in paths)


@dataclass(frozen=True)
class FolderContents:
    """What a folder says of its images."""

    stems: frozenset[str] | None  # of the images that are whole; None: it does not say (older)
    effective: Effective  # of the pipeline that made them, as far as its content goes


@dataclass(frozen=True)
class MadeBy:
    """What MADE_BY holds; `images` are stems, none of which is a path."""

    images: list[Annotated[str, msgspec.Meta(pattern=r"^[^/\0]+\Z")]]
    weights_sha256: str | None = None
    configs_sha256: str | None = None
    lora_sha256: str | None = None


def contents(folder: Path) -> FolderContents:
    """What `folder` holds; an older one does not say, and one whose word is broken holds nothing."""
    try:
        said = typed(MadeBy, plain((folder / MADE_BY).read_bytes()))
        return FolderContents(frozenset(said.images), Effective.of_content(vars(said)))
    except FileNotFoundError:
        return FolderContents(None, Effective())
    except (OSError, ValueError):
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
        for path in [*self._folder.glob("*.png"), *self._folder.glob("*.partial")]:  # the latter of who was killed
            if path.stem not in self._stems:
                path.unlink()
        self._say(self._stems)

    def _say(self, stems: Collection[str]) -> None:
        content = {f"{kind}_sha256": digest for kind, digest in self._made_by.content.items()}
        said = {**content, "images": sorted(stems)}
        replace_file(self._folder / MADE_BY, (json.dumps(said, ensure_ascii=False, indent=1) + "\n").encode())


def read_picture(path: Path, most: tuple[int, int] = (MOST_SIDE, MOST_SIDE)) -> Image:
    """The image in a PNG as RGB, if it has at most that width and height: a larger one is not decoded.

    Raises OSError or ValueError for a file that is no such image, whatever is wrong with it.
    """
    return open_picture(path, str(path), most)


def open_picture(
    source: Path | BinaryIO,
    called: str,
    most: tuple[int, int] = (MOST_SIDE, MOST_SIDE),
    formats: Sequence[str] = ("PNG",),
) -> Image:
    """As `read_picture`, of a file or of bytes in memory; `called` names it in errors, `formats` are Pillow's."""
    import warnings

    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(source, formats=list(formats)) as picture:
                if picture.width > most[0] or picture.height > most[1]:
                    raise ValueError(f"{called}: {picture.width} × {picture.height} pixels, more than its trial makes")
                return picture.convert("RGB")
    except (OSError, ValueError):
        raise
    except Exception as error:  # a broken chunk is a SyntaxError, a struct.error or a zlib.error
        raise ValueError(f"{called}: not an image ({' '.join(str(error).split())})") from error


def read_artifact(folder: Path, prompt_id: str, seed: int) -> Artifact | None:
    """One artifact; None if its image is not there, or not whole. `latents` is None where only the image is.

    Raises OSError or ValueError if a file is there and cannot be read.
    """
    import numpy as np
    from safetensors import SafetensorError, safe_open

    path = image_path(folder, prompt_id, seed)
    whole = contents(folder).stems
    if not path.is_file() or (whole is not None and stem(prompt_id, seed) not in whole):
        return None
    image = np.asarray(read_picture(path))
    latents = None
    if (folder / LATENTS).is_file():
        name = stem(prompt_id, seed)
        try:
            with safe_open(folder / LATENTS, framework="np") as file:
                latents = file.get_tensor(name) if name in file.keys() else None  # noqa: SIM118 (not a dict)
        except SafetensorError as error:
            raise ValueError(f"{folder / LATENTS}: {error}") from error
    return Artifact(prompt_id, seed, image, latents)
