"""The samples that nothing is chosen on: other seeds, or other prompts, than those of the workload."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from zbench.composition.prompts import read_prompts
from zbench.config import WorkloadConfig
from zbench.config.pipeline import SEED_LIMIT
from zbench.errors import ConfigError
from zbench.workload import pairs


def held_out(
    chosen_on: WorkloadConfig, holdout_seeds: Sequence[int] | None, holdout_prompts: str | None
) -> WorkloadConfig | None:
    """The workload on other samples; None where there are to be none. Raises ConfigError for one that it has itself.

    Without `holdout_seeds` those that follow its own; with a file of `holdout_prompts` its own. No seeds: no samples.
    """
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
    known = {(pair.prompt_text, pair.seed) for pair in pairs(chosen_on)}
    if any((pair.prompt_text, pair.seed) in known for pair in pairs(others)):
        problem = "the choice is made on the same prompt with the same seed; name other seeds, or other prompts"
        raise ConfigError("search.options.holdout_seeds", list(seeds), problem)
    return others
