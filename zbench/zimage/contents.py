"""All files that a pipeline is made from, and whether they are all there; it opens no tensor."""

from __future__ import annotations

from pathlib import Path

from zbench.zimage.configs import check_configs
from zbench.zimage.layout import (
    COMPONENTS,
    CONFIG_FILE,
    WEIGHTS_FILE,
    Checkpoint,
    check_model_index,
    config_file,
    read_json,
    tokenizer_files,
    tokenizer_folder,
)
from zbench.zimage.tokenizer import check_tokenizer
from zbench.zimage.vae import check_vae
from zbench.zimage.weight_files import check_variant, index_file, weight_files


def weights_of(checkpoint: Checkpoint) -> dict[str, list[Path]]:
    """Component to the weight files that are loaded; none of a component whose weights are random.

    Raises `WeightsError` where one is missing.
    """
    return {component: weight_files(checkpoint, component) for component in checkpoint.read_components}


def configs_of(checkpoint: Checkpoint) -> dict[str, Path]:
    """Every file beside the weights that decides what a pipeline makes, by its name in the official layout.

    Those that are not there are left out; `check_complete` names them.
    """
    folder = checkpoint.folder
    files = {"model_index.json": folder / "model_index.json"}
    for component in ("scheduler", *WEIGHTS_FILE):
        files[f"{component}/{CONFIG_FILE[component]}"] = config_file(checkpoint, component)
    for component in checkpoint.read_components:
        index = index_file(checkpoint, component)
        if index is not None:
            files[f"{component}/{index.name}"] = index
    files |= {f"tokenizer/{name}": path for name, path in tokenizer_files(tokenizer_folder(folder)).items()}
    return {name: path for name, path in files.items() if path.is_file()}


def check_complete(checkpoint: Checkpoint) -> None:
    """Raise `WeightsError` naming the first file that a loadable pipeline lacks, or a config that may not be used.

    Where another VAE takes the place of the folder's own, that one's config must be there all the same, its weights
    need not.
    """
    check_model_index(checkpoint.folder)
    for component in COMPONENTS:
        read_json(checkpoint.folder / component / CONFIG_FILE[component])
    check_tokenizer(tokenizer_folder(checkpoint.folder))
    check_vae(checkpoint)
    check_configs(checkpoint)
    check_variant(checkpoint)
    weights_of(checkpoint)
