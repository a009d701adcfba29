"""Which settings of a trial another tool's words carry, and notes that name every other: none is lost unsaid.

Example: a launch line that has no word for tiles gives the note `SGLang has no counterpart for these, …:
pipeline.vae_tiling=true`. What a tool does not claim is named without anybody having thought of it, so a field that is
new in the config is named too. It knows no tool.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import MISSING as NO_DEFAULT
from dataclasses import Field, dataclass, field, fields
from typing import Any

from omegaconf import MISSING

from zbench.config import Prompt
from zbench.trial import Trial

VRAM_LIMIT = "hardware.vram_limit_gib"
PROMPTS = "workload.prompts"

OWN_NAMES = (
    "pipeline.name",
    "pipeline.preset",
    "pipeline.hub_id",
    "pipeline.download",
    "engine.name",
    "engine.target",
    "engine.loads_weights",
    "engine.base_url",
    "engine.options",
    "workload.name",
    "workload.prompts.id",
    "workload.prompts.language",
    "workload.prompts.scene",
    "hardware.name",
)
"""Settings that name things of zbench's, and decide nothing where there is no zbench."""

LONGEST = 60
"""Characters of a value in a note."""


@dataclass(frozen=True)
class Words:
    """What one tool makes of a trial: the settings that its words carry, and what is said of others."""

    tool: str
    carries: Collection[str]
    """Dotted keys whose every value reaches the tool."""
    plain: Mapping[str, Collection[object]] = field(default_factory=dict)
    """Values that ask for nothing, where they are not the config's own defaults."""
    reasons: Mapping[str, str] = field(default_factory=dict)
    """Why a key, or every key of a group, is not carried: the beginning of a note, its predicate included."""


def settings(trial: Trial) -> dict[str, object]:
    """Every setting by its dotted key, grids apart; of the prompts each field is a tuple with one value a prompt.

    Of hardware that is not here it is the name: the others describe a device.
    """
    found: dict[str, object] = {}
    for group in ("pipeline", "engine", "parallel", "offload", "cache", "compute", "workload"):
        config = getattr(trial, group)
        for item in fields(config):
            key = f"{group}.{item.name}"
            if key == PROMPTS:
                found |= {f"{key}.{f.name}": tuple(getattr(p, f.name) for p in config.prompts) for f in fields(Prompt)}
            elif item.name != "grid":
                found[key] = getattr(config, item.name)
    if trial.hardware is not None:
        found["hardware.name"] = trial.hardware.name
    if trial.vram_limit_gib is not None:
        found[VRAM_LIMIT] = trial.vram_limit_gib
    return found


def notes_of_rest(trial: Trial, words: Words, said: Iterable[str] = ()) -> tuple[str, ...]:
    """A note for all settings that the words do not carry, that ask for something, and that no note of `said` names.

    Those for which there is one reason share a note.
    """
    named = " ".join(said)
    grouped: dict[str, list[str]] = {}
    for key, value in uncarried(trial, words).items():
        if f"{key}=" not in named:
            grouped.setdefault(_reason(words, key), []).append(f"{key}={told(value)}")
    return tuple(f"{reason}: {', '.join(pairs)}." for reason, pairs in grouped.items())


def uncarried(trial: Trial, words: Words) -> dict[str, object]:
    """The settings that the words do not carry and that ask for something, by key."""
    return {
        key: value
        for key, value in settings(trial).items()
        if key not in words.carries and not _asks_for_nothing(trial, words, key, value)
    }


def told(value: object) -> str:
    """A value in a note: as it is typed, and not the whole of a long one."""
    if isinstance(value, tuple):
        text = ", ".join(map(told, value))
        text = text if len(value) == 1 else f"({text})"
    elif isinstance(value, bool):
        text = str(value).lower()
    else:
        text = "null" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _reason(words: Words, key: str) -> str:
    group = key.partition(".")[0]
    if key in OWN_NAMES:
        return f"Names of zbench's own, which {words.tool} does not need"
    if key in words.reasons or group in words.reasons:
        return words.reasons.get(key) or words.reasons[group]
    return f"{words.tool} has no counterpart for these, which this leaves out"


def _asks_for_nothing(trial: Trial, words: Words, key: str, value: object) -> bool:
    """Whether it is the value that means: as without it."""
    if key in words.plain:
        return value in words.plain[key]
    group, _, name = key.partition(".")
    if key.startswith(f"{PROMPTS}."):
        default = _default(Prompt, key.rpartition(".")[2])
        return isinstance(value, tuple) and all(each == default for each in value)
    return group != "hardware" and value == _default(type(getattr(trial, group)), name)


def _default(schema: Any, name: str) -> object:
    """What a field is where nobody gave it a value; an object that equals no value where it has no default."""
    item: Field[Any] = schema.__dataclass_fields__[name]
    made: object = item.default
    if item.default is NO_DEFAULT:
        made = item.default_factory() if item.default_factory is not NO_DEFAULT else MISSING
    return object() if made == MISSING else made
