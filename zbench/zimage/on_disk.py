"""What a path holds, in words: so that a refusal names what is there and not what is missing. It opens no tensor."""

from __future__ import annotations

import json
from pathlib import Path

PICKLES = (".ckpt", ".pt", ".pth", ".bin", ".pkl")
A_PICKLE = "a pickle; zbench reads none, for it can run code"

MARKS = (
    (b"version https://git-lfs", "a git-LFS pointer and not the file itself; fetch it with `git lfs pull`"),
    (b"GGUF", "a GGUF file"),
    (b"PK\x03\x04", "a zip archive, as torch.save writes pickles; zbench reads no pickle, for it can run code"),
    (b"\x80\x02", A_PICKLE),
    (b"\x80\x04", A_PICKLE),
    (b"<!doctype html", "a web page and not the file itself; fetch it again"),
    (b"<html", "a web page and not the file itself; fetch it again"),
    (b"\x1f\x8b", "a gzip archive; unpack it"),
)
"""How files begin that lie where weights or configs should."""

KINDS = {
    **dict.fromkeys(PICKLES, A_PICKLE),
    ".onnx": "an ONNX graph",
    **dict.fromkeys((".engine", ".plan", ".trt"), "a TensorRT engine"),
    ".sft": "safetensors under another name; name it .safetensors",
    **dict.fromkeys((".zip", ".tar", ".gz", ".tgz", ".7z", ".rar"), "an archive; unpack it"),
    **dict.fromkeys((".msgpack", ".h5"), "weights of another framework"),
}
"""What files are by their suffix."""

FILE_SUFFIXES = (".safetensors", ".gguf")
"""Of one file with a transformer's weights."""

TAKEN = "zbench takes a pipeline's folder in the official layout, or a .safetensors or .gguf file with a transformer"

TRANSFORMER = "ZImageTransformer2DModel"

MOST_NAMES = 5
"""Of files or tensors that a message lists."""


def some(names: list[str]) -> str:
    """`a, b and 3 more`."""
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more


def foreign(path: Path) -> str | None:
    """What a file is, if it begins as something known that holds neither safetensors nor JSON; None: nothing known.

    Raises OSError where it cannot be read.
    """
    with path.open("rb") as file:
        begins = file.read(64)
    if not begins:
        return "an empty file"
    return next((words for mark, words in MARKS if begins.lower().startswith(mark.lower())), None)


def names_a_file(path: Path) -> bool:
    """Whether a file with weights is meant, be it there or not; one of another kind is refused as no folder."""
    if path.is_dir():
        return False
    if path.suffix.lower() in FILE_SUFFIXES:
        return True
    try:
        return path.is_file() and foreign(path) == "a GGUF file"
    except OSError:
        return False


def absent(path: Path) -> str:
    """What stands in place of a file that is not there: nothing, a link without a target, a folder, or a pipe."""
    if path.is_symlink() and not path.exists():
        return f"missing file: a link to {path.readlink()}, which is not there"
    if path.is_dir():
        return "a folder, not a file"
    return "a pipe, socket or device, not a file" if path.exists() and not path.is_file() else "missing file"


def no_pipeline(path: Path) -> str | None:
    """One line on why `path` is no pipeline's folder, by what is there; None where it has a `model_index.json`."""
    if not path.is_dir():
        return f"{path}: {not_a_folder(path, TAKEN)}"
    index = path / "model_index.json"
    if index.is_file():
        return None
    try:
        names = sorted(child.name for child in path.iterdir())
    except OSError as error:
        return f"{path}: a folder that cannot be read ({error.strerror})"
    if not names:
        return f"{path}: an empty folder"
    return f"{index}: {absent(index)}{'' if index.is_symlink() else f'; {_instead(path, names)}'}"


def not_a_folder(path: Path, takes: str) -> str:
    """What is in place of a folder; `takes` says what may be given instead of a file."""
    if path.is_symlink() and not path.exists():
        return f"a link to {path.readlink()}, which is not there"
    if path.is_file():
        pipeline = next((str(f) for f in path.parents[:2] if (f / "model_index.json").is_file()), None)
        if path.suffix == ".json" and pipeline is not None:
            return f"a file of the pipeline whose folder is {pipeline}; give that folder"
        known = "a safetensors file" if path.suffix == ".safetensors" else None
        kind = KINDS.get(path.suffix.lower()) or foreign(path) or known or "a file of an unknown kind"
        return f"{kind}; {takes}"
    text = str(path)
    if "\\" in text or text[1:2] == ":":
        drive = f"/mnt/{text[0].lower()}/{text[2:].replace(chr(92), '/').lstrip('/')}" if text[1:2] == ":" else None
        return f"a Windows path; write it as this system does{f', such as {drive}' if drive else ''}"
    return "no such folder or file"


def _instead(path: Path, names: list[str]) -> str:
    """What lies in a folder without a model index, and what could be given in its place."""
    inside = [name for name in names if (path / name / "model_index.json").is_file()]
    snapshots = sorted((path / "snapshots").glob("*/model_index.json"))
    if inside or snapshots:
        found = [str(path / name) for name in inside] or [str(snapshot.parent) for snapshot in snapshots]
        return f"the folder below it is a pipeline's: {some(found)}"
    if (path.parent / "model_index.json").is_file():
        return f"it is a part of a pipeline, whose folder is {path.parent}"
    files = [name for name in names if Path(name).suffix in FILE_SUFFIXES]
    if "config.json" in names:
        kind = _class_in(path / "config.json")
        file = f"; give its file: {path / files[0]}" if kind == TRANSFORMER and len(files) == 1 else ""
        return f"the folder holds one {kind} and no pipeline{file}"
    if files:
        return f"the folder holds {some(files)}; give such a file itself: {path / files[0]}"
    return f"the folder holds {some(names)}; {TAKEN}"


def _class_in(config: Path) -> str:
    try:
        values = json.loads(config.read_text(encoding="utf-8"))
        return str(values.get("_class_name") or values["architectures"][0])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        return "component"
