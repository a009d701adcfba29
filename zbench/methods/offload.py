"""Offload modes: what waits in host memory, what each is called and needs, and in which order they are tried.

How weights come and go is the engine's own; what that costs is `hardware.traffic`'s and `hardware.footprint`'s.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from zbench.config import OffloadConfig
from zbench.methods.sglang import SGLangPart, spelled

COMPONENTS = ("text_encoder", "transformer", "vae")


@dataclass(frozen=True)
class OffloadMode:
    """One mode, by the name that it has in `offload.mode`."""

    name: str
    waiting: tuple[str, ...] = ()
    """Components whose weights wait in host memory."""
    by_layers: bool = False
    """Whether weights come layer by layer while they compute, so that the transformer comes anew in every step.

    They are swapped inside what torch.compile would compile whole.
    """
    needs_accelerator: bool = False
    """Whether it does nothing where the device is the host itself."""

    @property
    def streams_text(self) -> bool:
        """Whether the text encoder comes layer by layer, by zbench itself, and its table of tokens does not come."""
        return "text_encoder" in self.waiting and not self.by_layers

    @property
    def can_be_compiled(self) -> bool:
        """Whether torch.compile works with it."""
        return not self.by_layers


MOVING_MORE = (
    OffloadMode("none"),
    OffloadMode("vae", ("vae",)),
    OffloadMode("text_encoder", ("text_encoder",)),
    OffloadMode("dit", ("transformer",)),
    OffloadMode("all", COMPONENTS),
    OffloadMode("group", COMPONENTS, by_layers=True),
    OffloadMode("sequential", COMPONENTS, by_layers=True, needs_accelerator=True),
)
"""All modes by the bytes that an image moves: the order in which they are tried where memory is short."""

BY_NAME = {mode.name: mode for mode in MOVING_MORE}


def moving_more_than(name: str) -> tuple[OffloadMode, ...]:
    """The modes that move more than this one, least first."""
    return MOVING_MORE[MOVING_MORE.index(BY_NAME[name]) + 1 :]


def in_mode(offload: OffloadConfig, mode: str) -> OffloadConfig:
    """The same in another mode, or in its own with no layer kept on the device."""
    return replace(offload, mode=mode, keep_layers=0)


def moving_more_in(offload: OffloadConfig) -> tuple[OffloadMode, ...]:
    """The modes that move more than this does by `in_mode`, least first; its own too where layers are kept."""
    own = (BY_NAME[offload.mode],) if offload.keep_layers else ()
    return (*own, *moving_more_than(offload.mode))


def label(offload: OffloadConfig) -> str | None:
    """What a trial's label says of it, such as `offload:all keep4 unpinned`; None where nothing waits."""
    if not BY_NAME[offload.mode].waiting:
        return None
    kept = f" keep{offload.keep_layers}" if offload.keep_layers else ""
    return f"offload:{offload.mode}{kept}{'' if offload.pin_memory else ' unpinned'}"


def problem_of_layers(offload: OffloadConfig, layers: int) -> str | None:
    """Why it cannot work with a text encoder of so many layers, or None."""
    if offload.keep_layers > layers:
        named = f"offload.keep_layers={offload.keep_layers}"
        return f"{named}: the text encoder has {layers} layers, so {layers} keep all of them"
    return None


def problem_on_a_cpu(offload: OffloadConfig) -> str | None:
    """Why it cannot work where there is no accelerator, or None."""
    if BY_NAME[offload.mode].needs_accelerator:
        return f"offload.mode={offload.mode} needs an accelerator to offload from; the other modes work on a CPU"
    return None


def problem(offload: OffloadConfig, *, compiled: Mapping[str, str]) -> str | None:
    """Why it cannot work, or None; `compiled` are the knobs of compute by which torch.compile makes code."""
    mode = offload.mode
    if offload.keep_layers and not BY_NAME[mode].streams_text:
        modes = " or ".join(m.name for m in MOVING_MORE if m.streams_text)
        kept = f"offload.keep_layers={offload.keep_layers}"
        return f"{kept}: only with offload={modes} do the text encoder's layers come one by one; leave it out there"
    if mode == "group" and offload.use_stream and not offload.pin_memory:
        return "offload.pin_memory=false: a stream copies from pinned memory alone; add offload.use_stream=false"
    if compiled and not BY_NAME[mode].can_be_compiled:
        named = " and ".join(f"compute.{knob}={value}" for knob, value in compiled.items())
        return f"offload.mode={mode} swaps weights inside what {named} would compile whole; leave that out"
    return None


def overlaps(offload: OffloadConfig) -> bool:
    """Whether a step's copies run while the device computes it."""
    return offload.mode == "group" and offload.use_stream


def copies_back(offload: OffloadConfig) -> bool:
    """Whether what was copied to the device is copied back: by diffusers' groups without a stream alone."""
    return offload.mode == "group" and not offload.use_stream


def sglang_part(offload: OffloadConfig) -> SGLangPart:
    """All of SGLang's switches: its `auto` decides by the memory that happens to be free."""
    mode = BY_NAME[offload.mode]
    encoder = spelled("text_encoder" in mode.waiting)
    flags = {
        "--dit-cpu-offload": spelled("transformer" in mode.waiting and not mode.by_layers),
        "--dit-layerwise-offload": spelled(mode.by_layers),
        "--text-encoder-cpu-offload": encoder,
        "--image-encoder-cpu-offload": encoder,
        "--vae-cpu-offload": spelled("vae" in mode.waiting),
        "--pin-cpu-memory": spelled(offload.pin_memory),
    }
    inexact = f"offload.mode={mode.name} has no exact counterpart in SGLang; its layerwise offload is the nearest."
    return SGLangPart(
        flags=tuple(part for pair in flags.items() for part in pair),
        notes=(inexact,) if mode.by_layers else (),
        carries=("offload.mode", "offload.pin_memory"),
    )
