"""What is generated: the pipeline and its weights, prompts and seeds."""

from dataclasses import dataclass, field

from omegaconf import MISSING

from zbench.config.group import Group
from zbench.config.ranges import at_least
from zbench.errors import ConfigError


@dataclass
class PipelineConfig(Group):
    """What is generated, and with which weights."""

    name: str = MISSING
    preset: str = MISSING  # folder under zbench/zimage/presets that gives the geometry
    weights: str = "auto"  # auto, random, a folder in the official layout, or a hub id
    hub_id: str | None = None  # what `auto` looks for in the local Hugging Face cache
    download: bool = False  # whether a hub id may be fetched
    height: int = MISSING  # pixels
    width: int = MISSING  # pixels
    steps: int = 8  # transformer forwards an image
    guidance_scale: float = 0.0
    max_sequence_length: int = 512  # prompt tokens, padding included
    batch_size: int = 1  # times the prompt is in one call, each with a seed of its own
    images_per_prompt: int = 1  # images of each of them; the text encoder reads the prompt once for all
    vae: str | None = None  # folder of an AutoencoderKL that takes the place of the pipeline's own
    lora: str | None = None  # safetensors file of a LoRA, or a folder that holds one
    lora_scale: float = 1.0  # how strongly it changes the transformer
    lora_fused: bool = True  # added to the weights when they are loaded; else computed beside them in every step
    vae_tiling: bool = False  # decode in overlapping tiles: less memory, another image
    vae_slicing: bool = False  # decode one image of a batch at a time

    @property
    def images(self) -> int:
        """Images that one call makes."""
        return self.batch_size * self.images_per_prompt

    @property
    def named_files(self) -> tuple[str | None, ...]:
        """What decides which files are read: pipelines that agree in it read the same, at one moment."""
        return self.preset, self.weights, self.hub_id, self.vae, self.lora

    @property
    def encoded_prompts(self) -> int:
        """Prompts that the text encoder reads in a call, with guidance as many empty ones."""
        return self.batch_size * (2 if self.guidance_scale > 0 else 1)

    @property
    def samples(self) -> int:
        """Samples in one transformer forward."""
        return self.encoded_prompts * self.images_per_prompt


@dataclass
class Prompt:
    """One text to paint."""

    id: str = MISSING
    text: str = MISSING
    language: str = "en"
    scene: str | None = None  # what must be painted, as zbench.zimage.scenes.world writes it; None: not judged


@dataclass
class WorkloadConfig(Group):
    """Which images are generated: every prompt with every seed."""

    name: str = MISSING
    prompts: list[Prompt] = field(default_factory=list)
    seeds: list[int] = field(default_factory=lambda: [0])


def check_pipeline(pipeline: PipelineConfig) -> None:
    """Raise ConfigError for a value that is out of its range."""
    for key in ("height", "width"):
        pixels = getattr(pipeline, key)
        if pixels < 16 or pixels % 16:
            raise ConfigError(f"pipeline.{key}", pixels, "must be a positive multiple of 16 pixels")
    at_least("pipeline.guidance_scale", pipeline.guidance_scale, 0)
    if pipeline.lora == "":
        raise ConfigError("pipeline.lora", "''", "name a safetensors file or its folder, or leave it null")
    for key in ("steps", "max_sequence_length", "batch_size", "images_per_prompt"):
        at_least(f"pipeline.{key}", getattr(pipeline, key), 1)


def check_workload(workload: WorkloadConfig) -> None:
    """Raise ConfigError for a value that is out of its range."""
    if not workload.prompts:
        raise ConfigError("workload.prompts", "[]", "needs at least one prompt")
    if not workload.seeds:
        raise ConfigError("workload.seeds", "[]", "needs at least one seed")
    ids = [prompt.id for prompt in workload.prompts]
    for repeated in (i for i in ids if ids.count(i) > 1):
        raise ConfigError("workload.prompts", repeated, "two prompts have this id; every id must be unique")
    if len(set(workload.seeds)) != len(workload.seeds):
        raise ConfigError("workload.seeds", workload.seeds, "every seed must be unique")
