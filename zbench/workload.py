"""What a trial generates: every prompt with every seed, in a fixed order; it never generates anything itself."""

from dataclasses import dataclass

from zbench.config import WorkloadConfig
from zbench.errors import ConfigError
from zbench.zimage.scenes.world import SceneError, parse_scene


@dataclass(frozen=True)
class Pair:
    """One image to be made. Comparisons pair rounds by (`prompt_id`, `seed`)."""

    prompt_id: str
    prompt_text: str
    seed: int
    negative_prompt: str = ""

    @property
    def call(self) -> tuple[str, int] | tuple[str, int, str]:
        """Arguments of `Engine.generate`: a negative prompt only where there is one, for engines that know none."""
        alone = self.prompt_text, self.seed
        return (*alone, self.negative_prompt) if self.negative_prompt else alone


def pairs(workload: WorkloadConfig) -> list[Pair]:
    """One cycle: prompts in the order given, each with all seeds."""
    return [
        Pair(prompt.id, prompt.text, seed, prompt.negative_prompt)
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
