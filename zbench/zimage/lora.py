"""Whether a LoRA file fits Z-Image's transformer, tensor by tensor; it reads the header alone and imports no torch.

Diffusers leaves out what it does not know, with a warning at most. Here a tensor that would not be used is an error
that names it. These are the names that diffusers 0.42 loads:

| kind | names of a layer's tensors |
|---|---|
| diffusers, PEFT | `transformer.layers.0.attention.to_q.lora_A.weight` and `.lora_B.weight` |
| ComfyUI | `diffusion_model.layers.0.attention.to_q.lora_A.weight` or `.lora_down.weight`, with `.alpha` or without |
| kohya | `lora_unet_layers_0_attention_to_q.lora_down.weight`, also of a fused `attention_qkv` |
| LyCORIS | `diffusion_model.layers.0.attention.to_q.lokr_w1`, `.lokr_w2_a` and the like |
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

from safetensors import SafetensorError, safe_open

from zbench.zimage.geometry import TransformerGeometry
from zbench.zimage.layout import WeightsError, one_line
from zbench.zimage.on_disk import absent, foreign

Shape = tuple[int, ...]

PEFT = ("lora_A.weight", "lora_B.weight")
KOHYA = ("lora_down.weight", "lora_up.weight")
OLD = ("lora.down.weight", "lora.up.weight")
LOKR = ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b")
ALPHA = "alpha"

PREFIXES = {
    "transformer.": (PEFT, OLD, LOKR),
    "diffusion_model.": (PEFT, KOHYA, OLD, LOKR, (ALPHA,)),
    "lora_unet_": (KOHYA, (ALPHA,)),
}
"""How names begin, and the sets of parts that a layer's change may then be made of."""

T_FREQUENCIES, T_EMBEDDER_DIM = 256, 1024
"""Of the timestep's embedding: inputs and hidden width, which no config sets (diffusers `transformer_z_image`)."""

_OF_OTHERS = (
    (r"^lora_te\d?_|text_encoder", "it changes the text encoder; diffusers loads LoRAs of the transformer alone"),
    (r"dora_scale$|lora_magnitude_vector", "it is a DoRA's, which diffusers leaves out"),
    (r"\.hada_", "it is a LoHa's; zbench loads LoRA and LoKr"),
    (r"double_blocks|single_blocks|single_transformer_blocks", "it is a LoRA of Flux or the like"),
    (r"unet\.|down_blocks|up_blocks|mid_block|input_blocks|output_blocks", "it is a LoRA of Stable Diffusion"),
    (r"transformer_blocks|joint_blocks|(^|[._])blocks[._]\d", "it is a LoRA of another transformer than Z-Image's"),
    (r"^base_model\.model\.", "it is of PEFT's own files; save it with diffusers' save_lora_weights"),
)
"""What a name says of a file that someone took for a LoRA of Z-Image; the first that fits is said."""

METADATA = "lora_adapter_metadata"
"""What diffusers writes into a file's header: PEFT's settings as JSON, the alpha among them."""

MOST_SHOWN = 160
"""Characters of a name that a message shows."""

_OF_SOME_LORA = re.compile(r"lora|lokr|loha|hada_|dora_scale|oft_|\.diff(_b)?$")


def find_lora(place: Path) -> Path:
    """The safetensors file that `place` is, or that is alone in the folder `place`.

    Raises `WeightsError` that says what is there in its stead.
    """
    if place.is_dir():
        names = sorted(path.name for path in place.iterdir() if path.is_file())
        found = [name for name in names if name.endswith(".safetensors")]
        if len(found) == 1:
            return place / found[0]
        if found:
            raise WeightsError(f"{place}: holds {_listed(found)}; name the one file that is meant")
        raise WeightsError(f"{place}: holds no safetensors file, {_listed(names) if names else 'nothing'} is there")
    if not place.exists() and not place.is_symlink():
        raise WeightsError(f"{place}: no such file or folder; zbench fetches no LoRA: download it and name its file")
    if not place.is_file():  # a pipe would be waited for
        raise WeightsError(f"{place}: {absent(place)}")
    if place.suffix != ".safetensors":
        raise WeightsError(f"{place}: not a .safetensors file; zbench reads no other kind of LoRA")
    if (kind := foreign(place)) is not None:
        raise WeightsError(f"{place}: not a whole safetensors file: {kind}")
    return place


def check_lora(path: Path, transformer: TransformerGeometry) -> frozenset[str]:
    """Names of the linear layers that the LoRA in `path` changes, as in diffusers' `ZImageTransformer2DModel`.

    Raises `WeightsError` naming the first tensor that fits no layer, has another shape than its layer needs, or lacks
    the others of its layer.
    """
    shapes = _shapes(path)
    if not any(_OF_SOME_LORA.search(name) for name in shapes):
        such = f", its tensors are such as {_shown(min(shapes))}" if shapes else ""
        raise WeightsError(f"{path}: holds no LoRA{such}; whole weights belong into pipeline.weights")
    known = _known_names(path, shapes, transformer)
    changes: dict[_Target, dict[str, Shape]] = {}
    unknown = [name for name in shapes if name not in known]
    if unknown:
        more = f"; so do {len(unknown) - 1} more of its {len(shapes)} tensors" if len(unknown) > 1 else ""
        raise WeightsError(f"{path}: {_why_unknown(unknown[0], known)}{more}")
    for name, shape in shapes.items():
        target, part = known[name]
        changes.setdefault(target, {})[part] = shape
    _refuse_mixed(path, changes)
    for target, parts in changes.items():
        if (problem := target.problem(parts)) is not None:
            raise WeightsError(f"{path}: {target.name}: {problem}")
    return frozenset(layer for target in changes for layer in target.layers)


