"""The `efficiency` of the profiles in conf/hardware, and `host.yaml`, as a fit gives them; it touches nothing else."""

import re
import textwrap
from dataclasses import asdict, fields
from pathlib import Path

from zbench.config import EfficiencyConfig
from zbench.files import write_whole
from zbench.hardware.calibrate.classes import CLASSES, MEASURED, carried
from zbench.hardware.calibrate.projecting import Shares
from zbench.hardware.host import FILE, HostCosts

WIDTH = 112
CHIP = "H100 and H200 are one chip with different memory: no other GPU was measured."


def write_profiles(shares: Shares, folder: Path, package: Path) -> list[Path]:
    """Write all GPUs' profiles under `folder` and the host's costs under `package`; the paths that changed."""
    texts = {folder / f"{name}.yaml": shares.efficiency for name in MEASURED}
    texts |= {folder / f"{name}.yaml": carried(name, shares) for name in CLASSES}
    made = {path: _with(path.read_text(encoding="utf-8"), efficiency) for path, efficiency in texts.items()}
    made[package / FILE] = _host(shares.host)
    changed = [path for path, text in made.items() if path.read_text(encoding="utf-8") != text]
    for path in changed:
        write_whole(path, made[path].encode())
    return changed


def _with(text: str, efficiency: EfficiencyConfig) -> str:
    """A profile's text with another efficiency, which stands last in it."""
    head, _, _ = text.partition("efficiency:\n")
    return head + efficiency_yaml(efficiency)


def efficiency_yaml(efficiency: EfficiencyConfig) -> str:
    """As it stands in a profile."""
    lines = ["efficiency:"]
    for item in fields(efficiency):
        value = getattr(efficiency, item.name)
        if item.name == "spread":
            lines += ["  spread:", *(f"    {name}: {_number(each)}" for name, each in asdict(value).items())]
        elif item.name != "source" and value is not None:
            lines.append(f"  {item.name}: {_number(value)}")
    return "\n".join([*lines, "  source: >-", *_folded(efficiency.source, "    ")]) + "\n"


def _host(costs: HostCosts) -> str:
    lines = ["# Written by `python -m zbench.hardware.calibrate --write`."]
    for name in ("eager", "compiled"):
        each = ", ".join(f"{key}: {_number(value)}" for key, value in asdict(getattr(costs, name)).items())
        lines.append(f"{name}: {{{each}}}")
    return "\n".join([*lines, "source: >-", *_folded(f"{costs.source} {CHIP}", "  ")]) + "\n"


def _number(value: float) -> str:
    """Four significant digits, as YAML reads a number."""
    text = f"{value:.4g}"
    return text if re.fullmatch(r"-?\d+(\.\d+)?", text) else f"{value:.8f}".rstrip("0").rstrip(".")


def _folded(text: str, indent: str) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
