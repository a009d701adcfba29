"""Attention kernels by diffusers' names: which there are, what each needs. It imports neither torch nor diffusers."""

import ast
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from zbench.config import ComputeConfig, HardwareConfig, ParallelConfig, PipelineConfig
from zbench.errors import ConfigError
from zbench.methods.parallel.dims import ParallelDims
from zbench.methods.sglang import SGLangPart

KEY = "compute.attention_backend"
NATIVE = "native"
AUTO = "auto"
"""What stands for the fastest exact kernel that comes with torch; a trial's is never this."""

FASTEST = {"cuda": "_native_cudnn", "cpu": NATIVE}
"""Of the exact kernels that need no further package, by device."""

CUDNN_FP8 = "cudnn_fp8"
"""cuDNN's kernel in FP8, which diffusers has no name for and which changes images."""

LEAST_CAPABILITY = 9.0
"""Compute capability of an NVIDIA GPU from which on cuDNN attends in FP8: Hopper and later.
Source: https://docs.nvidia.com/deeplearning/cudnn/frontend/latest/operations/Attention.html"""

PACKAGES = {
    CUDNN_FP8: "cudnn",
    "flash": "flash_attn",
    "flash_varlen": "flash_attn",
    "_flash_3": "flash_attn_interface",
    "_flash_varlen_3": "flash_attn_interface",
    "sage": "sageattention",
    "_sage": "sageattention",
    "xformers": "xformers",
    "_native_npu": "torch_npu",
    "_native_xla": "torch_xla",
}
"""The package that a kernel needs, by its name or by what that begins with."""

INSTALLED_BY = {"cudnn": "pip install 'zbench[cudnn]'"}
"""How to get a package that has another name than what is imported."""

MASKED = (NATIVE, "_native_cudnn", "_native_efficient", "_native_math")
"""Kernels that take a mask: prompts of unequal length in one forward need one."""

SGLANG = {
    **dict.fromkeys(("flash", "flash_varlen", "_flash_3", "_flash_varlen_3"), "fa"),
    "sage": "sage_attn",
    "_native_cudnn": "torch_cudnn_sdpa",
}
"""SGLang's name for the same kernel, or for the one of its family that it has for the card."""

SGLANG_RINGS = ("fa", "sage_attn")
"""SGLang's kernels that give ring attention what it merges with."""


def settled(name: str, device: str, *, rings: bool) -> str:
    """`name`, or what `auto` stands for on a device, cuda or cpu; cuDNN's kernel gives ring nothing to merge with."""
    if name != AUTO:
        return name
    return NATIVE if rings else FASTEST[device]


def check_backend(name: str) -> None:
    """Raise ConfigError for a kernel that diffusers does not know or would fetch, or whose package is not here."""
    if name == NATIVE:
        return
    known = backends()
    if known and name not in (*known, CUDNN_FP8):
        raise ConfigError(KEY, name or "''", f"must be one of {', '.join((*known, CUDNN_FP8))}")
    if "hub" in name.split("_"):
        raise ConfigError(KEY, name, "would fetch code from the hub and run it; give a kernel that is installed")
    prefix = "_sage" if name.startswith("_sage") else name.partition("_")[0] if name.startswith("sage") else name
    package = PACKAGES.get(prefix)
    if package is not None and find_spec(package) is None:
        way = INSTALLED_BY.get(package, f"{NATIVE} needs none")
        raise ConfigError(KEY, name, f"needs the package {package}, which is not installed; {way}")


def is_diffusers(name: str) -> bool:
    """Whether diffusers, and cache-dit through it, know the kernel."""
    return name != CUDNN_FP8


def of_diffusers(name: str) -> str:
    """The kernel that diffusers is told of: an exact one where it does not know this."""
    return name if is_diffusers(name) else NATIVE


def problem(compute: ComputeConfig, pipeline: PipelineConfig, parallel: ParallelConfig) -> str | None:
    """Why attention in FP8 cannot work with these, or None; of other kernels their stack knows."""
    if compute.attention_backend != CUDNN_FP8:
        return None
    named = f"{KEY}={CUDNN_FP8}"
    if compute.device == "cpu":
        return f"{named}: is a kernel of NVIDIA's GPUs, and this trial runs on the CPU; use {KEY}={NATIVE}"
    if compute.dtype == "float32":
        return f"{named}: rounds bfloat16 to FP8, and compute.dtype=float32; leave that out"
    if compute.qkv == "split" and compute.rope == "complex":
        return f"{named}: is part of the fast path's attention; add compute.rope=real"
    if pipeline.guidance_scale > 0 and parallel.cfg_size == 1:
        return (
            f"{named}: pipeline.guidance_scale={pipeline.guidance_scale:g} puts two prompts in a forward, whose "
            "lengths may need a mask, and it takes none; parallel.cfg_size=2 parts them"
        )
    split = ParallelDims.of(parallel).named("tp", "ulysses", "ring", "gather")
    return f"{named}: takes all tokens and heads of an image on one device; leave out {split}" if split else None


def problem_on_hardware(compute: ComputeConfig, hardware: HardwareConfig | None) -> str | None:
    """Why it is not projected, or None; None of hardware that is here."""
    if compute.attention_backend != CUDNN_FP8 or hardware is None:
        return None
    problem = problem_on_card(hardware.compute_capability, f"hardware={hardware.name}")
    return None if problem is None else f"{KEY}={CUDNN_FP8}: {problem}"


def problem_on_card(capability: float | None, card: str) -> str | None:
    """Why cuDNN does not attend in FP8 on a card of such a compute capability, or None; other vendors' have none."""
    if capability is not None and capability >= LEAST_CAPABILITY:
        return None
    its = "names none" if capability is None else f"has {capability:.1f}"
    least = f"takes an NVIDIA GPU of compute capability {LEAST_CAPABILITY:.1f} or more"
    return f"{least}, and {card} {its}; use {KEY}={AUTO}"


def label(name: str) -> str | None:
    """What a trial's label says of it: nothing of exact kernels, which leave images what they are."""
    return "attention:fp8" if name == CUDNN_FP8 else None


def sglang_part(name: str, *, rings: bool) -> SGLangPart:
    """SGLang's kernel; left to SGLang where the measured one is PyTorch's own, for its own choice is the faster one."""
    same = SGLANG.get(name)
    if rings and same not in SGLANG_RINGS:
        said = f"{KEY}={name} is not carried over: SGLang rings with fa or sage_attn."
        return SGLangPart(("--attention-backend", "fa"), notes=(said,))
    if same is not None:
        return SGLangPart(("--attention-backend", same), carries=(KEY,))
    if name == NATIVE:
        said = f"{KEY}={name} is SGLang's torch_sdpa; this leaves SGLang its own choice for the card."
        return SGLangPart(notes=(said,))
    return SGLangPart(notes=(f"{KEY}={name} is not carried over: SGLang has no kernel of this name.",))


@cache
def backends() -> tuple[str, ...]:
    """Names that the installed diffusers knows, read from its source; empty where that cannot be found."""
    spec = find_spec("diffusers")
    for folder in spec.submodule_search_locations or () if spec is not None else ():
        source = Path(folder) / "models" / "attention_dispatch.py"
        if source.is_file():
            tree = ast.parse(source.read_text(encoding="utf-8"))
            classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
            return tuple(
                str(line.value.value)
                for found in classes
                if found.name == "AttentionBackendName"
                for line in found.body
                if isinstance(line, ast.Assign) and isinstance(line.value, ast.Constant)
            )
    return ()
