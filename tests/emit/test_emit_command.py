"""`zbench emit` and `zbench recommend --emit` from the command line: files, stdout, and errors of one line."""

import ast
import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from factories import TINY, complete, demo_records, trial

from zbench.cli import main
from zbench.config import DBCacheConfig
from zbench.record import Record
from zbench.store import RECORDS

ON_A_GPU = ["pipeline=zimage_turbo", "hardware=h100", "cache=dbcache", "cache.max_warmup_steps=2"]
EVERY = {"zbench.sh", "cache_dit.yaml", "generate.py", "NOTES.txt", "sglang.sh", "sglang.env", "docker-compose.yaml"}
EVERY |= {"request.json", "request.sh", "requests.jsonl", "check.sh", "load.sh"}


def written(folder: Path, records: list[Record]) -> str:
    folder.mkdir()
    (folder / RECORDS).write_text("".join(f"{record.to_json()}\n" for record in records))
    return str(folder)


def test_one_tool_goes_to_stdout_as_its_own_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["emit", *ON_A_GPU, "--to", "diffusers"]) == 0
    assert "max_warmup_steps=2" in capsys.readouterr().out
    assert main(["emit", "--to", "diffusers", *ON_A_GPU, 'workload.prompt=it\'s "a" ${cat}']) == 0
    program = ast.parse(capsys.readouterr().out)
    assert 'it\'s "a" ${cat}' in {node.value for node in ast.walk(program) if isinstance(node, ast.Constant)}
    assert main(["emit", *ON_A_GPU, "--to", "cache-dit"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["cache_config"]["max_warmup_steps"] == 2
    assert main(["emit", *ON_A_GPU, "--to", "zbench"]) == 0
    assert "\nzbench run hardware=h100 pipeline=zimage_turbo " in capsys.readouterr().out


def test_all_tools_go_to_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["emit", *ON_A_GPU, "--to", "all", "--out", str(tmp_path / "out")]) == 0
    paths = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert {path.name for path in paths} == EVERY and all(path.is_file() for path in paths)
    executable = {path.name for path in paths if path.stat().st_mode & 0o100}
    assert executable == {"zbench.sh", "sglang.sh", "request.sh", "check.sh", "load.sh"}
    notes = (tmp_path / "out" / "NOTES.txt").read_text()
    assert "nothing here was measured" in notes and "check it: zbench run pipeline=zimage_turbo " in notes


def test_json_has_files_notes_and_the_check(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["emit", *ON_A_GPU, "--to", "sglang", "--format", "json", "--sglang-version", "0.5.12"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert json.loads(data["files"]["request.json"])["num_inference_steps"] == 8
    assert " engine=sglang " in data["check"] and any("sglang 0.5.12 has no" in note for note in data["notes"])


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["cache=dbcache"], "--to"),
        (["--to", "vllm"], "invalid choice: 'vllm'"),
        (["--to", "all"], "--to all: writes files; add --out FOLDER"),
        (["--to", "zbench", "--sglang-version", "0.5.12"], "--sglang-version: has no place with --to zbench"),
        (["--to", "sglang", "--sglang-version", "9"], "--sglang-version=9: there are 0.5.12"),
        (["--to", "zbench", "cache=none,dbcache"], "cache=none,dbcache: one run takes one value"),
        (["--to", "zbench", "cache=dbcache", "cache.max_warmup=2"], "cache.max_warmup"),
        (["--to", "zbench", "cache=forced", "pipeline.steps=7"], "cache.scm_preset=medium"),
        (["--to", "zbench", "engine.target=nowhere:Engine"], "--allow-code"),
        (["--to", "zbench", "--out", "/dev/null/x"], "cannot write to /dev/null/x"),
    ],
)
def test_bad_words_are_one_line_and_exit_2(
    args: list[str], says: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["emit", "hardware=cpu", *args]) == 2
    out, err = capsys.readouterr()
    assert not out and says in err and err.count("\n") == 1


def test_a_recommendation_is_written_for_every_tool(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = written(tmp_path / "demo", demo_records())
    assert main(["recommend", run, "--min-ssim", "0.95", "--emit", str(tmp_path / "out")]) == 0
    out, err = capsys.readouterr()
    assert {path.name for path in (tmp_path / "out").iterdir()} == EVERY and err.count("wrote ") == len(EVERY)
    notes = (tmp_path / "out" / "NOTES.txt").read_text()
    for said in ("Binding: --min-ssim", "Runner-up: F1B0", "Evidence: trial ", "Not measured: requests at once"):
        assert said in out and said in notes
    assert "Measured: trial " in (tmp_path / "out" / "sglang.sh").read_text()
    assert "any of it on SGLang: the engine was reference" in out and "bench_serving" in out


def test_each_piece_of_work_has_a_folder(tmp_path: Path) -> None:
    larger = trial(pipeline=replace(TINY, height=512, width=512))
    run = written(tmp_path / "two", [complete(trial()), complete(larger, latency_s=4.0)])
    assert main(["recommend", run, "--emit", str(tmp_path / "out")]) == 0
    folders = sorted((tmp_path / "out").iterdir())
    assert len(folders) == 2 and all((folder / "generate.py").is_file() for folder in folders)
    heights = [side for f in folders for side in (256, 512) if f"height={side}" in (f / "generate.py").read_text()]
    assert sorted(heights) == [256, 512]


def test_a_version_without_files_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = written(tmp_path / "one", [complete(trial()), complete(trial(DBCacheConfig()), latency_s=0.7, ssim=0.97)])
    assert main(["recommend", run, "--sglang-version", "0.5.12"]) == 2
    assert "add --emit FOLDER" in capsys.readouterr().err
