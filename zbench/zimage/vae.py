"""Whether a folder's `AutoencoderKL` can take the place of a pipeline's own; it reads configs alone, without torch."""

from __future__ import annotations

from zbench.zimage.geometry import Geometry, VaeGeometry
from zbench.zimage.layout import CONFIG_FILE, Checkpoint, WeightsError, read_json
from zbench.zimage.on_disk import not_a_folder
from zbench.zimage.weight_files import weight_files

VAE_TAKEN = "pipeline.vae takes a folder with a config.json and its weights"


def check_vae(checkpoint: Checkpoint) -> None:
    """Raise `WeightsError` unless the VAE in place of the folder's own is an `AutoencoderKL` with weights that fits.

    It fits if it has the transformer's latent channels and makes as many pixels of a latent one as the pipeline's own.
    """
    vae = checkpoint.vae
    if vae is None:
        return
    if not vae.is_dir():
        raise WeightsError(f"{vae}: {not_a_folder(vae, VAE_TAKEN)}")
    if (vae / "vae" / CONFIG_FILE["vae"]).is_file():
        raise WeightsError(f"{vae}: a whole pipeline's folder; its VAE is {vae / 'vae'}")
    path = vae / CONFIG_FILE["vae"]
    found = read_json(path).get("_class_name")
    if found != "AutoencoderKL":
        raise WeightsError(f"{path}: _class_name is {found!r}, not 'AutoencoderKL'")
    weight_files(checkpoint, "vae")
    try:
        theirs, own = VaeGeometry.from_folder(vae), Geometry.from_folder(checkpoint.folder)
    except (OSError, ValueError) as error:
        raise WeightsError(str(error)) from error
    if theirs.latent_channels != own.transformer.in_channels:
        channels = f"latent_channels={theirs.latent_channels}, the transformer has {own.transformer.in_channels}"
        raise WeightsError(f"{path}: does not fit: {channels}")
    if theirs.scale_factor != own.vae.scale_factor:
        scale = f"{theirs.scale_factor} pixels a side of a latent pixel, the pipeline's own has {own.vae.scale_factor}"
        raise WeightsError(f"{path}: does not fit: {scale}")
