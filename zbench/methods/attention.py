"""Attention kernels by diffusers' names: which there are, what each needs. It imports neither torch nor diffusers."""

import ast
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from zbench.errors import ConfigError

KEY = "compute.attention_backend"
NATIVE = "native"

PACKAGES = {
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


def check_backend(name: str) -> None:
    """Raise ConfigError for a kernel that diffusers does not know or would fetch, or whose package is not here."""
    if name == NATIVE:
        return
    known = backends()
    if known and name not in known:
        raise ConfigError(KEY, name or "''", f"must be one of {', '.join(known)}")
    if "hub" in name.split("_"):
        raise ConfigError(KEY, name, "would fetch code from the hub and run it; give a kernel that is installed")
    prefix = "_sage" if name.startswith("_sage") else name.partition("_")[0] if name.startswith("sage") else name
    package = PACKAGES.get(prefix)
    if package is not None and find_spec(package) is None:
        raise ConfigError(KEY, name, f"needs the package {package}, which is not installed; {NATIVE} needs none")


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
