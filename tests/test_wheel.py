"""A built wheel is all a user needs: configs and weights ship inside, and it works from any directory."""

import ast
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from zbench.cli.serving import NEEDED

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built as `pip wheel .` would, with the build backend that is installed."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def zbench(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The console script of the wheel in a venv without zbench; its dependencies are borrowed from this one."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder)
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python")]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--no-index", str(wheel)], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin" / "zbench"


def test_configs_and_weights_are_in_the_wheel(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for path in (ROOT / "conf").rglob("*.yaml"):
        assert f"zbench/conf/{path.relative_to(ROOT / 'conf')}" in names
    assert any(name.startswith("zbench/zimage/presets/zimage_tiny/transformer/") for name in names)
    assert "zbench/report/page/template.html.j2" in names and "zbench/hardware/published.yaml" in names
    assert not [name for name in names if name.startswith(("tests/", "runs/", "reports/"))]


def test_the_extra_serve_brings_what_serving_needs_and_dev_brings_it_too(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
    lines = archive.read(name).decode().splitlines()
    wanted = [line.removeprefix("Requires-Dist: ") for line in lines if line.startswith("Requires-Dist: ")]
    for extra in ("serve", "dev"):
        brought = {line.partition(">")[0].replace("-", "_") for line in wanted if f"extra == '{extra}'" in line}
        assert set(NEEDED) <= brought, f"zbench[{extra}]"


def test_the_trainer_stays_in_the_checkout(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    modules = [name for name in archive.namelist() if name.endswith(".py")]
    assert "zbench/zimage/evaluate.py" in modules and (ROOT / "zbench" / "zimage" / "train" / "__main__.py").is_file()
    assert not [name for name in archive.namelist() if "/train/" in name]
    for name in modules:
        for node in ast.walk(ast.parse(archive.read(name))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                parent = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
                imported = [f"{parent}{alias.name}" for alias in node.names]
                assert not [i for i in imported if i.startswith("zbench.zimage.train")], name


def test_the_installed_command_plans_and_runs_from_any_directory(zbench: Path, tmp_path: Path) -> None:
    alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    where = "import zbench; print(zbench.__file__)"
    place = subprocess.run(
        [zbench.parent / "python", "-c", where], cwd=tmp_path, env=alone, capture_output=True, text=True
    )
    assert str(zbench.parent.parent) in place.stdout, "the wheel's own zbench must be the one that runs"
    for args in (["--help"], ["plan", "cache=dbcache"], ["run", "workload=single", "measure=quick"]):
        done = subprocess.run([zbench, *args], cwd=tmp_path, env=alone, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert list(tmp_path.glob("runs/run-*/records.jsonl")) and list(tmp_path.glob("reports/run-*/report.html"))
