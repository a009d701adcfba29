"""A trial's folder of images and latents: `<prompt_id>-<seed>.png` and `latents.safetensors`; it compares nothing.

Images are lossless PNGs and latents are float32 safetensors, so what is read back is bit for bit what was made.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LATENTS = "latents.safetensors"


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


def save_artifacts(folder: Path, artifacts: list[Artifact]) -> None:
    """Write all of a trial's artifacts; each file appears whole or not at all."""
    from PIL import Image
    from safetensors.numpy import save

    folder.mkdir(parents=True, exist_ok=True)
    for artifact in artifacts:
        path = image_path(folder, artifact.prompt_id, artifact.seed)
        partial = path.with_suffix(".png.partial")
        Image.fromarray(artifact.image).save(partial, format="PNG", compress_level=1)
        os.replace(partial, path)
    tensors = {stem(a.prompt_id, a.seed): a.latents for a in artifacts if a.latents is not None}
    partial = folder / (LATENTS + ".partial")
    partial.write_bytes(save(tensors))
    os.replace(partial, folder / LATENTS)


def read_artifact(folder: Path, prompt_id: str, seed: int) -> Artifact | None:
    """One artifact; None if its image is not there. `latents` is None where only the image is.

    Raises OSError or ValueError if a file is there and cannot be read.
    """
    import numpy as np
    from PIL import Image
    from safetensors import SafetensorError, safe_open

    path = image_path(folder, prompt_id, seed)
    if not path.is_file():
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
