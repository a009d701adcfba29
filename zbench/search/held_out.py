"""The samples that nothing is chosen on: other seeds, or other prompts, than those of the workload."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from zbench.composition.prompts import read_prompts
from zbench.config import WorkloadConfig, check
from zbench.config.pipeline import SEED_LIMIT
from zbench.errors import ConfigError
from zbench.trial import Trial
from zbench.workload import check_scenes, pairs


def parts_and_typed(
    held_out_of: Iterable[tuple[str, str]], typed: Collection[str]
) -> tuple[dict[str, str], dict[str, list[str]]]:
    """What `search.parts_of` and `search.held_out_for` say, of (work of samples held out, work that they are held out
    of); `typed` are works that were asked for."""
    parts: dict[str, str] = {}
    others: dict[str, list[str]] = {}
    for samples, work in held_out_of:
        if samples not in typed:
            parts[samples] = work
        elif work not in others.setdefault(samples, []):
            others[samples].append(work)
    return parts, others


def held_out(setting: Trial, holdout_seeds: Sequence[int] | None, holdout_prompts: str | None) -> WorkloadConfig | None:
    """The workload on other samples; None where there are to be none.

    Without `holdout_seeds` those that follow its own; with a file of `holdout_prompts` its own. No seeds: no samples.
    Raises ConfigError for a sample that it has itself, and for what could not be typed as its prompts and seeds either.
    """
    chosen_on = setting.workload
    seeds, prompts = holdout_seeds, chosen_on.prompts
    if holdout_prompts is not None:
        prompts = read_prompts(Path(holdout_prompts).expanduser(), "search.options.holdout_prompts")
        seeds = chosen_on.seeds if seeds is None else seeds
    if seeds is None:
        first = max(chosen_on.seeds) + 1
        seeds = [seed % SEED_LIMIT for seed in range(first, first + len(chosen_on.seeds))]
    if not seeds:
        return None
    others = replace(chosen_on, seeds=list(seeds), prompts=prompts)
    try:
        check(replace(setting, workload=others))
        check_scenes(others)
    except ConfigError as error:
        typed = {"holdout_seeds": holdout_seeds, "holdout_prompts": holdout_prompts}
        option = "holdout_seeds" if error.key == "workload.seeds" else "holdout_prompts"
        raise ConfigError(f"search.options.{option}", typed[option], str(error)) from error
    known = {(pair.prompt_text, pair.seed) for pair in pairs(chosen_on)}
    if any((pair.prompt_text, pair.seed) in known for pair in pairs(others)):
        problem = "the choice is made on the same prompt with the same seed; name other seeds, or other prompts"
        raise ConfigError("search.options.holdout_seeds", list(seeds), problem)
    return others
