"""The house stands: a module imports only from rooms above its own, and the parent process stays light."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "zbench"

# docs/architecture.md shows the same order.
ROOMS = (
    "errors",
    "sanitize",
    "streams",
    "files",
    "stats",
    "zimage",
    "decode",
    "config",
    "plugins",
    "composition",
    "methods",
    "trial",
    "carried",
    "workload",
    "measurement",
    "environment",
    "record",
    "store",
    "stored",
    "analysis",
    "hardware",
    "space",
    "search",
    "probes",
    "quality",
    "engines",
    "worker",
    "executors",
    "sweeper",
    "report",
    "gate",
    "emit",
    "recommend",
    "export",
    "ab",
    "serving",
    "hydra_app",
    "cli",
)
STANDS_ALONE = ("stats", "zimage")


def room(path: Path) -> str:
    name = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return "cli" if name == "__main__" else name


def modules() -> list[Path]:
    return sorted(p for p in PACKAGE.rglob("*.py") if p != PACKAGE / "__init__.py")


def imported_rooms(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names = [node.module or ""]
            if node.module == "zbench":
                names = [f"zbench.{alias.name}" for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("zbench.")}
    return found - {"__version__"}


def test_every_module_has_a_room() -> None:
    assert {room(path) for path in modules()} == set(ROOMS)


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_module_imports_only_from_rooms_above_it(path: Path) -> None:
    own = room(path)
    for other in imported_rooms(path) - {own}:
        assert ROOMS.index(other) < ROOMS.index(own), f"{own} imports {other}"
        assert own not in STANDS_ALONE, f"{own} imports {other}"


def test_no_module_of_tune_imports_what_imports_it_not_even_for_a_type_or_in_a_function() -> None:
    """Each decision knows what it decides with, and that knows no decision."""
    found: dict[str, set[str]] = {}
    for path in sorted((PACKAGE / "search" / "tune").glob("*.py")):
        nodes = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom))
        named = (node.module or "" for node in nodes)
        found[path.stem] = {name.split(".")[3] for name in named if name.startswith("zbench.search.tune.")}
    assert found["order"] and tuple(TopologicalSorter(found).static_order())[-1] == "search"


def definitions(kind: type[ast.AST]) -> list[tuple[Path, ast.AST]]:
    return [
        (path, node) for path in modules() for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, kind)
    ]


def test_no_two_classes_share_a_name() -> None:
    """One word for one thing; an alias of a type counts as its class."""
    places: dict[str, list[str]] = {}
    for path, node in definitions(ast.ClassDef):
        places.setdefault(node.name, []).append(str(path.relative_to(PACKAGE)))
    for path in modules():
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.AnnAssign) and ast.unparse(node.annotation) == "TypeAlias":
                places.setdefault(ast.unparse(node.target), []).append(str(path.relative_to(PACKAGE)))
    shared = {name: found for name, found in places.items() if len(set(found)) > 1}
    assert not shared


def test_no_file_is_above_450_lines_and_no_function_above_60() -> None:
    files = {str(p.relative_to(PACKAGE)): len(p.read_text().splitlines()) for p in modules()}
    assert not {name: lines for name, lines in files.items() if lines > 450}
    functions = {
        f"{path.relative_to(PACKAGE)}: {node.name}": node.end_lineno - node.lineno + 1
        for path, node in definitions(ast.FunctionDef)
    }
    assert not {name: lines for name, lines in functions.items() if lines > 60}


def test_docs_show_the_same_order() -> None:
    text = (PACKAGE.parent / "docs" / "architecture.md").read_text()
    places = [text.index(f"| `{name}") for name in ROOMS]
    assert places == sorted(places)


@pytest.mark.parametrize("argv", [["--help"], ["plan", "cache=dbcache"], ["doctor"], ["sweep", "--cfg", "job"]])
def test_the_parent_process_imports_no_torch(argv: list[str]) -> None:
    code = (
        "import sys; from zbench.cli import main; code = main(sys.argv[1:]);"
        "assert code == 0, code; assert 'torch' not in sys.modules and 'diffusers' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code, *argv], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_help_imports_neither_hydra_nor_pandas() -> None:
    """`--help` is to answer at once: it takes milliseconds because it imports next to nothing."""
    code = "import sys; from zbench.cli import main; main(['--help']); print(sorted(sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for heavy in ("argparse", "dataclasses", "hydra", "omegaconf", "pandas", "numpy", "rich", "matplotlib", "torch"):
        assert f"'{heavy}'" not in done.stderr
