"""The error of a key that is nowhere: what is near it, or which choices have it."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches

from omegaconf import DictConfig, OmegaConf

from zbench.composition.aliases import meant
from zbench.composition.grammar import Key, dotted
from zbench.composition.nodes import ABSENT, get
from zbench.errors import OverrideError


def unknown_key(
    line: str, key: Key, cfg: DictConfig, choice: str, others: Sequence[str], roots: Mapping[str, DictConfig]
) -> OverrideError:
    """What to say of `line`, whose `key` the config `cfg` lacks; `others` are choices of its group that have it, and
    `roots` all choices as they are."""
    said = "no such key" if line.lstrip("+~").partition("=")[0] == dotted(key) else f"no key {dotted(key[1:])}"
    if others:
        named = ", ".join(f"{key[0]}={other}" for other in others)
        return OverrideError(f"{line}: {choice} has {said}; these have: {named}")
    there = next(key[:end] for end in range(len(key) - 1, -1, -1) if get(cfg, key[:end]) is not ABSENT)
    node, leaf = get(cfg, there), key[len(there)]
    if OmegaConf.is_list(node):
        return OverrideError(f"{line}: {dotted(there)} has {len(node)} entries, 0 the first")
    if not OmegaConf.is_dict(node):
        return OverrideError(f"{line}: {dotted(there)} takes one value and has no keys")
    known = _keys(node)
    near = get_close_matches(leaf, known, n=1)
    known_as = meant(leaf)
    owner = {0: "a config", 1: choice}.get(len(there), dotted(there))
    if known_as is not None:
        hint = f"did you mean {known_as}?"
    elif near:
        hint = f"did you mean {dotted((*there, near[0]))}?"
    else:
        hint = f"{owner} has: {', '.join(known) or 'no keys'}"
        hint += _near_elsewhere(key, roots) if len(key) == 2 else ""
    where = "" if said == "no such key" else f" {dotted(key)}"
    return OverrideError(f"{line}: unknown key{where}; {hint}")


def _near_elsewhere(key: Key, roots: Mapping[str, DictConfig]) -> str:
    """The key of other choices that is nearest, and which have it; nothing where none is near."""
    group, leaf = key
    every = {name: _keys(get(root, (group,))) for name, root in roots.items()}
    near = get_close_matches(leaf, sorted({name for keys in every.values() for name in keys}), n=1)
    if not near:
        return ""
    having = ", ".join(f"{group}={choice}" for choice, keys in every.items() if near[0] in keys)
    return f"; did you mean {group}.{near[0]}? These have it: {having}"


def _keys(node: DictConfig) -> list[str]:
    return [str(name) for name in node if name not in ("grid", "hydra")]
