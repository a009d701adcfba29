"""What is written for SGLang survives shells, YAML and compose, and leaves out what a version lacks, saying so."""

import json
import os
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from factories import TURBO, trial, turbo
from hostile import HOSTILE, commands_to_ci, unseen

from zbench.composition import expand
from zbench.config import (
    ComputeConfig,
    CustomCacheConfig,
    DBCacheConfig,
    HardwareConfig,
    ParallelConfig,
    Prompt,
    SCMConfig,
    ServedEngineConfig,
    WorkloadConfig,
)
from zbench.emit import emit, write
from zbench.engines.sglang import SGLangEngine
from zbench.engines.sglang.launch import sglang_launch
from zbench.engines.sglang.versions import accepted, fitted, flags_in_help, known_versions
from zbench.errors import ConfigError, ZbenchError
from zbench.methods.cache import method_of
from zbench.trial import Trial

CACHED = turbo(DBCacheConfig(max_warmup_steps=2), compute=ComputeConfig(device="cuda"))
COMPILED = replace(CACHED, compute=ComputeConfig(device="cuda", compile=True))


PARAMETERS = method_of(CACHED.cache).parameters
HARDWARE = HardwareConfig(name="h100", title="H100", datasheet="x")


def unquoted(word: str) -> str:
    """An override without Hydra's own quotes."""
    key, _, value = word.partition("=")
    return f"{key}={value[1:-1]}".replace("\\'", "'").replace("\\\\", "\\") if value.startswith("'") else word


def files(of: Trial, version: str | None = None) -> dict[str, str]:
    return {file.name: file.text for file in emit(of, "sglang", sglang_version=version).files}


def service(of: Trial, version: str | None = None) -> dict[str, object]:
    return yaml.safe_load(files(of, version)["docker-compose.yaml"])["services"]["sglang"]


def run_with_fakes(script: Path, folder: Path) -> list[list[str]]:
    """Run a script where `sglang`, `curl` and `python3` print their arguments; each call's words."""
    for name in ("sglang", "curl", "python3", "zbench"):
        fake = folder / "bin" / name
        fake.parent.mkdir(exist_ok=True)
        fake.write_text("#!/bin/bash\nprintf '%s\\0' " + name + ' "$@"; printf "\\n\\0"\n')
        fake.chmod(0o755)
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run([script], env={**os.environ, "PATH": path}, capture_output=True, check=True)
    return [call.split("\0")[:-1] for call in done.stdout.decode().split("\n\0") if call]


def test_scripts_give_their_programs_the_very_words(tmp_path: Path) -> None:
    """Whatever the user's texts hold: a shell runs the scripts, and their programs alone are called."""
    pipeline = replace(TURBO, weights=f"/w/{HOSTILE.replace(chr(0), '')}")
    workload = WorkloadConfig(name="w", prompts=[Prompt("a", HOSTILE.replace("\0", ""))], seeds=[4])
    hostile = trial(pipeline=pipeline, workload=workload, compute=ComputeConfig(device="cuda"))
    write([emit(hostile, "sglang")], tmp_path)
    launch = sglang_launch(hostile)
    assert run_with_fakes(tmp_path / "sglang.sh", tmp_path) == [list(launch.arguments)]
    (asked,) = run_with_fakes(tmp_path / "request.sh", tmp_path)
    assert json.loads(asked[-1]) == {**launch.request, "enable_cache_dit": False}
    (checked,) = run_with_fakes(tmp_path / "check.sh", tmp_path)
    assert checked[:2] == ["zbench", "run"] and f"pipeline.weights={pipeline.weights}" in map(unquoted, checked)
    (loaded,) = run_with_fakes(tmp_path / "load.sh", tmp_path)
    assert loaded[0] == "python3" and loaded[loaded.index("--model") + 1] == pipeline.weights
    for path in tmp_path.iterdir():
        if path.is_file():
            assert not unseen(path.read_text()) and not commands_to_ci(path.read_text()), path


def test_the_check_is_the_same_trial_on_sglang_itself() -> None:
    """Composed again it is one that engine=sglang runs, on what is here."""
    for asked in (CACHED, COMPILED, turbo(SCMConfig(), compute=ComputeConfig(device="cuda"), hardware=HARDWARE)):
        check = emit(asked, "sglang").check
        assert check is not None
        words = shlex.split(check)
        assert words[:2] == ["zbench", "run"] and "engine=sglang" in words
        (job,) = expand([*words[2:], "hardware=cpu"], lambda *_: "cpu", grids=False).jobs
        there = Trial.from_config(job.config, projected=False)
        assert there.engine.target == "zbench.engines.sglang:SGLangEngine"
        assert replace(there, engine=asked.engine).to_dict() == replace(asked, hardware=None).to_dict()
        assert SGLangEngine(version="0.5.23").supports(there) is None