def linear_layers(transformer: TransformerGeometry) -> dict[str, tuple[int, int]]:
    """Every linear layer of diffusers' `ZImageTransformer2DModel` by its name, and its (outputs, inputs)."""
    dim, ffn, adaln = transformer.dim, transformer.ffn_dim, transformer.adaln_dim
    patch = f"{transformer.patch_size}-1"
    block = {f"attention.{name}": (dim, dim) for name in ("to_q", "to_k", "to_v", "to_out.0")}
    block |= {"feed_forward.w1": (ffn, dim), "feed_forward.w2": (dim, ffn), "feed_forward.w3": (ffn, dim)}
    modulated = block | {"adaLN_modulation.0": (4 * dim, adaln)}
    layers = {
        f"all_x_embedder.{patch}": (dim, transformer.patch_dim),
        f"all_final_layer.{patch}.linear": (transformer.patch_dim, dim),
        f"all_final_layer.{patch}.adaLN_modulation.1": (dim, adaln),
        "cap_embedder.1": (dim, transformer.cap_feat_dim),
        "t_embedder.mlp.0": (T_EMBEDDER_DIM, T_FREQUENCIES),
        "t_embedder.mlp.2": (adaln, T_EMBEDDER_DIM),
    }
    for stack, number, each in (
        ("layers", transformer.n_layers, modulated),
        ("noise_refiner", transformer.n_refiner_layers, modulated),
        ("context_refiner", transformer.n_refiner_layers, block),
    ):
        layers |= {f"{stack}.{i}.{name}": shape for i in range(number) for name, shape in each.items()}
    return layers


@dataclass(frozen=True)
class _Target:
    """What tensors of one name change: a layer, or the three of a fused one."""

    name: str  # in the file, without its prefix and its part
    layers: tuple[str, ...]
    outputs: int
    inputs: int

    def problem(self, parts: Mapping[str, Shape]) -> str | None:
        """Why parts of these shapes are no whole change of it, or None."""
        if prod(parts.get(ALPHA, ())) != 1:
            return f"{ALPHA} is {_shape(parts[ALPHA])}, not one number"
        down, up = next((pair for pair in (PEFT, OLD, KOHYA) if parts.keys() & set(pair)), (None, None))
        if down is None or up is None:
            return self._problem_of_lokr(parts)
        for part in (down, up):
            if part not in parts:
                return f"{part} is missing"
        rank = parts[down][0] if parts[down] else 0
        if parts[up][:1] == (self.outputs,) and parts[down][1:] == (self.inputs,) and parts[up][1:] != (rank,):
            return f"{down} is {_shape(parts[down])} and {up} is {_shape(parts[up])}, which are of two ranks"
        for part, wanted in ((down, (rank, self.inputs)), (up, (self.outputs, rank))):
            if parts[part] != wanted or not rank:
                return self._other_size(f"{part} is {_shape(parts[part])}", wanted)
        return None

    def _problem_of_lokr(self, parts: Mapping[str, Shape]) -> str | None:
        """Its change is the Kronecker product of two matrices, each whole or the product of two."""
        factors: list[Shape] = []
        for factor in ("lokr_w1", "lokr_w2"):
            names = [name for name in (factor, f"{factor}_a", f"{factor}_b") if name in parts]
            whole = _product([parts[name] for name in names])
            if names not in ([factor], [f"{factor}_a", f"{factor}_b"]) or whole is None:
                there = [f"{part} {_shape(shape)}" for part, shape in parts.items()]
                return f"{_listed(there)} {'is' if len(there) == 1 else 'are'} no whole change of a layer"
            factors.append(whole)
        (a, b), (c, d) = factors
        wanted = (self.outputs, self.inputs)
        return None if (a * c, b * d) == wanted else self._other_size(f"it changes {_shape((a * c, b * d))}", wanted)

    def _other_size(self, said: str, wanted: Shape) -> str:
        return f"{said}, the transformer needs {_shape(wanted)}: it is a LoRA of a model of another size"


