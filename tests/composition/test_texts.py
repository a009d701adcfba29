"""Config files that users wrote: UTF-8 with or without a mark and any line ends read alike, all else is one line."""

from pathlib import Path

import pytest
from composing import jobs

from zbench.composition import profile_patterns
from zbench.errors import ZbenchError

WORKLOAD = """\
defaults:
  - /schema/workload@_here_: workload
  - _self_
name: mine
prompts:
  - {id: zh, text: 左边有一个圆形}
"""
FEW_STEPS = "# @package _global_\ncompute: {compile: true}\npipeline: {steps: 4}\n"


def written(folder: Path, path: str, data: bytes) -> str:
    """A folder for `--config-dir` with one file."""
    (folder / path).parent.mkdir(parents=True)
    (folder / path).write_bytes(data)
    return str(folder)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_marks_and_line_ends_do_not_matter(encoding: str, line_end: str, tmp_path: Path) -> None:
    folder = written(tmp_path / "a", "workload/mine.yaml", WORKLOAD.replace("\n", line_end).encode(encoding))
    (job,) = jobs("workload=mine", config_dir=folder).jobs
    assert job.config.workload.prompts[0].text == "左边有一个圆形"
    folder = written(tmp_path / "b", "compute/few.yaml", FEW_STEPS.replace("\n", line_end).encode(encoding))
    (job,) = jobs("compute=few", config_dir=folder).jobs
    assert (job.config.compute.compile, job.config.pipeline.steps) == (True, 4), "its package is read behind the mark"


BAD = [
    (WORKLOAD.encode("utf-16"), "is not UTF-8 but UTF-16; save it as UTF-8"),
    (WORKLOAD.encode("utf-16-be"), "is not UTF-8 but UTF-16 or no text at all; save it as UTF-8"),
    (WORKLOAD.encode("utf-32"), "save it as UTF-8"),
    (WORKLOAD.encode("gb18030"), "line 6: is not UTF-8; save it as UTF-8"),
    ("name: Käse\n".encode("latin-1"), "line 1: is not UTF-8; save it as UTF-8"),
    (b"name: [\n", "is not YAML"),
    (b"name: a\n\tseeds: [0]\n", "is not YAML"),
    (b"name: a\nname: b\n", "duplicate key name"),
    (b"- a\n- b\n", "must map keys to values, and is a list"),
    (b"name: \x07\n", "is not YAML"),
    (b"[" * 5000, "is not YAML"),
]


@pytest.mark.parametrize(("data", "says"), BAD)
@pytest.mark.parametrize("group", ["workload", "hardware"])
def test_what_is_no_config_is_one_line_that_names_the_file(data: bytes, says: str, group: str, tmp_path: Path) -> None:
    folder = written(tmp_path, f"{group}/mine.yaml", data)
    with pytest.raises(ZbenchError) as raised:
        jobs(f"{group}=mine", config_dir=folder)
    assert says in str(raised.value) and f"{group}/mine.yaml" in str(raised.value) and "\n" not in str(raised.value)


def test_a_profile_of_the_users_own_is_read_alike(tmp_path: Path) -> None:
    folder = written(tmp_path, "hardware/mine.yaml", "nvml_name: 'My Card'\r\n".encode("utf-8-sig"))
    assert profile_patterns(folder)["mine"] == "My Card"
    (tmp_path / "hardware" / "mine.yaml").write_bytes("nvml_name: x".encode("utf-16"))
    with pytest.raises(ZbenchError, match=r"hardware/mine\.yaml: is not UTF-8 but UTF-16"):
        profile_patterns(folder)


def test_a_folder_in_a_files_place_is_no_choice(tmp_path: Path) -> None:
    (tmp_path / "workload" / "mine.yaml").mkdir(parents=True)
    with pytest.raises(ZbenchError, match="mine"):
        jobs("workload=mine", config_dir=str(tmp_path))


def test_a_config_dir_may_have_any_name(tmp_path: Path) -> None:
    folder = written(tmp_path / "it's, [mine] ${x} 配置", "workload/mine.yaml", WORKLOAD.encode())
    (job,) = jobs("workload=mine", config_dir=folder).jobs
    assert job.config.workload.name == "mine"