def test_what_sglang_measured_is_checked_as_it_was() -> None:
    """With the options that it ran with: a folder of random weights, which SGLang does not make itself."""
    own = {"model_path": "/models/Z-Image-Turbo", "ready_timeout_s": 900}
    engine = ServedEngineConfig(name="sglang", target="zbench.engines.sglang:SGLangEngine", options=own)
    asked = replace(CACHED, engine=engine, pipeline=replace(TURBO, weights="random"))
    check = shlex.split(str(emit(asked, "sglang", sglang_version="0.5.23").check))
    assert check[0] == "zbench" and "engine=sglang" in check
    assert any("model_path" in word and "/models/Z-Image-Turbo" in word for word in check)


def test_what_zbench_cannot_measure_there_is_left_to_sglangs_own_client() -> None:
    made = emit(trial(DBCacheConfig()), "sglang")
    assert made.check is not None and "bench_serving" in made.check
    assert any("zbench run engine=sglang cannot measure it: pipeline=zimage_tiny" in note for note in made.notes)
    forced = turbo(SCMConfig(scm_policy="static"), compute=ComputeConfig(device="cuda"))
    assert "engine=sglang" in str(emit(forced, "sglang", sglang_version="0.5.23").check)
    assert "bench_serving" in str(emit(forced, "sglang", sglang_version="0.5.15.post1").check)


@pytest.mark.parametrize(("version", "takes"), [("0.5.12", False), ("0.5.15.post1", False), ("0.5.23", True)])
def test_requests_say_the_cache_where_the_version_takes_it(version: str, takes: bool) -> None:
    made = files(CACHED, version)
    for body in [json.loads(made["request.json"]), *map(json.loads, made["requests.jsonl"].splitlines())]:
        assert (body.get("enable_cache_dit") is True) == takes
        assert ("cache_dit_params" in body) == takes and body.get("cache_dit_params", PARAMETERS) == PARAMETERS
    plain = json.loads(files(turbo(compute=ComputeConfig(device="cuda")), version)["request.json"])
    assert plain.get("enable_cache_dit", True) is not takes and "cache_dit_params" not in plain


@pytest.mark.parametrize(
    ("load", "says"),
    [
        ({}, "--num-prompts 20 --max-concurrency 1 "),
        ({"arrivals": "concurrent", "concurrency": 8}, "--num-prompts 8 --max-concurrency 8 "),
        ({"arrivals": "concurrent", "concurrency": 8, "requests": 40}, "--num-prompts 40 --max-concurrency 8 "),
        ({"arrivals": "poisson", "rate_per_s": 0.5}, "--num-prompts 20 --max-concurrency 20 --request-rate 0.5 "),
    ],
)
def test_the_load_is_that_of_the_workload(load: dict[str, Any], says: str) -> None:
    workload = WorkloadConfig(name="w", prompts=[Prompt("a", "a cat")], **load)
    made = emit(turbo(workload=workload, compute=ComputeConfig(device="cuda")), "sglang")
    (text,) = (file.text for file in made.files if file.name == "load.sh")
    assert says in text
    named = [note for note in made.notes if "load.sh says it to SGLang's own" in note]
    assert len(named) == bool(load) and all(f"workload.{key}=" in named[0] for key in load)


def test_a_prompts_own_size_and_steps_are_in_its_requests() -> None:
    prompts = [Prompt("a", "a cat"), Prompt("b", "a dog", width=512, height=768, steps=4)]
    made = files(turbo(workload=WorkloadConfig(name="w", prompts=prompts, seeds=[1])))
    own = [(body["size"], body["num_inference_steps"]) for body in map(json.loads, made["requests.jsonl"].splitlines())]
    assert own == [("1024x1024", 8), ("512x768", 4)]


def test_compiled_code_and_caches_from_outside_are_no_matter_of_a_request() -> None:
    outside = turbo(CustomCacheConfig(method="mine", target="a:B", options={"threshold": 1}))
    for of in (COMPILED, outside):
        assert not {"enable_cache_dit", "cache_dit_params"} & json.loads(files(of)["request.json"]).keys()


def test_compose_says_what_the_line_says_with_every_dollar_twice() -> None:
    """Compose puts variables in place of $NAME, and makes one of two."""
    asked = replace(CACHED, pipeline=replace(TURBO, weights="/models/a $HOME: 'b'", vae="/models/vae"))
    launch, made = sglang_launch(asked), service(asked)
    words = [word.replace("$$", "$") for word in made["command"]]
    assert all(word.count("$") % 2 == 0 for word in made["command"])
    told = [*launch.arguments]
    told[told.index("--host") + 1] = "0.0.0.0"
    assert words == told and made["environment"] == {**launch.environment, "HF_HOME": "/models/huggingface"}
    assert made["ports"] == ["127.0.0.1:30000:30000"]
    mounted = {mount["target"].replace("$$", "$"): mount.get("read_only") for mount in made["volumes"]}
    assert "/models/huggingface" in mounted, "where HF_HOME says that the hub's files are"
    assert mounted["/models/a $HOME: 'b'"] is True and mounted["/models/vae"] is True
    assert made["deploy"]["resources"]["reservations"]["devices"][0]["count"] == 1
    assert service(asked, "0.5.12")["image"] == "lmsysorg/sglang:v0.5.12"


