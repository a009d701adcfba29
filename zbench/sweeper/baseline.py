"""`sweep.baseline`: which setting speed-ups are over, where that is not the quality reference's own.

Its value is a text of Hydra overrides, quoted as in a shell. It says how the same work is done, never which work.
"""

import shlex
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from zbench.composition.grammar import Key, leaves, unquoted
from zbench.config import Config
from zbench.errors import ConfigError, OverrideError
from zbench.space import made_to_fit
from zbench.trial import Trial, settled

KEY = "sweep.baseline"
GROUPS = ("parallel", "offload", "cache", "compute")
"""Groups that say how a piece of work is done."""

EXAMPLE = "compute=compiled cache=dbcache"


def named_baseline(text: str, compose: Callable[[list[str]], Config]) -> Callable[[Trial], Trial]:
    """What makes a speed baseline of a quality reference: its setting with the overrides in `text`.

    A projected one has the offload that it needs to fit itself, unless `text` names one. `compose` gives the one
    configuration of a list of overrides. Raises ConfigError that names `sweep.baseline` for overrides that do not
    parse, are no one setting, do not compose, or change more than how the work is done.
    """
    overrides = _overrides(text)
    keys = [key for override in overrides for key in _keys(override)]
    chosen = {group for group, *inner in keys if not inner}
    try:
        config = compose([str(o.input_line) for o in overrides])
    except (ConfigError, OverrideError) as error:
        raise ConfigError(KEY, repr(text), str(error)) from error
    typed: dict[str, dict[str, Any]] = {}
    for group, *inner in keys:
        if group not in chosen:
            typed.setdefault(group, {})[inner[0]] = getattr(getattr(config, group), inner[0])
    keeps_offload = names_offload(text)

    def baseline_of(reference: Trial) -> Trial:
        groups = {group: getattr(config, group) for group in chosen} | _set(reference, typed)
        changed = replace(reference, **groups)
        compute = settled(changed.compute, reference.compute.device, changed.parallel, changed.pipeline)
        changed = replace(changed, compute=compute)
        return changed if keeps_offload else made_to_fit(changed)

    return baseline_of


def names_offload(text: str | None) -> bool:
    """Whether a `sweep.baseline` says itself which weights wait in host memory. Raises as `named_baseline` does."""
    keys = [] if text is None else [key for override in _overrides(text) for key in _keys(override)]
    return any(key[:2] in (("offload",), ("offload", "mode")) for key in keys)


def _set(reference: Trial, typed: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The reference's own groups with single values replaced."""
    return {group: replace(getattr(reference, group), **values) for group, values in typed.items()}


def _overrides(text: str) -> list[Override]:
    """The overrides in `text`, each one value of the groups that a baseline may set."""
    try:
        overrides = OverridesParser.create().parse_overrides(shlex.split(text))
    except (HydraException, ValueError) as error:
        unparsed = f"{str(error).splitlines()[0]}; give Hydra overrides, such as {KEY}='{EXAMPLE}'"
        raise ConfigError(KEY, repr(text), unparsed) from error
    if not overrides:
        raise ConfigError(KEY, repr(text), f"names no setting; such as {KEY}='{EXAMPLE}', or leave it out")
    for override in overrides:
        if (problem := _problem(override)) is not None:
            raise ConfigError(KEY, repr(text), f"{override.input_line}: {problem}")
    return overrides


def _keys(override: Override) -> list[Key]:
    """The keys that an override gives a value, a dict's own ones; one part alone is a group's choice."""
    return [key for key, _ in leaves(tuple(override.key_or_group.split(".")), unquoted(override.value()))]


def _problem(override: Override) -> str | None:
    """Why an override has no place in a baseline."""
    keys = _keys(override)
    in_grid = any(key[1:2] == ("grid",) for key in keys)
    if keys[0][0] not in GROUPS or override.is_delete() or override.package or in_grid:
        allowed = f"{', '.join(GROUPS[:-1])} and {GROUPS[-1]}"
        return f"a baseline is the same work done in another way; it sets choices and values of {allowed} alone"
    if ("compute", "device") in keys:
        return "a baseline runs on the device of the trials that are compared with it; leave it out"
    if override.is_sweep_override():
        return "there is one baseline; give one value, and sweep the others beside it"
    return None
