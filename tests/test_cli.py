"""Every mistake a user can make is one clear line, exit code 2 and no traceback; nothing is lost by it."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import SYNTHETIC, environment, zbench
from factories import complete, demo_records, trial

from zbench import __version__
from zbench.analysis import view
from zbench.cli import COMMANDS, main
from zbench.cli.command import Command
from zbench.config import DBCacheConfig
from zbench.errors import Exit, OverrideError, StoreError
from zbench.hydra_app import planned
from zbench.record import Record
from zbench.store import RECORDS
from zbench.zimage.layout import preset_folder


def write_run(folder: Path, *lines: str) -> Path:
    folder.mkdir(parents=True)
    (folder / RECORDS).write_text("".join(f"{line}\n" for line in lines))
    return folder


def good_run(folder: Path) -> Path:
    baseline = trial()
    cached = trial(DBCacheConfig())
    return write_run(
        folder,
        complete(baseline).to_json(),
        complete(cached, latency_s=0.7, cached=(5, 6), ssim=0.97).to_json(),
    )


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"\n  {command} " in text for command in COMMANDS)


def test_every_text_of_help_says_the_same_of_a_command(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "300")  # argparse breaks words at hyphens
    main(["--help"])
    whole = " ".join(capfd.readouterr().out.split())
    for command in COMMANDS.values():
        assert f"{command.call} {command.summary}" in whole
        assert main([command.name, "--help"]) == 0
        own = " ".join(capfd.readouterr().out.split())
        assert own.startswith(f"usage: {command.usage} {command.description}"), own[:200]


def test_help_and_the_docs_name_every_command_and_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--help"])
    text = capsys.readouterr().out
    docs = Path(__file__).parent.parent
    readme, house = (docs / "README.md").read_text(), (docs / "docs" / "architecture.md").read_text()
    assert all(f"`zbench {command}" in readme for command in COMMANDS)
    for code in Exit:
        assert f" {code:d} {code.meaning}" in " ".join(text.split())
        assert f"\n| {code:d} | " in house
    assert max(map(len, text.splitlines())) <= 118


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"zbench {__version__}\n"


BAD_OVERRIDES = [
    (["pipeline.stepz=3"], "pipeline.stepz=3", "did you mean pipeline.steps?"),
    (["experiment=dmo"], "experiment=dmo", "no such choice; there are: alone, batches, caps"),
    (["sweep.name=../x"], "sweep.name=../x", "a folder's name"),
    (["search.n_trials=3"], "search.n_trials=3", "use search=random"),
    (["cache.max_warmup_steps=3"], "cache.max_warmup_steps=3", "these have: cache=dbcache"),
    (["cash=dbcache"], "cash=dbcache", "unknown key"),
    (["cache=dbcash"], "cache=dbcash", "no such choice; there are: custom, dbcache"),
    (["pipeline.steps=many"], "pipeline.steps=many", ""),
    (["pipeline.steps=0"], "pipeline.steps=0", "at least 1"),
    (["cache=dbcache", "cache.residual_diff_threshold=-0.1"], "cache.residual_diff_threshold=-0.1", "at least 0"),
    (["cache=dbcache", "cache.Fn_compute_blocks=99"], "cache.Fn_compute_blocks=99", "exceed the 10 blocks"),
    (["cache=dbcache", "cache.Fn_compute_blocks="], "cache.Fn_compute_blocks=", ""),
    (["pipeline.weights=/no/such/folder"], "/no/such/folder", "no such folder"),
    (["pipeline=zimage_turbo"], "pipeline.weights=auto", "pipeline.download=true"),
    (["offload=sequential"], "offload.mode=sequential", "needs an accelerator"),
    (["engine.target=nowhere:Engine", "measure=quick"], "", ""),
    (["hardware=b300", "execution=measure"], "hardware=b300", "found: no NVIDIA GPU"),
    (["measure.lpips_weights=/no/such"], "measure.lpips_weights=/no/such", "give a local path"),
    (["measure.clip_weights=/no/such"], "measure.clip_weights=/no/such", "give a local path"),
    (
        ["workload.prompts=[{id: a, text: b, scene: 'large red blob left; on white'}]"],
        "workload.prompts[0].scene",
        "'blob' is none of circle",
    ),
    (["compute.device=cuda"], "compute.device=cuda", "found: no NVIDIA GPU"),
    (["execution=perhaps"], "execution=perhaps", "auto, measure, project"),
    (["sweep.runs_dir=/proc/nowhere"], "/proc/nowhere", "sweep.runs_dir="),
    (["sweep.reports_dir=/proc/nowhere"], "/proc/nowhere", "sweep.reports_dir="),
    (["cache=none", "cache.method=dbcache"], "cache.method=dbcache", "use cache=<choice>"),
    (["--no-such-flag"], "--no-such-flag", "zbench "),
    (["--config-name", "other"], "--config-name", "--config-dir"),
]


@pytest.mark.parametrize(("overrides", "names", "way_out"), [b for b in BAD_OVERRIDES if b[1]])
@pytest.mark.parametrize("command", ["run", "sweep"])
def test_bad_overrides(
    command: str,
    overrides: list[str],
    names: str,
    way_out: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([command, *overrides]) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.strip().splitlines()
    assert line.startswith("zbench: error: ") and names in line and way_out in line
    assert captured.out == "" and not (tmp_path / "runs").exists()


def test_corrupt_weights_are_named_before_anything_starts(tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    shutil.copytree(preset_folder("zimage_tiny"), folder)
    broken = next(folder.glob("transformer/*.safetensors"))
    broken.write_bytes(broken.read_bytes()[:-100])
    done = zbench(tmp_path, "run", f"pipeline.weights={folder}")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert str(broken) in done.stderr and "safetensors" in done.stderr


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["not json", "{}"], "line 1: not JSON"),
        (['{"benchmarks": []}'], "not a zbench record"),
        (['{"schema_version": 99, "trial_id": "a"}'], "schema_version 99 cannot be upgraded"),
        ([], "holds no records"),
    ],
)
@pytest.mark.parametrize("command", ["report", "recommend", "export"])
def test_bad_record_files(
    command: str, lines: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "run", *lines)
    assert main([command, str(run)]) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.strip().splitlines()
    assert says in line and RECORDS in line and captured.out == ""


@pytest.mark.parametrize("command", ["report", "recommend", "export"])
def test_a_run_that_is_not_there_is_named_with_those_that_are(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    good_run(tmp_path / "runs" / "mine")
    assert main([command, "other"]) == 2
    assert "no run 'other'" in (err := capsys.readouterr().err) and "mine" in err


def test_an_unwritable_report_folder_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = good_run(tmp_path / "run")
    (tmp_path / "file").write_text("in the way")
    assert main(["report", str(run), "--out", str(tmp_path / "file" / "out")]) == 2
    assert str(tmp_path / "file" / "out") in capsys.readouterr().err
    assert main(["export", str(run), "--output", str(tmp_path / "file" / "x.csv")]) == 2
    assert "x.csv" in capsys.readouterr().err


def test_an_unknown_command_names_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["swep"]) == 2
    assert "no command 'swep'; there are: run, sweep" in capsys.readouterr().err


BAD_FLAGS = [
    (["report", "--badflag"], "--badflag: no such flag; zbench report --help"),
    (["report", "x", "--out=y", "--badflag=3"], "--badflag: no such flag; zbench report --help"),
    (["recommend", "--min-sim", "0.9", "x"], "--min-sim: no such flag; zbench recommend --help"),
    (["recommend", "--min-ssim", "much", "x"], "--min-ssim: invalid float value: 'much'; zbench recommend --help"),
    (["compare", "base", "-q", "new"], "-q: no such flag; zbench compare --help"),
    (["compare", "base", "new", "--metric"], "--metric: expected one argument; zbench compare --help"),
    (["compare", "base"], "required: NEW; zbench compare --help"),
    (["gate", "x"], "required: --baseline; zbench gate --help"),
    (["gate", "x", "--format", "xml"], "--format: invalid choice: 'xml' (choose from"),
    (["baseline"], "required: save, RUN, --name; zbench baseline --help"),
    (["baseline", "keep", "x", "--name", "y"], "save: invalid choice: 'keep' (choose from"),
    (["export", "--output-file", "x"], "--output-file: no such flag; zbench export --help"),
    (["doctor", "--nose"], "--nose: no such flag; zbench doctor --help"),
    (["doctor", "--noise", "--measure"], "--measure: not allowed with argument --noise; zbench doctor --help"),
    (["ab", "--c", "x"], "--c: no such flag; zbench ab --help"),
    (["plan", "--format", "xml"], "--format: invalid choice: 'xml' (choose from"),
    (["run", "--nosuch"], "--nosuch: no such flag; zbench run --help"),
]


@pytest.mark.parametrize(("args", "says"), BAD_FLAGS)
def test_a_bad_flag_is_one_line_that_names_it_and_the_way_out(
    args: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(args) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.strip().splitlines()
    assert line.startswith("zbench: error: ") and says in line and captured.out == ""


def test_values_that_begin_with_a_dash_are_values(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = good_run(tmp_path / "run")
    assert main(["recommend", str(run), "--min-ssim", "-1"]) == 0
    assert main(["compare", str(run), "--format", "json", str(run)]) == 3  # flags may stand between the runs
    assert "findings" in capsys.readouterr().out


def test_formats_and_flags_may_stand_anywhere(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--format", "json", "cache=dbcache"]) == 0
    first = capsys.readouterr().out
    assert main(["plan", "cache=dbcache", "--format=json"]) == 0
    assert capsys.readouterr().out == first
    plan = json.loads(first)
    assert plan["trials"][0]["role"] == "reference, baseline" and plan["expected_sweep_s"] > 0


def test_a_plan_shows_what_is_pruned_and_why(capsys: pytest.CaptureFixture[str]) -> None:
    args = ["hardware=b300", "parallel=tp", "parallel.tp_size=2,4", "--format", "json"]
    assert main(["plan", *args]) == 0
    rows = json.loads(capsys.readouterr().out)["trials"]
    assert [row["role"] for row in rows] == ["reference, baseline", "projected", "pruned"]
    assert "30 heads are not divisible by 4" in rows[-1]["reason"]
    assert all(row["expected_latency_s"] > 0 and row["expected_peak_bytes"] > 0 for row in rows[:2])


SMALL = ["pipeline=zimage_tiny", "hardware=cpu", "workload=single"]


def test_words_after_a_flag_count_like_those_before_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = set()
    for words in (
        [*SMALL, "--config-dir", str(tmp_path), "cache=dbcache"],
        ["--config-dir", str(tmp_path), "cache=dbcache", *SMALL],
        ["cache=dbcache", "--config-dir", str(tmp_path), *SMALL],
    ):
        assert main(["plan", *words, "--format", "json"]) == 0
        names.add(json.loads(capsys.readouterr().out)["sweep"])
    assert len(names) == 1
    assert main(["plan", "cache=dbcache", "--config-dir", str(tmp_path), *SMALL, "pipeline.steps=abc"]) == 2
    assert "pipeline.steps=abc" in capsys.readouterr().err


def test_the_command_to_go_on_is_one_line_that_a_shell_reads_back() -> None:
    prompts = 'workload.prompts=[{id: a, text: "red\n# rm -rf /"}]'
    made = planned([*SMALL, prompts], "sweep")
    assert made is not None and made.command.isprintable()
    done = subprocess.run(["bash", "-c", f"printf '%s\\0' {made.command}"], capture_output=True, text=True, check=True)
    assert done.stdout.split("\0")[:-1] == ["zbench", "sweep", *SMALL, prompts]


def test_experiments_that_measure_in_different_ways_make_no_sweep(capsys: pytest.CaptureFixture[str]) -> None:
    said = set()
    for names in ("masks,models", "models,masks"):
        assert main(["plan", f"experiment={names}", "hardware=h100"]) == 2
        said.add(capsys.readouterr().err)
    assert len(said) == 1 and "measure.max_warmup_rounds: 1 and 3 are asked for" in said.pop()


def test_typed_text_is_never_read_as_another(capsys: pytest.CaptureFixture[str]) -> None:
    for word in ("sweep.name=1.10", "pipeline.weights=1_0", "workload.prompts.0.text=TRUE", "pipeline.vae_tiling=2"):
        assert main(["plan", *SMALL, word]) == 2
        assert word in capsys.readouterr().err
    for word in ("sweep.name=110", "sweep.name='1.10'", "pipeline.vae_tiling=true"):
        assert main(["plan", *SMALL, word]) == 0


def test_how_a_sweep_is_measured_is_no_axis(capsys: pytest.CaptureFixture[str]) -> None:
    for override in ("measure.budget_s=1,2", "measure=quick,default", "sweep.name=a,b", "search=grid,random"):
        assert main(["plan", override]) == 2
        assert f"{override}: one value only" in capsys.readouterr().err


def test_a_broken_config_of_the_users_own_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for group, text in (("cache", "a: ["), ("hardware", "- a list")):
        folder = tmp_path / group / group
        folder.mkdir(parents=True)
        (folder / "bad.yaml").write_text(text)
        assert main(["plan", "--config-dir", str(tmp_path / group), f"{group}=bad"]) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert f"{group}/bad" in line


def test_an_empty_sweep_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "cache=dbcache", "cache.max_warmup_steps="]) == 2
    assert main(["plan", "hardware=b300", "parallel=tp", "parallel.tp_size=4"]) == 2
    assert "an empty sweep" in capsys.readouterr().err


def test_cfg_job_shows_what_runs(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "--cfg", "job", "cache=dbcache", "cache.max_warmup_steps=3,2"]) == 0
    shown = capfd.readouterr()
    assert "max_warmup_steps: 3" in shown.out and "name: zimage_tiny" in shown.out
    assert "showing the first of" in shown.err


def test_info_and_help_are_hydras(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--info", "searchpath"]) == 0
    assert "main" in capfd.readouterr().out
    assert main(["run", "--info"]) == 0
    assert "Installed Hydra Plugins" in capfd.readouterr().out
    assert main(["sweep", "--help"]) == 0
    assert "cache: custom, dbcache, dbcache_aggressive, forced, none, scm, taylorseer" in capfd.readouterr().out


def test_a_fault_of_zbench_itself_is_seventy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(command: Command, args: list[str]) -> int:
        raise RuntimeError("a bug")

    monkeypatch.setitem(COMMANDS, "doctor", COMMANDS["doctor"]._replace(function=broken))
    assert main(["doctor"]) == 70
    assert "a fault of zbench" in capsys.readouterr().err


def test_recommend_and_export_read_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = good_run(tmp_path / "run")
    assert main(["recommend", str(run), "--min-ssim", "0.9"]) == 0
    assert "F1B0_W4_MC3_R0.24" in capsys.readouterr().out
    assert main(["recommend", str(run), "--min-ssim", "0.9999999"]) == 0
    assert main(["export", str(run), "--format", "csv"]) == 0
    assert "F1B0_W4_MC3_R0.24" in capsys.readouterr().out


def completions(line: str, folder: Path) -> set[str]:
    """What bash offers after `line`, by way of the script that `zbench --shell-completion install=bash` prints."""
    bin_folder = folder / "bin"
    bin_folder.mkdir(exist_ok=True)
    launcher = bin_folder / "zbench"
    launcher.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m zbench "$@"\n')
    launcher.chmod(0o755)
    words = line.split()
    index = len(words) if line.endswith(" ") else len(words) - 1
    script = f"""
    eval "$(zbench --shell-completion install=bash)"
    COMP_LINE='{line}'; COMP_POINT=${{#COMP_LINE}}; COMP_WORDS=({line}); COMP_CWORD={index}
    $(complete -p zbench | sed -E 's/.*-F ([^ ]+) .*/\\1/')
    printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    env = environment() | {"PATH": f"{bin_folder}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", script], env=env, cwd=folder, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_figures_of_a_trial_are_derived_once_for_table_page_and_csv(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = tmp_path / "records.jsonl"
    journal.write_text("".join(record.to_json() + "\n" for record in demo_records()), encoding="utf-8")
    derived: list[str] = []
    once = view.figures_of

    def counted(record: Record, *others: Any) -> Any:
        derived.append(record.trial_id)
        return once(record, *others)

    monkeypatch.setattr(view, "figures_of", counted)
    assert main(["report", str(journal), "--out", str(tmp_path / "out")]) == 0
    assert sorted(derived) == sorted(record.trial_id for record in demo_records())
    assert (tmp_path / "out" / "summary.csv").is_file() and "speed-up" in capsys.readouterr().out


def test_completion_works_in_bash(tmp_path: Path) -> None:
    assert {"run", "sweep", "plan", "report"} <= completions("zbench ", tmp_path)
    assert completions("zbench swe", tmp_path) == {"sweep"}
    offered = completions("zbench sweep ", tmp_path)
    assert {"cache=", "hardware="} <= offered
    assert {"cache=dbcache", "cache=scm"} <= completions("zbench sweep cache=", tmp_path)
    assert {"hardware=b300"} == completions("zbench sweep cache=dbcache hardware=b3", tmp_path)


def test_a_users_own_config_dir_is_used(tmp_path: Path) -> None:
    done = zbench(tmp_path, "plan", *SYNTHETIC, "cache=dbcache", "--format", "csv")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("measured") == 6


def test_two_journals_of_one_sweep_name_are_not_mixed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = good_run(tmp_path / "first"), good_run(tmp_path / "second")
    assert main(["report", str(first), str(second), "--out", str(tmp_path / "report")]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert str(first) in line and str(second) in line and "sweep.name=" in line
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize("kind", [OverrideError, AttributeError])
def test_what_a_library_makes_of_ctrl_c_is_an_interruption_all_the_same(
    kind: type[Exception], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A signal comes at any instruction: a `finally` of OmegaConf's that it finds half way fails with an error of its
    own, which was exit 2 and "scenes.yaml is not YAML". Only what a disk would not take is more than that."""

    def interrupted(error: type[Exception]) -> Callable[[Command, list[str]], int]:
        def function(command: Command, args: list[str]) -> int:
            try:
                try:
                    raise KeyboardInterrupt
                finally:
                    None._invalidate_flags_cache()  # type: ignore[attr-defined]
            except AttributeError as fault:
                raise error("scenes.yaml is not YAML") from fault

        return function

    def answer(error: type[Exception]) -> tuple[int, str]:
        monkeypatch.setitem(COMMANDS, "plan", COMMANDS["plan"]._replace(function=interrupted(error)))
        return main(["plan"]), capsys.readouterr().err

    assert answer(kind) == (Exit.INTERRUPTED, "zbench: interrupted\n")
    assert answer(StoreError)[0] == Exit.BAD_INPUT
