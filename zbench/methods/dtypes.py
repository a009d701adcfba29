"""Dtypes of the arithmetic: size, where each is native, where its rates stand, and what tools make of it."""

from dataclasses import dataclass

from zbench.methods.sglang import SGLangPart

AUTO = "auto"
"""`compute.dtype` that stands for what is native on the device."""


@dataclass(frozen=True)
class Dtype:
    """One dtype, by the name that it has in `compute.dtype` and in torch."""

    name: str
    nbytes: int
    peak_key: str
    """Key of a hardware profile with its dense matmul rate, TFLOP/s."""
    ceiling: str
    """What measured ceilings call it."""
    instead: str | None = None
    """What to use on hardware whose profile has no rate for it; None where every GPU's has one."""


BY_NAME = {
    dtype.name: dtype
    for dtype in (
        Dtype("float32", 4, peak_key="efficiency.fp32_tflops", ceiling="float32", instead="bfloat16"),
        Dtype("bfloat16", 2, peak_key="peak_bf16_tflops", ceiling="bf16"),
    )
}

NATIVE = {"cuda": BY_NAME["bfloat16"], "cpu": BY_NAME["float32"]}
"""What `auto` is on each device: the checkpoint's own precision on a GPU."""


def dtype_on(device: str, name: str) -> Dtype:
    """What `compute.dtype=name` is on a device, cuda or cpu."""
    return NATIVE[device] if name == AUTO else BY_NAME[name]


def settled(name: str, device: str) -> str:
    """`name`, or `auto` where it is native on the device: so that one thing has one identity."""
    return AUTO if name == NATIVE[device].name else name


def ceiling_name(name: str) -> str | None:
    """What measured ceilings call a dtype that took effect; None of one that they do not have."""
    return BY_NAME[name].ceiling if name in BY_NAME else None


def label(name: str) -> str | None:
    """What a trial's label says of it; None of `auto`."""
    return None if name == AUTO else name


def sglang_part(name: str) -> SGLangPart:
    """SGLang computes in the checkpoint's own dtype, whatever was measured."""
    return SGLangPart() if name == AUTO else SGLangPart(notes=(f"compute.dtype={name} is not carried over.",))
