"""What a trial generates: every prompt with every seed, and when each is due; it generates nothing."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise

from zbench.config import WorkloadConfig
from zbench.config.arrivals import OF_KINDS
from zbench.errors import ConfigError
from zbench.zimage.scenes.world import SceneError, parse_scene

LEAST_OF_A_PAIR = 3
"""How often each image of trials that take turns is made: of three a median leaves out one that was disturbed."""

COMPANION_WARM_UPS = 2
"""Rounds before the window of an uncached trial that is there for the others' sake: the pipeline is warm by then."""


@dataclass(frozen=True)
class Pair:
    """One image to be made. Comparisons pair rounds by (`prompt_id`, `seed`)."""

    prompt_id: str
    prompt_text: str
    seed: int
    negative_prompt: str = ""
    own: Mapping[str, int] = field(
        default_factory=dict, hash=False
    )  # of the pipeline's size and steps, what is this prompt's

    @property
    def call(self) -> tuple[str, int] | tuple[str, int, str]:
        """Arguments of `Engine.generate`: a negative prompt only where there is one, for engines that know none."""
        alone = self.prompt_text, self.seed
        return (*alone, self.negative_prompt) if self.negative_prompt else alone


def pairs(workload: WorkloadConfig) -> list[Pair]:
    """One cycle: prompts in the order given, each with all seeds."""
    return [
        Pair(prompt.id, prompt.text, seed, prompt.negative_prompt, prompt.own)
        for prompt in workload.prompts
        for seed in workload.seeds
    ]


def check_scenes(workload: WorkloadConfig) -> None:
    """Raise ConfigError for a prompt whose `scene` is none."""
    for index, prompt in enumerate(workload.prompts):
        if prompt.scene is not None:
            try:
                parse_scene(prompt.scene)
            except SceneError as error:
                raise ConfigError(f"workload.prompts[{index}].scene", prompt.scene, str(error)) from error


def whole_cycles(rounds: int, cycle: int) -> int:
    """`rounds` rounded up to whole cycles of `cycle` rounds, so that every pair is measured equally often."""
    return -(-rounds // cycle) * cycle


DEFAULT_REQUESTS = 20
"""Of Poisson arrivals, where `workload.requests` does not say how many."""


def requested(workload: WorkloadConfig) -> list[Pair]:
    """What each request of a load asks for, in the order in which they are due: prompts and seeds in turn."""
    cycle = pairs(workload)
    return [cycle[index % len(cycle)] for index in range(request_count(workload))]


def request_count(workload: WorkloadConfig) -> int:
    """Requests of a load: as many as it says, else all at once, DEFAULT_REQUESTS, or one for each time."""
    otherwise = {"concurrent": workload.concurrency, "replay": len(workload.arrival_times_s)}
    return workload.requests or otherwise.get(workload.arrivals) or DEFAULT_REQUESTS


def due_times_s(workload: WorkloadConfig) -> list[float] | None:
    """When each request is due, seconds after the start; None where it is when a former one is done.

    The gaps of Poisson arrivals are those of one draw whatever the rate, so that rates differ in nothing else. As in
    SGLang's bench_serving a gap comes before the first request too.
    """
    count = request_count(workload)
    if workload.arrivals == "replay":
        return workload.arrival_times_s[:count]
    if workload.arrivals != "poisson" or workload.rate_per_s is None:
        return None
    draw = random.Random(workload.arrivals_seed)
    times_s = accumulate(draw.expovariate(1.0) for _ in range(count))
    return [time_s / workload.rate_per_s for time_s in times_s]


def longest_gap_s(workload: WorkloadConfig) -> float:
    """The longest time in which no request is due, the first one's included; 0 where they wait for each other alone."""
    due_s = due_times_s(workload) if workload.is_load else None
    return max((later - former for former, later in pairwise([0.0, *(due_s or [])])), default=0.0)


def one_after_another(workload: WorkloadConfig) -> WorkloadConfig:
    """The same prompts and seeds without load."""
    plain = WorkloadConfig()
    return replace(workload, arrivals=plain.arrivals, **{name: getattr(plain, name) for name in OF_KINDS})
