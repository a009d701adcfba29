"""What took effect in a measurement, as its engine saw it, and what its files are."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from zbench.decode import Count, Figure, Seconds, Whole
from zbench.zimage.geometry import Geometry

CONTENT = ("weights", "configs", "lora")
"""What a pipeline's files are; `Effective` has the sha256 of each."""


@dataclass(frozen=True)
class ServerView:
    """What an engine knows of the server behind it."""

    version: str | None = None
    command: list[str] = field(default_factory=list)  # that started it; empty: somebody else did
    log: str | None = None  # name of its log, beside the worker's
    per_request_cache: bool | None = None  # whether requests say how steps are skipped; None: nobody need
    stages_s: dict[str, Seconds] = field(default_factory=dict)  # of an untimed request, device synchronised
    steps_s: list[Seconds] = field(default_factory=list)  # of the same request
    probed: Count = 0  # prompts and seeds of which such a request told the cached steps


@dataclass(frozen=True)
class Effective:
    """What took effect, as the engine saw it; None: it does not say. Sizes in bytes."""

    device: str | None = None  # cuda or cpu
    device_name: str | None = None
    dtype: str | None = None  # bfloat16, float32
    weights: str | None = None  # preset, folder, file, hub_cache, download or random
    weights_note: str | None = None  # where they are not the ones first looked for: which they are, and why
    weights_files: dict[str, list[str]] | None = None  # component to the names of the files that were read
    stored_dtypes: dict[str, list[str]] | None = None  # component to how its weights are stored, sorted
    weights_sha256: str | None = None  # of all weight files that were read (`zimage.checksum`); None: there were none
    configs_sha256: str | None = None  # of every other file of the pipeline that decides what it makes
    lora_sha256: str | None = None  # of the file of the LoRA; None: there was none
    lora_scale: float | None = None
    lora_fused: bool | None = None  # whether it was added to the weights
    weights_seed: Whole | None = None  # of random weights
    vae: str | None = None  # folder of a VAE that took the place of the pipeline's own
    vae_tiling: bool | None = None
    vae_slicing: bool | None = None
    n_blocks: Count | None = None  # main blocks of the transformer
    geometry: Geometry | None = None  # of a pipeline whose size is not its preset's; None: the preset's, or older
    steps: Count | None = None
    threads: Count | None = None
    attention_backend: str | None = None
    compile: bool | None = None
    graphs: str | None = None  # what was captured: none, stages or all
    fast: dict[str, str] | None = None  # pieces of the fast path that were applied, by the knob; empty: none
    quantized: dict[str, Count] | None = None  # layers by kind, such as {"fp8": 168}; empty: none
    offload: str | None = None
    pin_memory: bool | None = None
    offload_moved_bytes: dict[str, Count] | None = None
    """By component, copied to the device for the last call. Of a text encoder it says how it came: with its table of
    tokens whole, as it once did, without it layer by layer (docs/projections.md)."""
    context_bytes: Count | None = None  # what the process held on the device before anything was loaded
    vram_limit_gib: Figure | None = None
    allocator_limit_bytes: Count | None = None
    cache: dict[str, Any] | None = None  # step skipping as its library holds it; empty: no step is skipped
    server: ServerView | None = None  # of an engine behind one
    cut_tokens: dict[str, int] = field(default_factory=dict)  # by prompt id, beyond max_sequence_length; empty: none
    tells_cached_steps: bool | None = None  # False: a server that does not say which steps it skipped
    doubts: list[str] = field(default_factory=list)  # sentences: where it is not what was asked for, or nobody says
    other: dict[str, Any] = field(default_factory=dict)  # what an engine from elsewhere has to say, JSON-ready

    def differs_in_content(self, than: "Effective") -> str | None:
        """What of the pipeline's content is known to be another than `than`'s, one of CONTENT; None: nothing.

        A path says where weights lie, not what they are: only their content decides whether two measurements may be
        compared. What either side does not know says nothing.
        """
        ours, theirs = self.content, than.content
        return next((kind for kind in CONTENT if kind in ours and ours[kind] != theirs.get(kind, ours[kind])), None)

    @property
    def content(self) -> dict[str, str]:
        """The sha256 of each of CONTENT that is known."""
        found = {kind: getattr(self, f"{kind}_sha256") for kind in CONTENT}
        return {kind: digest for kind, digest in found.items() if digest is not None}

    @classmethod
    def of_content(cls, content: Mapping[str, Any]) -> "Effective":
        """What is known by its content alone; keys are those of CONTENT, with `_sha256` or without."""
        return cls(**{f"{kind}_sha256": content.get(kind, content.get(f"{kind}_sha256")) for kind in CONTENT})
