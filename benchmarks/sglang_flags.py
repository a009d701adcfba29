"""Which flags `sglang serve` has in which version, read from its wheels' source; nothing of SGLang is imported or run.

    python benchmarks/sglang_flags.py 0.5.12 0.5.15.post1 0.5.19 0.5.23

Each named wheel is fetched alone (`pip download --no-deps`) into a temporary folder, or read from `--wheels FOLDER`. Of
its syntax trees `ServerArgs.add_cli_args` is followed through every `add_argument` and every further function that it
hands its parser to. The table goes to zbench/engines/sglang/flags.json.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

TABLE = Path(__file__).parent.parent / "zbench" / "engines" / "sglang" / "flags.json"
PACKAGE = "sglang/multimodal_gen/"
LEFT_OUT = (f"{PACKAGE}test/", f"{PACKAGE}benchmarks/", f"{PACKAGE}tools/", f"{PACKAGE}apps/")
VARIABLES = "SGLANG_"
ENDPOINT = "generations"
READS_A_FIELD = ("request_extra_value", "request_field_value", "_get_extra_field")
"""Functions of the images endpoint that take a request and the name of one of its fields."""

REFRESHES, POLICY = "refresh_context_on_transformer", "steps_computation_policy"
"""What every request but the first is prepared by, and its argument that keeps a forced step mask forced."""

Functions = dict[tuple[str, str], ast.FunctionDef]
"""By class (empty: none) and name."""


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("versions", nargs="+", metavar="VERSION")
    parser.add_argument("--wheels", type=Path, help="folder with wheels that are here already")
    parser.add_argument("--out", type=Path, default=TABLE)
    options = parser.parse_args()
    table = {}
    for version in options.versions:
        with tempfile.TemporaryDirectory() as folder:
            wheel = here(options.wheels, version) or fetched(version, Path(folder))
            table[version] = read_wheel(wheel)
        print(f"{version}: {len(table[version]['flags'])} flags", file=sys.stderr)
    options.out.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


def here(folder: Path | None, version: str) -> Path | None:
    """The wheel in a folder, if there is one."""
    return next(iter(sorted(folder.glob(f"sglang-{version}-*.whl"))), None) if folder is not None else None


def fetched(version: str, folder: Path) -> Path:
    """The wheel, without anything that it needs."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "-d", str(folder), f"sglang=={version}"]
    subprocess.run(command, check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def read_wheel(wheel: Path) -> dict[str, object]:
    """Name and digest of a wheel, its server's flags, the fields of a request, and variables that its source names."""
    trees, sources = [], []
    with zipfile.ZipFile(wheel) as archive:
        for name in sorted(archive.namelist()):
            if name.startswith(PACKAGE) and name.endswith(".py") and not name.startswith(LEFT_OUT):
                sources.append(archive.read(name).decode("utf-8"))
                trees.append(ast.parse(sources[-1]))
    functions = functions_of(trees)
    start = functions.get(("ServerArgs", "add_cli_args"))
    if start is None:
        raise SystemExit(f"{wheel.name}: has no ServerArgs.add_cli_args below {PACKAGE}")
    strings = {n.value for t in trees for n in ast.walk(t) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    return {
        "wheel": wheel.name,
        "sha256": hashlib.sha256(wheel.read_bytes()).hexdigest(),
        "component_paths": any("component_paths" in source for source in sources),
        "flags": sorted(set(flags_of(start, "ServerArgs", "", functions, set()))),
        "request": sorted(fields_of(trees, "ImageGenerationsRequest") | fields_read(trees)),
        "keeps_forced_masks": any(k.arg == POLICY for call in calls_of(trees, REFRESHES) for k in call.keywords),
        "environment": sorted(s for s in strings if s.startswith(VARIABLES) and s.replace("_", "").isalnum()),
    }


def fields_of(trees: list[ast.Module], name: str) -> set[str]:
    """The fields that a class declares."""
    classes = [node for tree in trees for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name]
    lines = [line for found in classes for line in found.body if isinstance(line, ast.AnnAssign)]
    return {ast.unparse(line.target) for line in lines}


def fields_read(trees: list[ast.Module]) -> set[str]:
    """The fields that the images endpoint (`async def generations`) reads of a request by their names."""
    endpoints = [n for tree in trees for n in tree.body if isinstance(n, ast.AsyncFunctionDef) and n.name == ENDPOINT]
    read = [call.args[1] for name in READS_A_FIELD for call in calls_of(endpoints, name) if len(call.args) > 1]
    return {arg.value for arg in read if isinstance(arg, ast.Constant) and isinstance(arg.value, str)}


def calls_of(nodes: Iterable[ast.AST], name: str) -> list[ast.Call]:
    """Every call of a function of that name."""
    every = (n for node in nodes for n in ast.walk(node) if isinstance(n, ast.Call))
    return [call for call in every if ast.unparse(call.func) == name]


def functions_of(trees: list[ast.Module]) -> Functions:
    """Every function by its class and name; of equals the first."""
    found: Functions = {}
    for tree in trees:
        for node in tree.body:
            if isinstance(node, ast.FunctionDef):
                found.setdefault(("", node.name), node)
            for method in node.body if isinstance(node, ast.ClassDef) else []:
                if isinstance(method, ast.FunctionDef):
                    found.setdefault((node.name, method.name), method)
    return found


def flags_of(
    function: ast.FunctionDef, owner: str, prefix: str, functions: Functions, seen: set[tuple[int, str]]
) -> Iterator[str]:
    """The flags that a function adds, with those of functions that it calls with a parser."""
    if (id(function), prefix) in seen:
        return
    seen.add((id(function), prefix))
    for call in (node for node in ast.walk(function) if isinstance(node, ast.Call)):
        name = ast.unparse(call.func)
        if name.endswith("add_argument"):
            yield from (flag for arg in call.args if (flag := spelled(arg, prefix)).startswith("--"))
        elif any(isinstance(arg, ast.Name) and arg.id == "parser" for arg in call.args):
            inner = next((spelled(k.value, prefix) for k in call.keywords if k.arg == "prefix"), None)
            further = [arg for arg in call.args[1:] if isinstance(arg, ast.Constant | ast.JoinedStr)]
            inner = inner if inner is not None else spelled(further[0], prefix) if further else ""
            for place, called in candidates(name, owner, functions):
                yield from flags_of(called, place, inner, functions, seen)


def candidates(name: str, owner: str, functions: Functions) -> Iterator[tuple[str, ast.FunctionDef]]:
    """What a call may mean: `Class.name` of that class or of one that it inherits from, or a function."""
    place, _, function = name.rpartition(".")
    place = {"cls": owner, "self": owner}.get(place, place)
    if (place, function) in functions:
        yield place, functions[place, function]
    elif place:  # inherited, or called through a name that is no class
        yield from ((o, node) for (o, f), node in functions.items() if f == function and f != "add_cli_args" and o)


def spelled(node: ast.expr, prefix: str) -> str:
    """A text of the source with the prefix put in; empty where it is none."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if not isinstance(node, ast.JoinedStr):
        return ""
    parts = []
    for part in node.values:
        if isinstance(part, ast.Constant):
            parts.append(str(part.value))
        elif isinstance(part, ast.FormattedValue):
            name = ast.unparse(part.value)
            parts.append({"prefix": prefix, "prefix_with_dot": f"{prefix}." if prefix else ""}.get(name, "?"))
    return "".join(parts)


if __name__ == "__main__":
    main()
