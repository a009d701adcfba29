"""The error of a key that is nowhere: what is near it, or which choices have it."""

from collections.abc import Sequence
from difflib import get_close_matches

from omegaconf import DictConfig, OmegaConf

from zbench.composition.aliases import meant
from zbench.composition.grammar import Key, dotted
from zbench.composition.nodes import ABSENT, get
from zbench.errors import OverrideError


def unknown_key(line: str, key: Key, cfg: DictConfig, choice: str, others: Sequence[str]) -> OverrideError:
    """What to say of `line`, whose `key` the config `cfg` lacks; `others` are choices of its group that have it."""
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
    known = [str(name) for name in node if name not in ("grid", "hydra")]
    near = get_close_matches(leaf, known, n=1)
    known_as = meant(leaf)
    owner = {0: "a config", 1: choice}.get(len(there), dotted(there))
    if known_as is not None:
        hint = f"did you mean {known_as}?"
    elif near:
        hint = f"did you mean {dotted((*there, near[0]))}?"
    else:
        hint = f"{owner} has: {', '.join(known) or 'no keys'}"
    where = "" if said == "no such key" else f" {dotted(key)}"
    return OverrideError(f"{line}: unknown key{where}; {hint}")
