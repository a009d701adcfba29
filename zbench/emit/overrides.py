"""A trial as the `zbench run` line that composes it again; runs nothing.

Each group is named by zbench's own choice that is nearest, and every value in which the trial differs from that
choice is spelled out: a choice of the user's own --config-dir is written as values, so the line works without it.
"""

from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from functools import lru_cache
from typing import NoReturn

import yaml
from omegaconf import MISSING

from zbench.composition import conf_dir, expand
from zbench.composition.grammar import hydra_value, literal
from zbench.config import Config, EngineConfig, ServedEngineConfig
from zbench.methods import fast
from zbench.methods.cache import method_of
from zbench.plugins import ALLOW_CODE, check_targets
from zbench.sanitize import shell_line
from zbench.trial import Trial

# What decides the result is spelled out even where it is the choice's default, which may change.
SPELLED_OUT = {
    "pipeline": ("height", "width", "steps", "guidance_scale", "max_sequence_length"),
    "workload": ("seeds",),
}


def zbench_overrides(trial: Trial) -> list[str]:
    """Hydra overrides that compose this trial again with zbench's own choices."""
    choices = _choices(trial)
    named = [f"{group}={choice}" for group, choice in choices.items()]
    here = [] if trial.hardware else ["hardware=cpu"]  # no part of a measured trial, but a job needs one
    cap = [] if trial.vram_limit_gib is None else [f"hardware.vram_limit_gib={trial.vram_limit_gib:g}"]
    default = _composed((*named, *_blanks(trial), *here))
    overrides = []
    for group, choice in choices.items():
        overrides.append(f"{group}={choice}")
        overrides += _differing(group, getattr(default, group), getattr(trial, group), _spelled_out(group, trial))
    return [*overrides, *cap] if trial.hardware is None else [*overrides, "execution=project"]


def zbench_command(trial: Trial, overrides: Sequence[str]) -> str:
    """`zbench run` with the overrides of a trial, quoted for a shell; it permits code from outside that ran."""
    allowed = [ALLOW_CODE] if check_targets([trial], allow_code=True) else []
    return shell_line(["zbench", "run", *allowed, *overrides])


def engine_choice(choice: str) -> EngineConfig:
    """The engine of a choice of zbench's own, as it is without further words."""
    return _composed((f"engine={choice}", "hardware=cpu", "pipeline=zimage_tiny")).engine


@lru_cache(maxsize=64)
def _composed(words: tuple[str, ...]) -> Config:
    """The job of these overrides, which nobody changes: many trials differ from the same one."""
    return expand(list(words), _no_auto, grids=False).jobs[0].config


def _choices(trial: Trial) -> dict[str, str]:
    """Group to the choice of zbench's own that is nearest to the trial's."""
    served = isinstance(trial.engine, ServedEngineConfig)
    choices = {
        "pipeline": _named("pipeline", trial.pipeline.name, "zimage_turbo"),
        "engine": _named("engine", trial.engine.name, "openai_images" if served else "reference"),
        "parallel": "single",
        "offload": trial.offload.mode,
        "cache": method_of(trial.cache).choice,
        "compute": _compute(trial),
        "workload": _named("workload", trial.workload.name, "single"),
    }
    return (
        choices if trial.hardware is None else {"hardware": _named("hardware", trial.hardware.name, "cpu"), **choices}
    )


def _compute(trial: Trial) -> str:
    """A choice that sets several knobs stands for all of them together alone."""
    compute = trial.compute
    if fast.is_fast(compute, trial.parallel):
        return "fast" if compute.quantization == "none" else "fp8"
    if compute.compile and compute.graphs == "all":
        return "graph"
    return "compiled" if compute.compile else "eager"


def _named(group: str, name: str, otherwise: str) -> str:
    """The choice whose `name:` is `name`: a file may be called otherwise."""
    for path in sorted((conf_dir() / group).glob("*.yaml")):
        if path.stem != "auto" and (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("name") == name:
            return path.stem
    return otherwise


def _blanks(trial: Trial) -> list[str]:
    """What the cache's choice leaves open, and a job needs."""
    lacking = [f.name for f in fields(trial.cache) if f.default == MISSING]
    return [f"cache.{name}={hydra_value(getattr(trial.cache, name))}" for name in lacking]


def _spelled_out(group: str, trial: Trial) -> tuple[str, ...]:
    if group == "cache":
        named = () if _blanks(trial) else ("method",)  # the choice sets it
        own = [f.name for f in fields(trial.cache) if getattr(trial.cache, f.name) is not None]
        return tuple(name for name in own if name not in ("grid", *named))
    return SPELLED_OUT.get(group, ())


def _differing(key: str, default: object, config: object, always: Sequence[str] = ()) -> list[str]:
    """Overrides for the fields of `config` that differ from `default`, and for `always`; both of one dataclass."""
    assert is_dataclass(config) and not isinstance(config, type)
    overrides: list[str] = []
    for f in fields(config):
        before, value = getattr(default, f.name), getattr(config, f.name)
        if f.name == "grid" or (value == before and f.name not in always):
            continue
        if is_dataclass(value):
            overrides += _differing(f"{key}.{f.name}", before, value)
        elif isinstance(value, dict):  # an override is merged into what is there
            changed = {k: v for k, v in value.items() if k not in before or before[k] != v}
            overrides += [f"~{key}.{f.name}.{k}" for k in before if k not in value]
            overrides += [f"{key}.{f.name}={hydra_value(literal(changed))}"] if changed else []
        else:
            overrides.append(f"{key}.{f.name}={hydra_value(literal(value))}")
    return overrides


def _no_auto(group: str, choices: dict[str, str]) -> NoReturn:
    raise AssertionError(f"{group}=auto among {choices}: a trial's choices are never auto")
