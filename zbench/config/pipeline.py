"""What is generated: the pipeline and its weights, prompts and seeds."""

import unicodedata
from dataclasses import dataclass, field

from omegaconf import MISSING

from zbench.config.arrivals import LONGEST_S, MOST_AT_ONCE, MOST_REQUESTS, check_arrivals
from zbench.config.group import Group
from zbench.config.ranges import check_name, check_text, number, shortened, within
from zbench.errors import ConfigError

PIXEL_GRID = 16
"""Sides are multiples of it: 8 pixels a latent, 2 latents a token."""

MAX_SIDE = 16384
MAX_STEPS = 1000
MAX_IMAGES = 1024
"""Of one call."""

SEED_LIMIT = 2**63
"""Seeds lie from -SEED_LIMIT to below it: what torch takes, and what a table's 64-bit column holds."""


OWN_OF_PROMPTS = ("height", "width", "steps")
"""Keys of the pipeline that a prompt may have of its own."""


@dataclass
class PipelineConfig(Group):
    """What is generated, and with which weights."""

    name: str = MISSING
    preset: str = MISSING  # folder under zbench/zimage/presets that gives the geometry
    weights: str = "auto"  # auto, random, a folder in the official layout, a transformer's file, or a hub id
    hub_id: str | None = None  # what `auto` looks for in the local Hugging Face cache
    download: bool = False  # whether a hub id may be fetched
    height: int = number(MISSING, PIXEL_GRID, MAX_SIDE)  # pixels
    width: int = number(MISSING, PIXEL_GRID, MAX_SIDE)  # pixels
    steps: int = number(8, 1, MAX_STEPS)  # transformer forwards an image; the scheduler has 1000 timesteps
    guidance_scale: float = number(0.0, 0, 1000)
    max_sequence_length: int = number(512, 1, 32768)  # prompt tokens, padding included
    batch_size: int = number(1, 1, MAX_IMAGES)  # times the prompt is in one call, each with a seed of its own
    images_per_prompt: int = number(1, 1, MAX_IMAGES)  # of each; the text encoder reads the prompt once for all
    vae: str | None = None  # folder of an AutoencoderKL that takes the place of the pipeline's own
    lora: str | None = None  # safetensors file of a LoRA, or a folder that holds one
    lora_scale: float = number(1.0, -100, 100)  # how strongly it changes the transformer
    lora_fused: bool = True  # added to the weights when they are loaded; else computed beside them in every step
    vae_tiling: bool = False  # decode in overlapping tiles: less memory, another image
    vae_slicing: bool = False  # decode one image of a batch at a time
    variant: str | None = None  # of a folder whose files come in several, such as fp16

    @property
    def images(self) -> int:
        """Images that one call makes."""
        return self.batch_size * self.images_per_prompt

    @property
    def named_files(self) -> tuple[str | None, ...]:
        """What decides which files are read: pipelines that agree in it read the same, at one moment."""
        return self.preset, self.weights, self.hub_id, self.vae, self.variant, self.lora

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
    negative_prompt: str = ""  # what guidance leads away from
    height: int | None = number(None, PIXEL_GRID, MAX_SIDE)  # pixels; null: the pipeline's, as the next two
    width: int | None = number(None, PIXEL_GRID, MAX_SIDE)
    steps: int | None = number(None, 1, MAX_STEPS)

    @property
    def own(self) -> dict[str, int]:
        """Keys of the pipeline that are others for this prompt."""
        return {key: value for key in OWN_OF_PROMPTS if (value := getattr(self, key)) is not None}


@dataclass
class WorkloadConfig(Group):
    """Which images are generated, every prompt with every seed, and when each is asked for.

    A composed job has its prompts in `prompts` alone: `composition.prompts` puts there what the other three name. So it
    is with `arrivals_file` and `arrival_times_s` (`composition.arrivals`).
    """

    name: str = MISSING
    prompts: list[Prompt] = field(default_factory=list)
    seeds: list[int] = field(default_factory=lambda: [0], metadata=within(-SEED_LIMIT, SEED_LIMIT - 1))
    prompt: str | None = None  # one prompt, in place of `prompts`
    prompts_file: str | None = None  # txt, jsonl or csv, in place of `prompts`
    negative_prompt: str = ""  # of every prompt that has none of its own
    arrivals: str = "sequential"  # each when the former is done; concurrent, poisson and replay are load
    concurrency: int | None = number(None, 1, MOST_AT_ONCE)  # load: at most so many at once; null: no bound
    rate_per_s: float | None = number(None, 0, MOST_REQUESTS, above=True)  # poisson: mean; null: it is sought
    requests: int | None = number(None, 1, MOST_REQUESTS)  # load: how many, prompts and seeds in turn
    arrivals_seed: int = number(0, 0, SEED_LIMIT - 1)  # poisson: which draw of times
    arrivals_file: str | None = None  # replay: when each request is due, seconds, one a line
    arrival_times_s: list[float] = field(default_factory=list, metadata=within(0, LONGEST_S))  # replay: its times
    latency_objective_s: float | None = number(None, 0, LONGEST_S, above=True)  # load: from due to done
    warm_up: bool = True  # load: false begins with whatever the pipeline is, cold where it was just launched

    @property
    def mixes(self) -> bool:
        """Whether a prompt asks for a size or for steps of its own."""
        return any(prompt.own for prompt in self.prompts)

    @property
    def is_load(self) -> bool:
        """Whether requests come as `arrivals` says, and not each when the former is done."""
        return self.arrivals != "sequential"

    @property
    def seeks_rate(self) -> bool:
        """Whether it stands for the highest rate that meets its objective, and is no trial before one is chosen."""
        return self.arrivals == "poisson" and self.rate_per_s is None

    @property
    def load_label(self) -> str | None:
        """How requests arrive, in a trial's label: `concurrent:20`, `poisson:2.5/s`; None one after another."""
        of = {"concurrent": f":{self.concurrency}", "poisson": f":{self.rate_per_s or 0:.4g}/s"}
        sought = "poisson:rate sought" if self.seeks_rate else f"{self.arrivals}{of.get(self.arrivals, '')}"
        return sought if self.is_load else None


