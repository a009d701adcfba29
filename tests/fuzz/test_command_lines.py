"""Command lines of words at random, sense and nonsense: a plan or one line, never a traceback."""

import random
from pathlib import Path

import pytest
from damage import SCALE

from zbench.cli import main
from zbench.errors import Exit

LINES = int(60 * SCALE)
GROUPS = {
    "pipeline": ("zimage_tiny", "zimage_turbo", "zimage", "nothing"),
    "cache": ("none", "dbcache", "scm", "forced", "taylorseer", "none,dbcache", "dbcache_aggressive", "x"),
    "hardware": ("cpu", "h100", "b300", "cpu,h100", "no"),
    "offload": ("none", "all", "group,dit", "sequential"),
    "parallel": ("single", "ulysses2", "ring"),
    "compute": ("eager", "compiled", "eager,compiled"),
    "workload": ("single", "scenes", "nope"),
    "measure": ("quick", "default"),
    "search": ("grid", "random", "thresholds"),
    "experiment": ("demo", "masks", "none"),
}
KEYS = (
    *("pipeline.steps", "pipeline.height", "pipeline.width", "pipeline.weights", "pipeline.guidance_scale", "pipeline"),
    *("cache.residual_diff_threshold", "cache.max_warmup_steps", "cache.scm_preset", "cache.method", "cache.target"),
    *("workload.seeds", "workload.prompts", "workload.prompt", "measure.min_rounds", "measure.budget_s", "execution"),
    *("compute.dtype", "compute.device", "compute.attention_backend", "offload.mode", "parallel.ulysses_size"),
    *("search.n_trials", "search.seed", "executor.concurrent_trials", "sweep.name", "sweep.baseline", "sweep.on_oom"),
    *("hardware.vram_limit_gib", "engine.options", "engine.target", "hydra.verbose", "nothing", "pipeline.", ".", ""),
)
VALUES = (
    *("0", "1", "2", "8", "-1", "1.5", "1e400", "nan", "inf", "null", "true", "", "x", "auto", "none", "4,8", "1,,2"),
    *(
        "range(1,4)",
        "range(1,5,0)",
        "range(4,1)",
        "choice(1,2)",
        "glob(*)",
        "interval(0,1)",
        "[1,2]",
        "[",
        "{a:1}",
        "{}",
    ),
    *(
        "[[1,2],[3]]",
        "'a b'",
        "'",
        '"',
        "${pipeline.steps}",
        "${nothing}",
        "${oc.env:HOME}",
        "${",
        "???",
        "紅",
        "\x1b[2J",
    ),
    *("\x1b[2J", "{}", "{a:{b:1}}"),
    *("[{id:a,text:b}]", "a=b", "compute=compiled", "sort(3,1)", "shuffle(1,2)", "tag(a,1)", "9" * 30, "x" * 300, "~"),
)
PREFIXES = ("", "", "", "", "", "+", "++", "~", "-", "--")


def words(chance: random.Random) -> list[str]:
    """A hardware, so that the machine does not matter, and up to five words more."""
    line = [f"hardware={chance.choice(('cpu', 'cpu', 'h100'))}"]
    for _ in range(chance.randint(1, 5)):
        if chance.random() < 0.4:
            group = chance.choice(list(GROUPS))
            line.append(f"{chance.choice(PREFIXES)}{group}={chance.choice(GROUPS[group])}")
        elif chance.random() < 0.9:
            line.append(f"{chance.choice(PREFIXES)}{chance.choice(KEYS)}={chance.choice(VALUES)}")
        else:
            line.append(chance.choice(VALUES + KEYS))
    return line


@pytest.mark.parametrize("block", range(4))
def test_any_command_line_is_a_plan_or_one_line(
    block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    faults = []
    for seed in range(block, LINES, 4):
        line = words(random.Random(seed))
        code = main(["plan", *line])
        said = capsys.readouterr().err
        if code == Exit.FAULT or "Traceback" in said or (code == Exit.BAD_INPUT and len(said.splitlines()) != 1):
            faults.append(f"seed {seed}: {line}: {code}: {said[-300:]}")
    assert not faults, "\n".join(faults)
