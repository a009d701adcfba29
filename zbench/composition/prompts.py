"""What a workload paints: its `prompts`, or in their place `workload.prompt` or the lines of `workload.prompts_file`.

A trial holds the prompts themselves, so it is named by what they say and not by where they lay.
"""

import csv
import io
import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from zbench.composition.grammar import Key
from zbench.composition.texts import read_text
from zbench.config import Prompt, WorkloadConfig
from zbench.config.pipeline import OWN_OF_PROMPTS, check_prompt
from zbench.config.ranges import check_numbers, shortened
from zbench.errors import ConfigError, OverrideError

SOURCES = ("prompt", "prompts_file", "prompts")
"""Keys of a workload of which one says what is painted."""

FIELDS = ("id", "prompt", "text", "negative_prompt", "scene", "language", *OWN_OF_PROMPTS)
"""What a line of a jsonl file and a column of a csv file may be; `text` is another name of `prompt`."""


def with_prompts(workload: WorkloadConfig, typed: Collection[Key]) -> WorkloadConfig:
    """`workload` with all that it names in `prompts`. Of two sources, the one among the `typed` keys counts.

    Raises ConfigError where two are left, or for a file that is none; OverrideError for one that cannot be read.
    """
    asked = {key[1] for key in typed if key[0] == "workload" and len(key) > 1} & set(SOURCES)
    named = [name for name in SOURCES if getattr(workload, name) and (not asked or name in asked)]
    if len(named) > 1:
        raise ConfigError(f"workload.{named[0]}", _shown(workload, named[0]), f"beside workload.{named[1]}; give one")
    prompts = workload.prompts
    if "prompt" in named and workload.prompt is not None:
        prompts = [Prompt(id="p0", text=workload.prompt)]
    elif "prompts_file" in named and workload.prompts_file is not None:
        prompts = read_prompts(Path(os.path.expanduser(workload.prompts_file)))
    elif workload.prompt is not None and "prompt" in asked:
        raise ConfigError("workload.prompt", "''", "is empty; say what to paint")
    elif workload.prompts_file is not None and "prompts_file" in asked:
        raise ConfigError("workload.prompts_file", "''", "needs a txt, jsonl or csv file")
    negative = workload.negative_prompt
    if negative:
        prompts = [replace(prompt, negative_prompt=prompt.negative_prompt or negative) for prompt in prompts]
    is_own = not set(named) & asked & {"prompt", "prompts_file"} or ("workload", "name") in typed
    name = workload.name if is_own else named[0]  # no longer what the choice is called after
    return replace(workload, name=name, prompts=prompts, prompt=None, prompts_file=None, negative_prompt="")


def _shown(workload: WorkloadConfig, source: str) -> str:
    return "[…]" if source == "prompts" else str(getattr(workload, source))


@dataclass(frozen=True)
class _Line:
    """One prompt as a file has it: where, and its fields."""

    place: str
    fields: Mapping[str, Any]


def read_prompts(path: Path, key: str = "workload.prompts_file") -> list[Prompt]:
    """The prompts of the file that `key` names: txt has one a line, jsonl an object, csv a header and a row each.

    A prompt without an id is called after its place: `p0`, `p1` and so on. Raises OverrideError as `read_text` does,
    ConfigError that names file and line.
    """
    read = READERS.get(path.suffix.lower())
    if read is None:
        known = ", ".join(READERS)
        raise ConfigError(key, path, f"its name must end in one of {known}")
    try:
        text = read_text(path)
    except OverrideError as error:
        raise OverrideError(f"{key}={error}") from error
    lines = list(read(path, text))
    if not lines:
        raise ConfigError(key, path, "holds no prompt")
    prompts = [_prompt(line) for line in lines]
    taken = {prompt.id for prompt in prompts if prompt.id}
    places: dict[str, str] = {}
    for index, (line, prompt) in enumerate(zip(lines, prompts, strict=True)):
        if prompt.id:
            if prompt.id in places:
                raise OverrideError(f"{line.place}: id {prompt.id} is that of {places[prompt.id]} too; give it another")
        else:
            prompt.id = _free(f"p{index}", taken)
            taken.add(prompt.id)
        places[prompt.id] = line.place
    return prompts


