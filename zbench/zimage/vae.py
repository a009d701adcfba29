"""Whether a folder's `AutoencoderKL` can take the place of a pipeline's own; it reads configs alone, without torch."""

from __future__ import annotations

from pathlib import Path

from zbench.zimage.geometry import Geometry, VaeGeometry
from zbench.zimage.layout import CONFIG_FILE, WeightsError, read_json, weight_files


def check_vae(vae: Path, pipeline: Path) -> None:
    """Raise `WeightsError` unless `vae` holds an `AutoencoderKL` with weights that fits the folder `pipeline`.

    It fits if it has the transformer's latent channels and makes as many pixels of a latent one as the pipeline's own.
    """
    if not vae.is_dir():
        raise WeightsError(f"{vae}: no such folder")
    path = vae / CONFIG_FILE["vae"]
    found = read_json(path).get("_class_name")
    if found != "AutoencoderKL":
        raise WeightsError(f"{path}: _class_name is {found!r}, not 'AutoencoderKL'")
    weight_files(pipeline, "vae", vae)
    try:
        theirs, own = VaeGeometry.from_folder(vae), Geometry.from_folder(pipeline)
    except (OSError, ValueError) as error:
        raise WeightsError(str(error)) from error
    if theirs.latent_channels != own.transformer.in_channels:
        channels = f"latent_channels={theirs.latent_channels}, the transformer has {own.transformer.in_channels}"
        raise WeightsError(f"{path}: does not fit: {channels}")
    if theirs.scale_factor != own.vae.scale_factor:
        scale = f"{theirs.scale_factor} pixels a side of a latent pixel, the pipeline's own has {own.vae.scale_factor}"
        raise WeightsError(f"{path}: does not fit: {scale}")