def test_the_environment_is_a_file_of_names_and_values() -> None:
    lines = files(turbo(SCMConfig()))["sglang.env"].splitlines()
    assert dict(line.split("=", 1) for line in lines)["SGLANG_CACHE_DIT_SCM_PRESET"] == "medium"


@pytest.mark.parametrize(
    ("version", "lacks"),
    [
        ("0.5.12", {"--regional-compile", "--enable-breakable-cuda-graph"}),
        ("0.5.15.post1", {"--regional-compile", "--enable-breakable-cuda-graph"}),
        ("0.5.23", set()),
    ],
)
def test_flags_that_a_version_lacks_are_left_out_and_named(version: str, lacks: set[str]) -> None:
    made = emit(COMPILED, "sglang", sglang_version=version)
    line = shlex.split(made.files[0].text.splitlines()[-1])[1:]  # after exec
    whole = sglang_launch(COMPILED).arguments
    assert set(whole) - set(line) == lacks and len(line) == len(whole) - 2 * len(lacks)
    for flag in lacks:
        assert any(f"sglang {version} has no {flag}, so {flag} " in note for note in made.notes)


def test_a_degree_that_a_version_lacks_says_what_comes_of_it() -> None:
    gathered = replace(CACHED, parallel=ParallelConfig(gather_size=2))
    notes = emit(gathered, "sglang", sglang_version="0.5.12").notes
    assert any("--kv-gather-degree 2 is left out; it then refuses" in note for note in notes)


def test_every_flag_and_variable_of_any_launch_is_in_the_newest_version() -> None:
    styled = replace(TURBO, lora="/l/x.safetensors", vae="/v", guidance_scale=3.0)
    every = ParallelConfig(tp_size=2, ring_size=2, cfg_size=2, dp_size=2)
    for of in (
        COMPILED,
        trial(SCMConfig(), pipeline=styled, parallel=every),
        turbo(parallel=ParallelConfig(gather_size=2), compute=ComputeConfig(graphs="all")),
    ):
        launch = sglang_launch(of)
        there = fitted(launch, accepted(known_versions()[-1]))
        assert (there.arguments, there.environment) == (launch.arguments, launch.environment)


def test_what_nobody_knows_is_one_line_with_the_way_out() -> None:
    with pytest.raises(
        ConfigError, match=r"--sglang-version=0\.4: there are 0\.5\.12, 0\.5\.15\.post1, 0\.5\.19, 0\.5\.23, and inst"
    ):
        emit(CACHED, "sglang", sglang_version="0.4")


def test_the_installed_version_is_asked_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="no sglang on the PATH"):
        emit(CACHED, "sglang", sglang_version="installed")
    fake = tmp_path / "sglang"
    fake.write_text("#!/bin/sh\necho 'usage: sglang serve [--model-path MODEL_PATH] [--port PORT]'\n")
    fake.chmod(0o755)
    line = shlex.split(files(CACHED, "installed")["sglang.sh"].splitlines()[-1])
    assert [word for word in line if word.startswith("--")] == ["--model-path", "--port"]
    fake.write_text("#!/bin/sh\necho 'no such module' >&2\nexit 1\n")
    with pytest.raises(ConfigError, match=r"shows no --model-path \(no such module\)"):
        emit(CACHED, "sglang", sglang_version="installed")


def test_flags_of_a_help_are_read_whole() -> None:
    text = "  --tp-size TP_SIZE, --vae-config.use-tiling [X]\n  a--not-one  --dp-size, --dp DP."
    assert flags_in_help(text) == {"--tp-size", "--vae-config.use-tiling", "--dp-size", "--dp"}


def test_a_setting_is_a_candidate_until_sglang_itself_measured_it() -> None:
    says = "For SGLang it is a candidate"
    assert any(says in note for note in emit(CACHED, "sglang").notes)
    there = replace(CACHED, engine=replace(CACHED.engine, name="sglang"))
    assert not any(says in note for note in emit(there, "sglang").notes)
    assert emit(CACHED, "sglang").notes[0].startswith("Nothing was measured")
    assert emit(CACHED, "sglang", measured="Measured: so").notes[0] == "Measured: so."


def test_a_folder_that_cannot_be_written_to_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ZbenchError, match=r"cannot write to .*name another folder"):
        write([emit(CACHED, "sglang")], tmp_path / "file" / "sub")
