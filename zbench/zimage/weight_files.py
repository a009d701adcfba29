"""Which files hold a component's weights; a folder without the official names is taken where it leaves no choice."""

from __future__ import annotations

import re
from pathlib import Path

from zbench.zimage.layout import CONFIG_FILE, WEIGHTS_FILE, Checkpoint, WeightsError, component_folder, read_json
from zbench.zimage.on_disk import PICKLES, absent, some
from zbench.zimage.stored import GGUF_SUFFIX

SHARD = re.compile(r"-\d+-of-\d+\.safetensors$")


def weight_files(checkpoint: Checkpoint, component: str) -> list[Path]:
    """Files of a component's weights: one, or the shards that its index lists.

    The single file that is given for the transformer comes first. In a folder that is the official name, whole or in
    shards, with `checkpoint.variant` in it if the component has that one. Where only one variant, one GGUF file (of
    the transformer) or one safetensors file of another name is there, it is taken.

    Raises `WeightsError` naming the file that is missing or may not be there, and what is there instead.
    """
    if component == "transformer" and checkpoint.transformer is not None:
        return [checkpoint.transformer]
    folder, index = component_folder(checkpoint, component), index_file(checkpoint, component)
    variant = _variant_of(checkpoint, component)
    whole = folder / official_name(component, variant)
    if whole.is_file():
        if index is not None:
            raise WeightsError(f"{index}: lists shards, but {whole.name} is there too; keep one of them")
        return [whole]
    return _shards(index) if index is not None else [_only_one(folder, component)]


def index_file(checkpoint: Checkpoint, component: str) -> Path | None:
    """The index that lists a component's shards; None where its weights are in one file."""
    if component == "transformer" and checkpoint.transformer is not None:
        return None
    folder = component_folder(checkpoint, component)
    index = folder / _index_named(component, _variant_of(checkpoint, component))
    return index if index.is_file() else None


def variants(checkpoint: Checkpoint, component: str) -> list[str]:
    """Names of the variants that a component's folder has, such as `fp16`."""
    stem = WEIGHTS_FILE[component].removesuffix(".safetensors")
    whole = re.compile(rf"{stem}\.(\w+)\.safetensors")
    index = re.compile(rf"{stem}\.safetensors\.index\.(\w+)\.json")
    names = [path.name for path in component_folder(checkpoint, component).glob(f"{stem}.*")]
    found = [match[1] for name in names if (match := whole.fullmatch(name) or index.fullmatch(name))]
    return sorted(set(found))


def loaded_variant(checkpoint: Checkpoint, component: str) -> str | None:
    """The variant whose files `weight_files` names; None: they bear no variant."""
    return None if component == "transformer" and checkpoint.transformer else _variant_of(checkpoint, component)


def check_variant(checkpoint: Checkpoint) -> None:
    """Raise `WeightsError` where a variant is asked for that no component has."""
    wanted = checkpoint.variant
    there = sorted({name for component in WEIGHTS_FILE for name in variants(checkpoint, component)})
    if wanted is not None and wanted not in there:
        raise WeightsError(f"{checkpoint.folder}: no variant {wanted!r}; there are: {', '.join(there) or 'none'}")


def _variant_of(checkpoint: Checkpoint, component: str) -> str | None:
    there = variants(checkpoint, component)
    if checkpoint.variant in there:
        return checkpoint.variant
    folder = component_folder(checkpoint, component)
    plain = (folder / WEIGHTS_FILE[component], folder / _index_named(component, None))
    if any(path.is_file() for path in plain) or not there:
        return None
    if len(there) > 1:
        raise WeightsError(
            f"{plain[0]}: missing file; there are the variants {', '.join(there)}: "
            f"choose one with pipeline.variant={there[0]}"
        )
    return there[0]


def official_name(component: str, variant: str | None) -> str:
    """Of the one file of a component's weights, in a variant or in none."""
    name = WEIGHTS_FILE[component]
    return name if variant is None else name.replace(".safetensors", f".{variant}.safetensors")


def _index_named(component: str, variant: str | None) -> str:
    return f"{WEIGHTS_FILE[component]}.index{'' if variant is None else f'.{variant}'}.json"


def _shards(index: Path) -> list[Path]:
    shard_of = read_json(index).get("weight_map")
    if not isinstance(shard_of, dict) or not shard_of:
        raise WeightsError(f"{index}: key 'weight_map' is missing or empty")
    names = sorted({str(name) for name in shard_of.values()})
    for name in names:
        if Path(name).name != name or Path(name).suffix != ".safetensors":
            raise WeightsError(f"{index}: lists {name!r}, which is no safetensors file beside it")
    shards = [index.parent / name for name in names]
    for shard in shards:
        if not shard.is_file():
            raise WeightsError(f"{shard}: {absent(shard)}, although {index.name} lists it")
    return shards


def _only_one(folder: Path, component: str) -> Path:
    """The one file that can be meant where none bears an official name."""
    expected = folder / WEIGHTS_FILE[component]
    suffixes = {".safetensors", GGUF_SUFFIX} if component == "transformer" else {".safetensors"}
    there = sorted(path for path in folder.glob("*") if path.name != CONFIG_FILE[component])
    whole = [path for path in there if path.suffix in suffixes and path.is_file()]
    shards = [path.name for path in whole if SHARD.search(path.name)]
    if shards:
        raise WeightsError(f"{expected}: {absent(expected)}; {some(shards)} are shards without their index")
    if len(whole) == 1 and not expected.is_symlink():
        return whole[0]
    names = [path.name for path in there]
    stands_there = expected.is_symlink() or expected.exists()
    hint = f"; there is {some(names)}" if names and not stands_there else ""
    if len(whole) > 1:
        hint = f"; there are {some([path.name for path in whole])}: keep one of them, or all shards with their index"
    elif any(path.suffix in PICKLES for path in there):
        hint += "; zbench reads safetensors alone, for a pickle can run code"
    elif any(path.suffix == GGUF_SUFFIX for path in there):
        hint += "; GGUF is read for the transformer alone"
    raise WeightsError(f"{expected}: {absent(expected)}{hint}")
