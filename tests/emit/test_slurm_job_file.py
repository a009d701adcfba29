"""`zbench emit … --to slurm`: a job file that runs the sweep, in which nothing that was typed is a command."""

import json
import shlex
import subprocess
from pathlib import Path

import pytest

from zbench.cli import main

SWEEP = ["cache=none,dbcache", "cache.max_warmup_steps=2,4", "pipeline=zimage_tiny", "hardware=cpu"]
ASKED = ["executor=slurm", "executor.partition=h100", "executor.time_min=30", "executor.gpu_type=h100"]


def job_file(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["emit", *words, "--to", "slurm"]) == 0
    return capsys.readouterr().out


def options_in(text: str) -> dict[str, str]:
    """As sbatch reads them: the lines that begin so before the first command."""
    lines = [line.removeprefix("#SBATCH --") for line in text.splitlines() if line.startswith("#SBATCH --")]
    words = (" ".join(shlex.split(line)).partition("=") for line in lines)
    return {name: value for name, _, value in words}


def words_run_by(text: str, folder: Path) -> list[str]:
    """What bash makes of the file, where a program that prints its words takes zbench's place."""
    stand_in = folder / "zbench"
    stand_in.write_text('#!/bin/bash\nprintf "%s\\0" "$@"\n')
    stand_in.chmod(0o755)
    done = subprocess.run(
        ["bash", "-c", text], cwd=folder, env={"PATH": f"{folder}:/usr/bin:/bin"}, capture_output=True, check=True
    )
    assert not done.stderr
    return done.stdout.decode().split("\0")[:-1]


def test_the_executor_asks_for_the_job_and_the_rest_is_the_sweep(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = job_file(
        capsys, *SWEEP, *ASKED, "executor.options={constraint: 'a&b', exclusive: true, nice: 5}", "executor.ahead_s=120"
    )
    options = options_in(text)
    assert {"partition": "h100", "time": "30", "constraint": "a&b"}.items() <= options.items()
    assert options["signal"] == "B:INT@120" and (options["exclusive"], options["nice"]) == ("", "5")
    assert words_run_by(text, tmp_path) == ["sweep", *SWEEP, "executor=local"]


def test_who_waits_for_nobody_does_so_in_the_job_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = words_run_by(job_file(capsys, *SWEEP, *ASKED, "executor.share_device=true"), tmp_path)
    assert words[-2:] == ["executor=local", "executor.share_device=true"]


def test_without_a_word_of_slurm_it_asks_for_the_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    options = options_in(job_file(capsys, *SWEEP))
    assert options["time"] == "60" and not {"partition", "gpus-per-node"} & options.keys()


def test_it_has_the_gpus_of_the_trial_with_most_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["pipeline=zimage_turbo", "hardware=h100", "parallel=ulysses", "parallel.ulysses_size=2,4", *ASKED]
    assert options_in(job_file(capsys, *words))["gpus-per-node"] == "h100:4"


def test_which_gpu_it_is_the_job_itself_finds_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = job_file(capsys, "cache=dbcache", "executor=slurm")
    assert options_in(text)["gpus-per-node"] == "1"
    assert words_run_by(text, tmp_path) == ["sweep", "cache=dbcache", "executor=local"]


def test_nothing_that_was_typed_is_a_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wild = "workload.prompt=it's $(touch done) `touch done` \"; touch done; #SBATCH --wrap=touch\n##[error] 猫"
    text = job_file(capsys, *SWEEP, "workload=single", wild)
    assert words_run_by(text, tmp_path)[5:-1] == ["workload=single", wild]
    assert not (tmp_path / "done").exists() and "wrap" not in options_in(text)
    assert not [line for line in text.splitlines() if line.startswith(("##[", "touch"))]


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("executor.partition='a\nid'", "executor.partition='a\\nid': must be text of one line"),
        ("executor.options={exclude: 'n1\nid'}", "executor.options.exclude='n1\\nid': must be text of one line"),
        ("executor.options={Exclude: n1}", "executor.options='Exclude': is no option of sbatch"),
        ("executor.options={time: 5}", "executor.options.time='5': set executor.time_min instead"),
        ("executor.options={exclusive: false}", "executor.options.exclusive='False': must be a text or a number"),
        ("executor.options={wrap: id}", "executor.options.wrap='id': zbench decides that itself"),
        ("executor.mode=array", "executor.mode=array: must be one of resident, job_per_task"),
        ("executor.time_min=1 executor.ahead_s=60", "executor.ahead_s=60: must be less than executor.time_min=1"),
        ("executor=local", "--to slurm: executor=local asks for no job of Slurm"),
        ("cache.max_warmup=2", "cache.max_warmup"),
    ],
)
def test_what_no_job_can_be_asked_for_is_one_line(word: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = word.split(" ") if word.startswith("executor.time") else [word]
    chosen = [] if word == "executor=local" else ["executor=slurm"]
    assert main(["emit", *SWEEP, *chosen, *words, "--to", "slurm"]) == 2
    out, err = capsys.readouterr()
    assert not out and says in err and err.count("\n") == 1


def test_files_and_json_are_as_of_other_tools(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["emit", *SWEEP, *ASKED, "executor.concurrent_trials=4", "--to", "slurm", "--out", str(tmp_path)]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["NOTES.txt", "slurm.sh"]
    assert (tmp_path / "slurm.sh").stat().st_mode & 0o100
    notes = (tmp_path / "NOTES.txt").read_text()
    assert "check it: sbatch --test-only slurm.sh" in notes and "executor.concurrent_trials=4 is left out" in notes
    capsys.readouterr()
    assert main(["emit", *SWEEP, "--to", "slurm", "--format", "json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["tool"] == "slurm" and list(data["files"]) == ["slurm.sh"]
