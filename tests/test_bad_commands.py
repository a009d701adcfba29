"""A command line that falls short is one line and exit code 2, at once, and nothing is done; a table of them.

All go through `main` in this process. None may measure: that would be a fault of the test's subject, and slow.
"""

from pathlib import Path

import pytest

from zbench.cli import main
from zbench.composition import limits

SMALL = ["pipeline=zimage_tiny", "hardware=cpu", "workload=single"]
CACHE = "cache=dbcache"

ONE_LINE: list[tuple[list[str], str]] = [
    # axes
    ([CACHE, "cache.max_warmup_steps=range(1,5,0)"], "its step is not 0; such as range(1,5,2)"),
    ([CACHE, "cache.residual_diff_threshold=range(0,1,0.0)"], "its step is not 0"),
    (["pipeline.steps=range(0,1e400)"], "start and stop of a range are finite"),
    (["pipeline.steps=range(5,1)"], "an empty range"),
    (["pipeline={steps:range(1,5,0)}"], "its step is not 0"),
    (["pipeline.steps=range(200000)"], "200,000 points, and a sweep takes at most 20,000; list fewer"),
    (["pipeline.steps=range(1,1000000000000)"], "999,999,999,999 points"),
    ([CACHE, "cache.residual_diff_threshold=range(0,1,0.000001)"], "1,000,000 points"),
    (["pipeline.steps=range(1,900)", "pipeline.batch_size=range(1,900)"], "808,201 points"),
    (["pipeline.steps=" + ",".join(["1"] * 20_001)], "20,001 points, and a sweep takes at most 20,000"),
    (["pipeline.steps=" + "1" * 2**17], "131,087 characters; at most 131,072, put it in a file of --config-dir"),
    (["pipeline.steps=interval(1,3)"], "a grid needs listed values"),
    # classes
    (["executor.target=json:JSONDecoder"], "executor.target=json:JSONDecoder: is code from outside zbench"),
    (["--allow-code", "executor.target=json:JSONDecoder"], "lacks submit, next_done, abort, close; it must be a class"),
    (["executor.target=zbench.search.grid:GridSearch"], "lacks submit, next_done, abort, close"),
    (["--allow-code", "engine.target=json:JSONDecoder"], "lacks supports, residency, engine"),
    (["--allow-code", "search.target=json:dumps"], "is no class but a function"),
    (["search.target=null"], "search.target=null"),
    (["search.target="], "search.target='': must be module:Class"),
    # options
    (["engine.options.a=1"], "engine.options={'a': …}: ReferenceEngine does not take these"),
    (["engine.options.a=1"], "its options: hang_s"),
    (["executor.options.a=1"], "executor=local takes none"),
    (["search.options.a=1"], "search.options"),
    (["compute.attention_backend=zzz"], "compute.attention_backend=zzz: must be one of flash, "),
    (["compute.attention_backend="], "compute.attention_backend='': must be one of"),
    (["compute.attention_backend=native,zzz"], "compute.attention_backend=zzz: must be one of"),
    (["compute.attention_backend=xformers"], "needs the package xformers, which is not installed"),
    (["compute.attention_backend=_flash_3_hub"], "would fetch code from the hub"),
    # missing, repeated, empty
    (["pipeline.steps=???"], "pipeline.steps=???: needs a value"),
    (["pipeline.steps=4", "pipeline.steps=8"], "pipeline.steps=4 and pipeline.steps=8: both decide pipeline.steps"),
    (["cache=none", CACHE], "cache=none and cache=dbcache: both decide cache"),
    (["cache=???"], "no such choice; there are: custom, dbcache"),
    (["="], "=: "),
    (["=x"], "=x: "),
    ([""], ": "),
    ([" "], " : "),
    (["foo="], "foo=: unknown key"),
    (["pipeline.steps="], "pipeline.steps=''"),
    (["pipeline.steps"], "pipeline.steps: "),
    (["pipeline..steps=1"], "pipeline..steps=1"),
    (["a b"], "a b: "),
    (["sweep.name=a\nb"], "sweep.name=a\\nb: is not written in Hydra's override grammar; quote its text"),
    # flags of Hydra's
    (["--multirun"], "--multirun: has no place here"),
    (["-m"], "--multirun: has no place here"),
    (["--run"], "--run: has no place here"),
    (["-r"], "--run: has no place here"),
    (["--resolve"], "--resolve: says how --cfg shows a config; add --cfg job"),
    (["--package", "x"], "--package: says how --cfg shows a config"),
    (["--version"], "zbench --version says which it is"),
    (["--cfg"], "--cfg/-c: expected one argument"),
    (["--cfg", "zzz"], "invalid choice: 'zzz'"),
    (["--cfg", "job", "--multirun"], "--multirun: has no place here"),
    (["--info", "zzz"], "invalid choice: 'zzz'"),
    (["--config-dir"], "expected one argument"),
    (["--config-dir", "/etc/passwd"], "--config-dir /etc/passwd: no such folder"),
    (["--config-path", "x"], "zbench has one root config"),
    (["--experimental-rerun", "x"], "zbench has one root config"),
    (["hydra.run.dir=x"], "hydra.run.dir=x: has no effect"),
    (["hydra/launcher=basic"], "has no effect"),
    (["hydra.searchpath=[file:///no/such]"], "/no/such: no such folder"),
    (["hydra.searchpath=[pkg://os]"], "is code from outside zbench"),
    # bytes and sizes of words
    (["sweep.name=\udcff"], "holds bytes that are not UTF-8"),
    (["--config-dir", "/tmp/\udcff"], "holds bytes that are not UTF-8"),
    (["pipeline.weights=a\x00b"], "holds a control character"),
    (["pipeline.weights=\x1b[31m"], "holds a control character"),
    (["pipeline.steps=" + "[" * 3000], "pipeline.steps="),
    (["workload.prompts=" + "[" * 3000 + "]" * 3000], "too deep to be read"),
    (["pipeline.steps=" + "9" * 5000], "pipeline.steps=9999"),
    # references
    (["pipeline.width=${pipeline.width}"], "nterpolation"),
    (["pipeline.width=${nothing}"], "nterpolation"),
    (["pipeline.height=${pipeline.width}", "pipeline.width=${pipeline.height}"], "nterpolation"),
    (["pipeline.weights=${oc.env:ZBENCH_NO_SUCH}"], "ZBENCH_NO_SUCH"),
    (["pipeline.weights=${foo:1}"], "foo"),
    (["pipeline.weights=${"], "pipeline.weights=${"),
    # numbers
    (["pipeline.steps=1001"], "pipeline.steps=1001: must be at most 1000"),
    (["pipeline.steps=-1"], "must be at least 1"),
    (["pipeline.steps=" + "9" * 30], "must be at most 1000"),
    (["pipeline.steps=1e308"], "pipeline.steps=1e+308"),
    (["pipeline.height=1000"], "must be a positive multiple of 16 pixels; nearest: 992 and 1008"),
    (["pipeline.width=17"], "nearest: 16 and 32"),
    (["pipeline.height=8"], "pipeline.height=8: must be at least 16"),
    (["pipeline.height=8208"], "pipeline.height=8208: zimage_tiny has positions for 8192 pixels at most"),
    (["pipeline.height=160000000"], "must be at most 16384"),
    (["pipeline.max_sequence_length=1505"], "has positions for 1504 tokens at most"),
    (["pipeline.max_sequence_length=0"], "must be at least 1"),
    (["pipeline.guidance_scale=1e308"], "must be at most 1000"),
    (["pipeline.guidance_scale=nan"], "must be a finite number"),
    (["pipeline.batch_size=1025"], "must be at most 1024"),
    (["pipeline.batch_size=64", "pipeline.images_per_prompt=64"], "makes 4096 images; at most 1024"),
    (["workload.seeds=[9223372036854775808]"], "must be at most 9223372036854775807"),
    (["workload.seeds=[-9223372036854775809]"], "must be at least -9223372036854775808"),
    (["workload.seeds=[9223372036854775807]", "pipeline.batch_size=2"], "2 images of a call have seeds that follow it"),
    (["workload.seeds=[1.5]"], "workload.seeds"),
    (["measure.timeout_s=1e308"], "measure.timeout_s=1e+308: must be at most"),
    (["measure.timeout_s=0"], "must be above 0"),
    (["measure.max_rounds=10000000"], "must be at most 1000000"),
    (["search=random", "search.n_trials=0"], "search.n_trials=0: must be at least 1"),
    (["executor.concurrent_trials=0"], "must be at least 1"),
    (["parallel.tp_size=" + "9" * 30], "must be at most 1024"),
    (["hardware.memory_gib=-1"], "hardware.memory_gib=-1.0: must be above 0"),
    (["hardware.nvml_name='['"], "is no regular expression"),
    (["hardware.efficiency.gemm=0"], "must be above 0"),
    ([CACHE, "cache.max_continuous_cached_steps=0"], "must be at least 1, or -1 for no limit"),
    (["sweep.name=" + "x" * 300], "at most 128 bytes, and this has 300"),
    (["workload.prompts=[{id: '" + "x" * 300 + "', text: a}]"], "at most 128 bytes"),
    (["workload.prompts=[{id: '../x', text: a}]"], "workload.prompts[0].id=../x: is part of file names"),
    # types that OmegaConf does not hold
    (["workload.seeds=3,4"], "workload.seeds=3: must be a list, such as [0,1]"),
    (["workload.seeds=[[1],[2]]"], "workload.seeds[0]=[1]: must be a whole number"),
    (["workload.seeds=[{a:1}]"], "workload.seeds[0]={'a': 1}: must be a whole number"),
    (["workload.seeds=${pipeline.steps}"], "workload.seeds=8: must be a list"),
    (["workload.prompts=${workload.seeds}"], "workload.prompts[0]=0: must be a Prompt"),
    (["engine.options.a=${cache}"], "engine.options.a=CacheConfig: is a whole group"),
    (["engine.options=${cache}"], "must be a dictionary"),
    (["sweep=${cache}"], "must be a SweepConfig"),
    (["compute=???"], "compute=???: no such choice; there are: compiled, eager"),
    # paths
    (["workload.prompts_file=~nosuch/x.txt"], "~nosuch/x.txt: cannot be read (No such file"),
    (["pipeline.weights=~nosuch/x"], "~nosuch/x"),
    (["pipeline.vae=~nosuch/x"], "pipeline.vae=~nosuch/x"),
    (["measure.lpips_weights=~nosuch/x"], "measure.lpips_weights=~nosuch/x"),
    (["measure.clip_weights=~nosuch/x"], "measure.clip_weights=~nosuch/x"),
    (["sweep.runs_dir=~nosuch/x"], "sweep.runs_dir=~nosuch/x: there is no such user"),
    (["pipeline.weights=" + "x/" * 3000], "File name too long; no path is so long"),
    (["sweep.runs_dir="], "sweep.runs_dir='': name a folder"),
    (["sweep.reports_dir="], "sweep.reports_dir='': name a folder"),
    (["pipeline.weights="], "pipeline.weights='': name auto, random"),
    (["pipeline.vae="], "pipeline.vae='': name the folder"),
    (["--config-dir="], "--config-dir: names no folder"),
    (["-sc", "query=bash"], "--shell-completion query=: is a shell's to ask"),
    (["pipeline.steps=range(0,10,1e-300)"], "endlessly many points"),
    # names of others
    (["num_inference_steps=4"], "did you mean pipeline.steps?"),
    (["pipeline.num_inference_steps=4"], "did you mean pipeline.steps?"),
    (["size=512"], "did you mean pipeline.height and pipeline.width?"),
    (["rdt=0.2"], "did you mean cache.residual_diff_threshold?"),
    (["R=0.2"], "did you mean cache.residual_diff_threshold?"),
    ([CACHE, "cache.MC=3"], "did you mean cache.max_continuous_cached_steps?"),
    (["width=512"], "did you mean pipeline.width?"),
    (["--tp-size", "2"], "--tp-size: no such flag; did you mean parallel.tp_size?"),
    (["--num-inference-steps=4"], "--num-inference-steps: no such flag; did you mean pipeline.steps?"),
]


