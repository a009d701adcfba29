"""Every example of docs/plugins.md is whole: each command of the page is run with the files that the page gives."""

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
from outside_code import SMALL, Outside, records, zbench

from zbench.engines import EngineDescription
from zbench.export import ExportFormat
from zbench.plugins import ENTRY_POINTS, Kind, load_class

PAGE = (Path(__file__).parent.parent / "docs" / "plugins.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
FILES = {text.split("\n", 1)[0].removeprefix("# "): text for kind, text in BLOCKS if kind in ("python", "yaml")}
COMMANDS = [shlex.split(line) for _, text in BLOCKS for line in text.splitlines() if line.startswith("zbench ")]
SHOWN = [shlex.split(line[2:]) for _, text in BLOCKS for line in text.splitlines() if line.startswith("$ zbench ")]
QUICK = (*SMALL, "pipeline.height=64", "pipeline.width=64", "pipeline.steps=6", "measure.max_warmup_rounds=0")
TORCH_FREE = ("engine.target=synthetic", "engine.loads_weights=false")
PROTOCOLS: dict[Kind, type[Any]] = {"engine": EngineDescription, "export": ExportFormat}


@pytest.fixture
def page(outside: Outside, tmp_path: Path) -> Outside:
    """The files of the page, modules importable and choices in the current folder."""
    for name, text in FILES.items():
        path = (outside.folder if name.endswith(".py") else tmp_path) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return outside


def of(*words: str) -> list[list[str]]:
    """Commands of the page that have all these words."""
    return [command[1:] for command in COMMANDS if all(word in " ".join(command) for word in words)]


def test_the_page_has_an_example_of_each() -> None:
    assert set(FILES) == {
        *("my_engines.py", "my_caches.py", "my_executors.py", "my_searches.py", "my_formats.py"),
        *("my_conf/engine/painter.yaml", "my_conf/cache/every_other.yaml"),
    }
    assert len(COMMANDS) == 8 and len(SHOWN) == 2


@pytest.mark.parametrize("command", [*of("my_engines"), *of("engine=painter")], ids=" ".join)
def test_its_engine_paints(command: list[str], page: Outside) -> None:
    done = zbench(*command, *QUICK)
    assert done.returncode == 0, done.stderr
    found = records()
    assert {r.state for r in found} == {"COMPLETE"}
    passes = {r.measurement.effective.other["passes"] for r in found if r.measurement is not None}
    assert passes == ({1, 2} if "options" in " ".join(command) or "--config-dir" in command else {1})


@pytest.mark.parametrize("command", [*of("my_caches"), *of("every_other", "my_conf")], ids=" ".join)
def test_its_cache_method_skips(command: list[str], page: Outside) -> None:
    done = zbench(*command, *QUICK)
    assert done.returncode == 0, done.stderr
    skipped = {r.label: r.measurement.requests[0].cached_steps for r in records() if r.measurement is not None}
    assert skipped == {"none": [], "every_other(every=2)": [1, 3, 5], "every_other(every=4)": [1, 2, 3, 5]}


def test_its_executor_rests(page: Outside) -> None:
    (command,) = of("my_executors")
    done = zbench(*command, *QUICK, *TORCH_FREE, "cache.max_warmup_steps=2", "cache.residual_diff_threshold=0.12")
    assert done.returncode == 0 and len(records()) == 2, done.stderr


def test_its_search_finds(page: Outside) -> None:
    (command,) = of("my_searches")
    command = [word.replace("least_db=30", "least_db=45") for word in command]
    done = zbench(*command, *QUICK, *TORCH_FREE)
    assert done.returncode == 0, done.stderr
    tried = [r.trial.cache.residual_diff_threshold for r in records()[1:]]  # type: ignore[attr-defined]
    assert tried == [0.24, 0.5, 0.25, 0.125, 0.0625, 0.09375, 0.109375], "of 6 steps one is skipped from 0.0834 to 0.1"


def test_its_export_renders(page: Outside) -> None:
    assert zbench("run", *QUICK, *TORCH_FREE, "sweep.name=demo").returncode == 0
    (command,) = of("my_formats")
    done = zbench(*command)
    assert (done.returncode, done.stdout) == (0, "none\n"), done.stderr


def test_its_entry_points_permit(page: Outside) -> None:
    for text in (text for kind, text in BLOCKS if kind == "toml"):
        ((group, named),) = tomllib.loads(text)["project"]["entry-points"].items()
        page.package(next(iter(named)), group, **named)
        kind = next(kind for kind, at in ENTRY_POINTS.items() if at == group)
        for target in (*named, *named.values()):
            assert load_class(kind, "key", target, PROTOCOLS[kind])


@pytest.mark.parametrize("command", SHOWN, ids=" ".join)
def test_what_it_shows_is_what_is_said(command: list[str], page: Outside) -> None:
    said = zbench(*command[1:], *SMALL).stderr.splitlines()[0]
    assert said in PAGE


def test_the_failure_that_it_shows_is_at_that_line(page: Outside) -> None:
    (command,) = of("my_searches")
    without = [word for word in command if "least_db" not in word]
    done = zbench(*without, *QUICK, *TORCH_FREE)
    assert done.returncode == 2 and done.stderr.splitlines()[-1] in PAGE
