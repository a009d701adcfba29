"""Whether a tokenizer's folder is whole: its words, and the template that prompts are put into; it imports no library.

Transformers goes without a file that is not there, and takes for a template whatever text lies in its place.
"""

from __future__ import annotations

from pathlib import Path

from zbench.zimage.layout import CONFIG_FILE, WeightsError, read_json, tokenizer_files
from zbench.zimage.on_disk import absent, foreign, some

WORDS = (("tokenizer.json",), ("vocab.json", "merges.txt"))
"""Files that hold a tokenizer's words; one of these sets is enough."""

TEMPLATES = ("chat_template.jinja", "chat_template.json")
"""Files that a template may lie in, if the config has none."""

KEY = "chat_template"


def check_tokenizer(folder: Path) -> None:
    """Raise `WeightsError` naming what a tokenizer's folder lacks, or a file in it that is something else."""
    for path in sorted(folder.glob("*")):
        if path.is_symlink() and not path.exists():
            raise WeightsError(f"{path}: {absent(path)}")
    there = tokenizer_files(folder)
    for name, path in there.items():
        try:
            kind = foreign(path)
        except OSError as error:
            raise WeightsError(f"{path}: cannot be read: {error.strerror}") from error
        if kind is not None:
            raise WeightsError(f"{path}: no part of a tokenizer: {kind}")
        if name in ("tokenizer.json", "vocab.json") and not _is_closed(path):
            raise WeightsError(f"{path}: not whole: it begins or ends as no JSON object does")
    if not any(all(name in there for name in names) for names in WORDS):
        raise WeightsError(f"{folder / WORDS[0][0]}: missing file; there is {some(sorted(there)) or 'nothing'}")
    if read_json(folder / CONFIG_FILE["tokenizer"]).get(KEY) is None and not any(name in there for name in TEMPLATES):
        raise WeightsError(f"{folder / TEMPLATES[0]}: missing file, and {CONFIG_FILE['tokenizer']} has no {KEY} either")


def _is_closed(path: Path) -> bool:
    """Whether a file's first and last characters are an object's; its megabytes are parsed by whoever loads it."""
    text = path.read_bytes().strip()
    return text.startswith(b"{") and text.endswith(b"}")
