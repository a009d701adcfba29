"""The table of SGLang's flags is what its generator reads from a wheel's source, without importing any of it."""

import importlib.util
import json
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

from zbench.engines.sglang.versions import NEWEST, TABLE, accepted, known_versions

GENERATOR = Path(__file__).parents[2] / "benchmarks" / "sglang_flags.py"
BASE = """
raise SystemExit("nobody may import this")
class PipelineConfig:
    @staticmethod
    def add_cli_args(parser, prefix=""):
        prefix_with_dot = f"{prefix}." if prefix.strip() else ""
        parser.add_argument(f"--{prefix_with_dot}vae-tiling", action=StoreBoolean)
        VAEConfig.add_cli_args(parser, prefix=f"{prefix_with_dot}vae-config")
class VAEConfig:
    @staticmethod
    def add_cli_args(parser, prefix="vae"):
        parser.add_argument(f"--{prefix}.use-tiling", action=StoreBoolean)
class SamplingParams:
    @staticmethod
    def add_cli_args(parser):
        parser.add_argument("--seed", type=int)
class ImageGenerationsRequest(BaseModel):
    prompt: str
    n: int = 1
async def generations(request):
    build(steps=request_extra_value(request, "late"), seed=other(request, "not_a_field"))
"""
SERVER = """
import os
class Mixin:
    @staticmethod
    def add_role_cli_args(parser):
        parser.add_argument("--role", type=str)
class ServerArgs(Mixin):
    @staticmethod
    def add_cli_args(parser):
        parser.add_argument("--model-path", type=str)
        parser.add_argument("--data-parallel-size", "--dp-size", "--dp", "-d", type=int)
        ServerArgs.add_role_cli_args(parser)
        add_more(parser)
        PipelineConfig.add_cli_args(parser)
        return parser
def add_more(parser):
    parser.add_argument("--more", action="store_true", help="see --not-a-flag")
component_paths = os.environ.get("SGLANG_CACHE_DIT_FN")
class Stage:
    def forward(self):
        refresh_context_on_transformer(self.transformer, 9, steps_computation_policy=self.policy)
"""


@pytest.fixture
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sglang_flags_generator", GENERATOR)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def fake_wheel(folder: Path) -> Path:
    path = folder / "sglang-9.9-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("sglang/multimodal_gen/configs/base.py", BASE)
        wheel.writestr("sglang/multimodal_gen/runtime/server_args.py", SERVER)
        wheel.writestr("sglang/multimodal_gen/test/x.py", "class ServerArgs:\n  def add_cli_args(parser): pass")
    return path


def test_every_flag_that_the_parser_gets_is_found_and_no_other(generator: ModuleType, tmp_path: Path) -> None:
    read = generator.read_wheel(fake_wheel(tmp_path))
    flags = {"--model-path", "--data-parallel-size", "--dp-size", "--dp", "--role", "--more", "--vae-tiling"}
    assert set(read["flags"]) == flags | {"--vae-config.use-tiling"}
    assert read["request"] == ["late", "n", "prompt"] and read["environment"] == ["SGLANG_CACHE_DIT_FN"]
    assert read["keeps_forced_masks"] is True and read["component_paths"] is True and len(read["sha256"]) == 64


def test_the_command_writes_a_table_of_the_wheels_in_a_folder(
    generator: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_wheel(tmp_path)
    monkeypatch.setattr(sys, "argv", ["x", "9.9", "--wheels", str(tmp_path), "--out", str(tmp_path / "t.json")])
    generator.main()
    assert json.loads((tmp_path / "t.json").read_text())["9.9"]["wheel"] == "sglang-9.9-py3-none-any.whl"


def test_the_committed_table_holds_four_versions_with_what_tells_them_apart() -> None:
    """Read by hand from the three wheels' sources; flags and the absence of flags alike."""
    assert known_versions() == ["0.5.12", "0.5.15.post1", "0.5.19", "0.5.23"] and NEWEST == "0.5.23"
    has = {version: accepted(version).takes for version in known_versions()}
    for flag, versions in {
        "--strict-ports": known_versions(),
        "--vae-path": known_versions(),
        "--warmup": ["0.5.12", "0.5.15.post1"],
        "--warmup-mode": ["0.5.15.post1", "0.5.19", "0.5.23"],
        "--regional-compile": ["0.5.19", "0.5.23"],
        "--kv-gather-degree": ["0.5.19", "0.5.23"],
        "--enable-breakable-cuda-graph": ["0.5.19", "0.5.23"],
        "--no-such-flag": [],
    }.items():
        assert [version for version, takes in has.items() if takes(flag)] == versions, flag
    takes = {version: accepted(version).request or () for version in known_versions()}
    assert [version for version, fields in takes.items() if "enable_cache_dit" in fields] == ["0.5.19", "0.5.23"]
    assert [version for version, fields in takes.items() if "perf_dump_path" in fields] == known_versions()
    assert not any("cfg_normalization" in fields for fields in takes.values())
    assert [version for version in known_versions() if accepted(version).keeps_forced_masks] == ["0.5.23"]
    table = json.loads(TABLE.read_text())
    assert all(row["wheel"].startswith(f"sglang-{version}-") for version, row in table.items())
    assert not any("?" in flag for row in table.values() for flag in row["flags"])