def check_pipeline(pipeline: PipelineConfig) -> None:
    """Raise ConfigError for a value that is out of its range."""
    for key in ("height", "width"):
        _check_side(f"pipeline.{key}", getattr(pipeline, key))
    if pipeline.weights == "":
        raise ConfigError("pipeline.weights", "''", "name auto, random, a folder, a file or a hub id; . is this folder")
    if pipeline.vae == "":
        raise ConfigError("pipeline.vae", "''", "name the folder of a VAE, or leave it null")
    if pipeline.lora == "":
        raise ConfigError("pipeline.lora", "''", "name a safetensors file or its folder, or leave it null")
    if pipeline.images > MAX_IMAGES:
        problem = f"with pipeline.batch_size={pipeline.batch_size} makes {pipeline.images} images; at most {MAX_IMAGES}"
        raise ConfigError("pipeline.images_per_prompt", pipeline.images_per_prompt, problem)


def _check_side(key: str, pixels: int) -> None:
    if pixels % PIXEL_GRID:
        below = pixels // PIXEL_GRID * PIXEL_GRID
        nearest = f"{below} and {below + PIXEL_GRID}"
        raise ConfigError(key, pixels, f"must be a positive multiple of {PIXEL_GRID} pixels; nearest: {nearest}")


def check_workload(workload: WorkloadConfig) -> None:
    """Raise ConfigError for a value that is out of its range."""
    if not workload.prompts:
        way = "workload.prompt='a cat', or workload.prompts_file=prompts.txt"
        raise ConfigError("workload.prompts", "[]", f"needs at least one prompt, such as {way}")
    if not workload.seeds:
        raise ConfigError("workload.seeds", "[]", "needs at least one seed")
    if len(set(workload.seeds)) != len(workload.seeds):
        raise ConfigError("workload.seeds", workload.seeds, "every seed must be unique")
    known: dict[str, str] = {}
    for index, prompt in enumerate(workload.prompts):
        check_prompt(prompt, f"workload.prompts[{index}].")
        alike = unicodedata.normalize("NFC", prompt.id).casefold()
        if alike in known:
            same = known[alike] == prompt.id
            said = "two prompts have this id" if same else f"another is {known[alike]}, the same file on many systems"
            raise ConfigError("workload.prompts", prompt.id, f"{said}; every id must be unique")
        known[alike] = prompt.id
    check_arrivals(workload)


def check_prompt(prompt: Prompt, path: str) -> None:
    """Raise ConfigError, its key after `path`, for an id that is no part of a file's name or text that is none."""
    check_name(f"{path}id", prompt.id, "is part of file names")
    if not prompt.text.strip():
        raise ConfigError(f"{path}text", repr(prompt.text), f"prompt {prompt.id} is empty; say what to paint")
    for name in ("text", "negative_prompt", "language"):
        check_text(f"{path}{name}", getattr(prompt, name))
    for name in ("height", "width"):
        if name in prompt.own:
            _check_side(f"{path}{name}", prompt.own[name])


def check_together(pipeline: PipelineConfig, workload: WorkloadConfig) -> None:
    """Raise ConfigError for what a pipeline cannot do with its workload."""
    if max(workload.seeds) + pipeline.images > SEED_LIMIT:
        problem = f"the {pipeline.images} images of a call have seeds that follow it, and they end at {SEED_LIMIT - 1}"
        raise ConfigError("workload.seeds", max(workload.seeds), problem)
    negative = next((prompt for prompt in workload.prompts if prompt.negative_prompt), None)
    if negative is not None and pipeline.guidance_scale == 0:
        problem = (
            f"prompt {negative.id} has one, and without guidance it changes nothing; set pipeline.guidance_scale above "
            "0, or leave it out"
        )
        raise ConfigError("workload.negative_prompt", shortened(negative.negative_prompt), problem)