def _free(wanted: str, taken: Collection[str]) -> str:
    """A name that no other prompt has."""
    while wanted in taken:
        wanted += "_"
    return wanted


def _prompt(line: _Line) -> Prompt:
    """Raises ConfigError that names file and line."""
    _hold_fields(line.place, line.fields)
    own = {name: _whole(line.place, name, line.fields[name]) for name in OWN_OF_PROMPTS if name in line.fields}
    for name, value in line.fields.items():
        if name not in own and not isinstance(value, str | None) and not (name == "id" and type(value) is int):
            raise OverrideError(f"{line.place}: {name} is no text but {json.dumps(value)[:40]}; put it in quotes")
    said = {name: str(value) for name, value in line.fields.items() if value is not None}
    if "prompt" in said and "text" in said:
        raise OverrideError(f"{line.place}: has both prompt and text, which are the same; give one")
    text = said.get("prompt", said.get("text", ""))
    if not text.strip():
        raise OverrideError(f"{line.place}: prompt is empty or not there; say what to paint")
    made = Prompt(
        id=said.get("id", ""),
        text=text,
        language=said.get("language") or Prompt.language,
        scene=said.get("scene") or None,
        negative_prompt=said.get("negative_prompt", ""),
        **own,
    )
    try:
        check_prompt(replace(made, id=made.id or "p0"), "")
        check_numbers(made, "")
    except ConfigError as error:
        raise OverrideError(f"{line.place}: {error}") from error
    return made


def _whole(place: str, name: str, value: object) -> int | None:
    """A number of a jsonl file, or the cell of a csv file; None for one that is empty. Raises OverrideError."""
    if value is None or type(value) is int:
        return value
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit() and len(value) < 10:
        return int(value)
    raise OverrideError(f"{place}: {name} is no whole number but {json.dumps(value)[:40]}")


def _hold_fields(place: str, names: Iterable[str]) -> None:
    for name in names:
        if name not in FIELDS:
            raise OverrideError(f"{place}: no field {shortened(name)}; a prompt has {', '.join(FIELDS)}")


def _txt(path: Path, text: str) -> Iterator[_Line]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield _Line(f"{path}, line {number}", {"prompt": line.strip()})


def _jsonl(path: Path, text: str) -> Iterator[_Line]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        try:
            found = json.loads(line, object_pairs_hook=_once)
        except (ValueError, RecursionError) as error:
            raise OverrideError(f"{place}: no JSON object ({error}); write one a line") from error
        if not isinstance(found, dict):
            raise OverrideError(f'{place}: no JSON object; write {{"prompt": "…"}}')
        yield _Line(place, found)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("a field stands there twice")
    return made


def _csv(path: Path, text: str) -> Iterator[_Line]:
    (_, first), *rows = _rows(path, text) or [(1, [])]
    header = [name.strip() for name in first]
    if not {"prompt", "text"} & set(header):
        problem = "the first line must name the columns, separated by commas, prompt among them"
        raise OverrideError(f"{path}, line 1: {shortened(', '.join(header))}: {problem}")
    if len(set(header)) < len(header):
        raise OverrideError(f"{path}, line 1: {shortened(', '.join(header))}: names a column twice")
    _hold_fields(f"{path}, line 1", header)
    for number, row in rows:
        place = f"{path}, line {number}"
        if not any(cell.strip() for cell in row):
            continue
        if len(row) != len(header):
            problem = f"{len(row)} cells, and the first line names {len(header)}; quote a cell that holds a comma"
            raise OverrideError(f"{place}: {problem}")
        yield _Line(place, {name: cell or None for name, cell in zip(header, row, strict=True)})


def _rows(path: Path, text: str) -> list[tuple[int, list[str]]]:
    """Each row with the number of its last line. A prompt may be as long as its file; the limit is the process's."""
    before = csv.field_size_limit()
    csv.field_size_limit(max(before, len(text)))
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        return [(rows.line_num, row) for row in rows]
    except csv.Error as error:
        raise OverrideError(f"{path}, line {rows.line_num}: cannot be read as csv ({error})") from error
    finally:
        csv.field_size_limit(before)


READERS: dict[str, Callable[[Path, str], Iterator[_Line]]] = {".txt": _txt, ".jsonl": _jsonl, ".csv": _csv}
"""A file's suffix to what reads it."""