def _known_names(
    path: Path, shapes: Mapping[str, Shape], geometry: TransformerGeometry
) -> dict[str, tuple[_Target, str]]:
    """Every name that diffusers can use in a file like this, and which part of what it is."""
    found = [prefix for prefix in PREFIXES if any(name.startswith(prefix) for name in shapes)]
    if len(found) > 1:
        raise WeightsError(
            f"{path}: its names begin with {_listed(found)}; diffusers loads one kind of names at a time"
        )
    bare = not found and any(name.endswith(f".{ALPHA}") for name in shapes)  # by which diffusers knows them
    prefix = "diffusion_model." if bare else (found or ["transformer."])[0]
    layers = linear_layers(geometry)
    return {
        f"{'' if bare else prefix}{target.name}.{part}": (target, part)
        for sets in PREFIXES[prefix]
        for part in sets
        for target in _targets(prefix, sets, layers)
    }


def _targets(prefix: str, sets: tuple[str, ...], layers: Mapping[str, tuple[int, int]]) -> Iterator[_Target]:
    """What names with this prefix and these parts may stand for."""
    kohya = prefix == "lora_unet_"
    by_comfy = prefix == "diffusion_model." and sets in (KOHYA, (ALPHA,))
    for layer, (outputs, inputs) in layers.items():
        yield _Target(_spelled(layer, kohya), (layer,), outputs, inputs)
        if layer.endswith(".attention.to_out.0") and (kohya or by_comfy):
            attention = layer.removesuffix(".to_out.0")
            yield _Target(_spelled(f"{attention}.out", kohya), (layer,), outputs, inputs)
            if kohya:
                three = tuple(f"{attention}.to_{each}" for each in "qkv")
                yield _Target(_spelled(f"{attention}.qkv", kohya), three, 3 * outputs, inputs)


def _product(shapes: list[Shape]) -> Shape | None:
    """Of one matrix or the product of two; None where they are none or do not fit."""
    if not shapes or any(len(shape) != 2 for shape in shapes):
        return None
    first, last = shapes[0], shapes[-1]
    return (first[0], last[1]) if len(shapes) == 1 or first[1] == last[0] else None


def _spelled(name: str, kohya: bool) -> str:
    return name.replace(".", "_") if kohya else name


def _refuse_mixed(path: Path, changes: Mapping[_Target, Mapping[str, Shape]]) -> None:
    """Diffusers takes a whole file for one kind, and a layer's change for one."""
    parts = {part for each in changes.values() for part in each}
    kinds = [kind for kind in (PEFT, OLD, KOHYA, LOKR) if parts & set(kind)]
    if len(kinds) > 1:
        mixed = _listed([kind[0] for kind in kinds])
        raise WeightsError(f"{path}: it mixes {mixed}; diffusers loads one kind of LoRA at a time")
    seen: set[str] = set()
    for layer in (layer for target in changes for layer in target.layers):
        if layer in seen:
            raise WeightsError(f"{path}: {layer} is changed twice, by names of two kinds")
        seen.add(layer)


def _why_unknown(name: str, known: Collection[str]) -> str:
    said = f"{_shown(name)} fits no layer of this Z-Image transformer"
    for pattern, why in _OF_OTHERS:
        if re.search(pattern, name):
            return f"{said}: {why}"
    if _unnumbered(name) in set(map(_unnumbered, known)):
        return f"{said}: it is a LoRA of a model with more layers"
    return f"{said}, so diffusers would leave it out"


def _unnumbered(name: str) -> str:
    return re.sub(r"(layers|refiner)([._])\d+", r"\1\2#", name)


def _shapes(path: Path) -> dict[str, Shape]:
    """Name to shape of every tensor, in the file's order. Raises `WeightsError` for one that is no matrix of floats,
    and for metadata that diffusers could not read or that asks for a DoRA."""
    try:
        with safe_open(path, framework="np") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            metadata = (file.metadata() or {}).get(METADATA, "{}")
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path}: not a whole safetensors file: {one_line(error)}") from error
    for name, tensor in slices.items():
        if not tensor.get_dtype().startswith(("F", "BF")) and not name.endswith(f".{ALPHA}"):
            stored = f"is stored as {tensor.get_dtype()}, a LoRA's matrices are floating-point numbers"
            raise WeightsError(f"{path}: {_shown(name)} {stored}")
    try:
        settings = json.loads(metadata)
    except ValueError as error:
        raise WeightsError(f"{path}: its {METADATA} is not JSON: {one_line(error)}") from error
    if not isinstance(settings, dict):
        raise WeightsError(f"{path}: its {METADATA} is no JSON object")
    if any(key.endswith("use_dora") and value for key, value in settings.items()):
        raise WeightsError(f"{path}: its {METADATA} says that it is a DoRA; zbench loads LoRA and LoKr")
    return {name: tuple(tensor.get_shape()) for name, tensor in slices.items()}


def _shown(name: str) -> str:
    """A name out of a file, which may be anything, as it can stand in one line."""
    plain = name if name.isprintable() else ascii(name)
    return plain if len(plain) <= MOST_SHOWN else f"{plain[:MOST_SHOWN]}…"


def _shape(shape: Shape) -> str:
    return "×".join(map(str, shape)) or "one number"


def _listed(names: list[str], most: int = 4) -> str:
    shown = names if len(names) <= most else [*names[: most - 1], f"{len(names) - most + 1} more"]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
