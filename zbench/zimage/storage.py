"""What is stored for each component of a pipeline, and whether that can be its weights: from headers, without torch.

The parent asks here before a worker starts. What only a built module can tell, `tensors` holds against it afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from zbench.zimage.configs import quantisation
from zbench.zimage.contents import weights_of
from zbench.zimage.geometry import Geometry
from zbench.zimage.layout import Checkpoint, WeightsError, config_file
from zbench.zimage.on_disk import some
from zbench.zimage.scales import Inventory, check_quantised, take_inventory
from zbench.zimage.stored import Header, read_headers, without_prefix
from zbench.zimage.weight_files import SHARD

ANCHOR = "cap_embedder.1.weight"
"""In every Z-Image transformer under this name, diffusers' and the original's: [dim, cap_feat_dim]."""

PARTS = {
    "text_encoder": {"embed_tokens", "layers", "norm"},
    "transformer": {
        *("all_x_embedder", "all_final_layer", "cap_embedder", "cap_pad_token", "context_refiner", "layers"),
        *("noise_refiner", "t_embedder", "x_pad_token", "siglip_embedder", "siglip_refiner", "siglip_pad_token"),
        *("x_embedder", "final_layer"),  # by their original names
    },
    "vae": {"encoder", "decoder", "quant_conv", "post_quant_conv"},
}
"""First words of the names of a component's weights, so that what is none is known without its module."""

OTHER_MODELS = {
    "a text encoder": ("text_encoders", "text_encoder", "cond_stage_model", "conditioner"),
    "a VAE": ("vae", "first_stage_model"),
}
"""First words of the names of what else lies in one file of ComfyUI's."""


def inventory_of(checkpoint: Checkpoint, component: str, files: Sequence[Path]) -> Inventory | None:
    """What is stored for a component; None where a library unpacks it by the config.

    Raises `WeightsError` naming file and tensor of what is neither a weight, nor its scale, nor known to be harmless.
    """
    packed = quantisation(checkpoint, component)
    header = without_prefix(read_headers(files), component)
    if packed is not None and packed.loaded_by == "library":
        return None
    inventory = take_inventory(header, component, None if packed is None else packed.block)
    check_quantised(inventory, None if packed is None else packed.method, files, config_file(checkpoint, component))
    if component == "transformer":
        _check_transformer(checkpoint, inventory.weights, files)
    if not inventory.weights:
        raise WeightsError(f"{files[0]}: it holds no weights of the {component}")
    foreign = sorted(name for name in inventory.weights if name.partition(".")[0] not in PARTS[component])
    if foreign:
        raise WeightsError(f"{inventory.weights[foreign[0]].file}: {_others(foreign) or unasked_for(foreign)}")
    return inventory


def inventories(checkpoint: Checkpoint) -> dict[str, Inventory | None]:
    """`inventory_of` each component whose weights are read."""
    return {c: inventory_of(checkpoint, c, files) for c, files in weights_of(checkpoint).items()}


def _others(names: list[str]) -> str | None:
    """What is said of a file with several models in it; None where `names` do not tell which."""
    firsts = {name.partition(".")[0] for name in names}
    kinds = [kind for kind, words in OTHER_MODELS.items() if firsts & set(words)]
    if not kinds:
        return None
    return (
        f"it holds {' and '.join(kinds)} too ({some(sorted(firsts))}); zbench reads a transformer alone from one file: "
        "keep its tensors, and give another VAE with pipeline.vae=<folder>"
    )


def unasked_for(names: list[str]) -> str:
    """What is said of tensors that no part of a component is made from."""
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return (
        f"tensors that no part of the module asks for: {names[0]}{more}; "
        "what they are for would be left out, so take a file without them"
    )


def stored_dtypes(checkpoint: Checkpoint) -> dict[str, list[str]]:
    """Component to how its weights are stored, such as `["bfloat16", "float8_e4m3fn scaled"]`, sorted.

    Of what a library unpacks, the dtypes of all its tensors. Raises as `inventory_of` does.
    """
    found = {}
    for component, files in weights_of(checkpoint).items():
        inventory = inventory_of(checkpoint, component, files)
        packed = sorted({stored.dtype for stored in read_headers(files).values()}) if inventory is None else []
        found[component] = packed if inventory is None else inventory.dtypes
    return found


def _check_transformer(checkpoint: Checkpoint, weights: Header, files: Sequence[Path]) -> None:
    """Raise `WeightsError` unless `weights` look like a Z-Image transformer of the size that the config says."""
    where = files[0] if len(files) == 1 else files[0].parent
    refiners = [name for name in weights if name.startswith(("noise_refiner.", "context_refiner."))]
    if len(files) == 1 and SHARD.search(files[0].name):
        raise WeightsError(f"{where}: one shard of several; give the pipeline's folder, or a file with all of them")
    if ANCHOR not in weights or not refiners:
        groups = list(dict.fromkeys(name.partition(".")[0] for name in weights))
        missing = f"missing weights: {ANCHOR}" if ANCHOR not in weights else "missing weights of the refiners"
        raise WeightsError(f"{where}: no Z-Image transformer ({missing}); it holds {some(groups) or 'nothing'}")
    try:
        asked = Geometry.from_folder(checkpoint.folder).transformer
    except (OSError, ValueError) as error:
        raise WeightsError(str(error)) from error
    shape = weights[ANCHOR].shape
    if shape != (asked.dim, asked.cap_feat_dim):
        raise WeightsError(f"{where}: {ANCHOR} has shape {shape}, the config asks for {asked.dim, asked.cap_feat_dim}")
    layers = len({name.split(".")[1] for name in weights if name.startswith("layers.")})
    if layers != asked.n_layers:
        raise WeightsError(f"{where}: it has {layers} main blocks, the config asks for {asked.n_layers}")