@pytest.mark.parametrize(
    ("words", "says"), ONE_LINE, ids=lambda value: str(value)[:40].encode("ascii", "replace").decode()
)
def test_a_command_line_that_falls_short_is_one_line_and_does_nothing(
    words: list[str],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("zbench.sweeper.conduct.Sweep", None)  # nothing here gets so far
    assert main(["sweep", *SMALL, *words]) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.strip("\n").split("\n")
    assert line.startswith("zbench: error: ") and says in line, line
    assert captured.out == "" and not list(tmp_path.iterdir())


REFUSED = [
    (["pipeline.vae=/no/such"], "pipeline.vae=/no/such"),
    (["executor.options.a=1"], "executor=local takes none"),
    (["executor.concurrent_trials=2"], "executor.concurrent_trials=2"),
    (["measure.lpips_weights=/no/such"], "measure.lpips_weights=/no/such"),
    (["sweep.reports_dir=/etc/passwd/x"], "sweep.reports_dir=/etc/passwd/x: cannot be written to"),
    (["sweep.runs_dir=/etc/passwd"], "sweep.runs_dir=/etc/passwd: cannot be written to"),
]


@pytest.mark.parametrize(("words", "says"), REFUSED)
def test_a_plan_shows_what_it_has_and_refuses_what_its_sweep_would(
    words: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["plan", *SMALL, *words]) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.strip().splitlines()
    assert line.startswith("zbench: error: zbench sweep would refuse this: ") and says in line
    assert "reference, baseline" in captured.out and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "margin", ["-3%", "nan%", "inf%", "0%", "3", "3 %", "1000%", "100%", "", "%", "1e1%", "٣%", "--3%"]
)
@pytest.mark.parametrize("joined", [True, False])
def test_a_margin_is_a_per_cent(margin: str, joined: bool, capsys: pytest.CaptureFixture[str]) -> None:
    words = [f"--margin={margin}"] if joined else ["--margin", margin]
    assert main(["ab", *words, *SMALL]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    shown = margin or "''"
    assert line == f"zbench: error: --margin={shown}: must be a per cent above 0 and below 100, such as 3%"


def test_how_many_points_a_sweep_takes_is_said_before_they_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    from composing import jobs

    from zbench.errors import OverrideError

    monkeypatch.setattr(limits, "MAX_POINTS", 12)
    asked = ("pipeline=zimage_tiny", "hardware=cpu", "cache=none", "pipeline.steps=range(1,5)")
    assert len(jobs(*asked, "compute=eager,compiled").jobs) == 8
    with pytest.raises(OverrideError, match=r"steps=range\(1,5\)'?: 16 points, and a sweep takes at most 12"):
        jobs(*asked, "compute=eager,compiled", "offload=none,dit")
    with pytest.raises(OverrideError, match="13 points"):
        jobs("pipeline=zimage_tiny", "hardware=cpu", "pipeline.batch_size=range(1,14)", "cache=none")


@pytest.mark.parametrize("name", ["x" * 300, "x/" * 3000], ids=["long name", "long path"])
@pytest.mark.parametrize("words", [["report"], ["recommend"], ["export"], ["baseline", "save", "--name", "n"]])
def test_a_run_whose_name_no_file_can_have_is_one_line(
    words: list[str], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*words, name]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("zbench: error: ") and len(line) < 300


LOST = [
    (["ab", "--a-rev", "", "--b-rev", "HEAD"], "--a-rev='': is empty"),
    (["ab", "--a-rev="], "--a-rev='': is empty"),
    (["ab", "--b-python", ""], "--b-python='': is empty"),
    (["ab", "--config-dir="], "--config-dir='': is empty"),
    (
        ["ab", "--a", "pipeline.steps=4", "--a", "pipeline.batch_size=2"],
        "--a is there twice, before with pipeline.steps=4",
    ),
    (["report", "x", "--out", ""], "--out='': is empty"),
    (["export", "x", "--runs-dir="], "--runs-dir='': is empty"),
    (["gate", "x", "--baseline", "b", "--baseline=c"], "--baseline is there twice, before with b"),
    (["recommend", "x", "--max-vram-gib", "1", "--max-vram-gib", "100"], "--max-vram-gib is there twice"),
]


@pytest.mark.parametrize(("words", "says"), LOST)
def test_a_flag_whose_value_would_be_lost_is_refused(
    words: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert says in line and not list(tmp_path.iterdir())
