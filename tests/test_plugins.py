"""Code from outside zbench runs where an entry point or the user permits it, and only if it fits its protocol."""

import json
import sys
from pathlib import Path

import pytest
from factories import complete, trial
from outside_code import SMALL, Outside, zbench

from zbench.analysis.view import view_of
from zbench.config import ExecutorConfig
from zbench.engines import EngineDescription
from zbench.errors import ConfigError
from zbench.executors import load_executor
from zbench.export import find_format, format_names
from zbench.hydra_app import planned
from zbench.plugins import ENTRY_POINTS, check_permitted, load_class
from zbench.store import Store

ENGINE = """
from synthetic import SyntheticEngine
class Painter(SyntheticEngine):
    pass
"""
FORMAT = """
class Count:
    def render(self, view):
        return f"{len(view.trials)} trials\\n"
class Bytes:
    def render(self, view):
        return b"\\x00"
class Sick:
    def render(self, view):
        raise KeyError("nothing")
class Number:
    def render(self, view):
        return 3
"""


def refused(target: str, *, allow_code: bool = False) -> str:
    """The one line of the error that refuses `target` as an engine."""
    with pytest.raises(ConfigError) as caught:
        load_class("engine", "engine.target", target, EngineDescription, allow_code=allow_code)
    message = str(caught.value)
    assert message.startswith("engine.target=") and "\n" not in message
    return message


def override(kind: str, target: str) -> tuple[str, ...]:
    """What names `target` as a class of this kind."""
    named = ("cache=custom", "cache.method=mine") if kind == "cache" else ()
    return (*named, f"{kind}.target={target}")


KINDS = ("engine", "cache", "executor", "search")


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_from_outside_is_imported_before_it_is_permitted_and_never_by_a_plan(
    kind: str, outside: Outside, tmp_path: Path
) -> None:
    target = outside.nothing("leaves_traces")
    named = (*SMALL, *override(kind, target))
    sweep, plan = zbench("sweep", *named), zbench("plan", *named)
    for done in (sweep, plan):
        assert done.returncode == 2 and done.stdout == "" and len(done.stderr.splitlines()) == 1
        assert f"{kind}.target={target}" in done.stderr and "--allow-code" in done.stderr
        assert ENTRY_POINTS[kind] in done.stderr
    assert sweep.stderr == plan.stderr
    allowed = zbench("plan", "--allow-code", *named)
    note = f"note: from outside zbench, which a plan does not run: {kind}"
    assert allowed.returncode == 0 and note in allowed.stderr
    assert not outside.trace.exists() and not (tmp_path / "runs").exists()


@pytest.mark.parametrize("flag", [[], ["--allow-code"]])
def test_nothing_from_outside_is_imported_by_what_only_shows(flag: list[str], outside: Outside, tmp_path: Path) -> None:
    """A class of each kind in one command: the first that was imported would leave its trace."""
    target = outside.nothing("leaves_traces_of_shows")
    named = (*SMALL, *(word for kind in KINDS for word in override(kind, target)))
    for shows in (["sweep", "--cfg", "job"], ["run", "--info", "searchpath"], ["sweep", "--help"]):
        done = zbench(*shows[:1], *named, *flag, *shows[1:])
        assert done.returncode == 0, done.stderr
    assert not outside.trace.exists() and not (tmp_path / "runs").exists()


@pytest.mark.parametrize("kind", ["engine", "executor", "search"])
def test_what_was_allowed_is_imported_and_must_fit(kind: str, outside: Outside, tmp_path: Path) -> None:
    target = outside.nothing("leaves_traces_too")
    done = zbench("sweep", *SMALL, *override(kind, target), "--allow-code")
    assert done.returncode == 2 and done.stdout == "" and len(done.stderr.splitlines()) == 1
    assert f"{kind}.target={target}: lacks " in done.stderr
    assert outside.trace.exists() and not outside.made.exists() and not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "target", ["os:system", "subprocess:Popen", "builtins:eval", "this:s", "nowhere:Engine", "json:JSONDecoder"]
)
def test_code_from_outside_needs_permission(target: str) -> None:
    assert "is code from outside zbench" in refused(target)
    with pytest.raises(ConfigError, match="is code from outside zbench"):
        check_permitted("engine", "engine.target", target)
    assert "this" not in sys.modules and "nowhere" not in sys.modules


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("os:system", "is no class but a builtin_function_or_method"),
        ("builtins:eval", "is no class but a builtin_function_or_method"),
        ("subprocess:Popen", "lacks "),
        ("zbench.cli:main", "is no class but a function"),
        ("zbench.engines:EngineDescription", "only says what such a class has"),
        ("zbench.executors.client:Path", "lacks "),
        ("zbench.engines:Nope", "zbench.engines has no Nope"),
        ("nowhere:Engine", "there is no module nowhere"),
        ("zbench.nowhere:Engine", "there is no module zbench.nowhere"),
    ],
)
def test_what_is_permitted_must_be_a_class_that_fits(target: str, says: str) -> None:
    assert says in refused(target, allow_code=True)


@pytest.mark.parametrize(
    "target",
    [
        "os:path.join",
        "os:",
        ":system",
        ":",
        "",
        "os",
        "os::system",
        "os:system()",
        "os system:x",
        "../os:x",
        "zbench:a b",
    ],
)
def test_what_is_no_target_is_refused_whatever_is_allowed(target: str) -> None:
    assert "module:Class" in refused(target, allow_code=True)


def test_an_executor_is_not_made_before_it_fits(outside: Outside) -> None:
    target = outside.nothing("no_executor")
    with pytest.raises(ConfigError, match=r"executor\.target=no_executor:Nothing: lacks "):
        load_executor(ExecutorConfig(name="x", target=target), outside.folder, allow_code=True)
    assert not outside.made.exists()


def test_a_method_that_is_only_inherited_from_the_protocol_is_lacking(outside: Outside) -> None:
    text = "from zbench.engines import EngineDescription\nclass Half(EngineDescription):\n    def engine(self): ...\n"
    outside.module("half_done", text)
    message = refused("half_done:Half", allow_code=True)
    assert "lacks supports, residency; it must" in message


def test_an_entry_point_permits_by_name_and_by_value(outside: Outside) -> None:
    outside.module("painters", ENGINE)
    outside.package("painting", "zbench.engines", oils="painters:Painter")
    for target in ("oils", "painters:Painter"):
        assert load_class("engine", "engine.target", target, EngineDescription).__name__ == "Painter"
    assert "installed: oils" in refused("oil").replace(", synthetic", "")
    assert "is code from outside" in refused("painters:SyntheticEngine"), "another class of its module is not named"
    with pytest.raises(ConfigError, match=r"executor\.target=painters:Painter: is code from outside"):
        check_permitted("executor", "executor.target", "painters:Painter")


@pytest.mark.parametrize(
    ("module", "value", "says"),
    [
        (None, "gone_away:Engine", "there is no module gone_away (package broken 1.0)"),
        ("import no_such_thing", "bad_import:Engine", "cannot be imported (package broken 1.0): ModuleNotFoundError"),
        ("raise SystemExit(0)", "exits:Engine", "cannot be imported (package broken 1.0): SystemExit"),
        ("def", "no_python:Engine", "cannot be imported (package broken 1.0): SyntaxError"),
        ("", "lacks_it:Engine", "lacks_it has no Engine (package broken 1.0)"),
        ("", "dotted:Engine.Inner", "package broken 1.0 names 'dotted:Engine.Inner'"),
    ],
)
def test_what_an_entry_point_does_wrong_names_its_package(
    module: str | None, value: str, says: str, outside: Outside
) -> None:
    if module is not None:
        outside.module(value.partition(":")[0], module)
    outside.package("broken", "zbench.engines", mine=value)
    assert says in refused("mine")


def test_two_packages_with_one_name_are_told_apart_by_the_user(outside: Outside) -> None:
    outside.package("left", "zbench.engines", both="left_one:Engine")
    outside.package("right", "zbench.engines", both="right_one:Engine")
    message = refused("both")
    assert "package left 1.0 (left_one:Engine) and package right 1.0 (right_one:Engine)" in message


@pytest.mark.parametrize("by", ["entry point", "--allow-code"])
def test_an_engine_from_outside_is_measured(by: str, outside: Outside, tmp_path: Path) -> None:
    outside.module("my_painter", ENGINE)
    args, target = ["run", *SMALL, "engine.loads_weights=false"], "my_painter:Painter"
    if by == "entry point":
        outside.package("my_painting", "zbench.engines", painter=target)
        target = "painter"
    else:
        args.append("--allow-code")
    done = zbench(*args, f"engine.target={target}")
    assert done.returncode == 0, done.stderr
    (journal,) = tmp_path.glob("runs/*/records.jsonl")
    record = json.loads(journal.read_text().splitlines()[-1])
    assert record["state"] == "COMPLETE" and record["config"]["engine"]["target"] == target


def test_the_command_to_go_on_keeps_the_flag(outside: Outside) -> None:
    args = [*SMALL, "engine.target=my_painter:Painter", "engine.loads_weights=false"]
    outside.module("my_painter", ENGINE)
    plan = planned(args, "sweep", allow_code=True)
    assert plan is not None and plan.command.startswith("zbench sweep --allow-code hardware=cpu")
    plan = planned([*SMALL], "sweep")
    assert plan is not None and "--allow-code" not in plan.command


@pytest.mark.parametrize("command", ["ab", "doctor"])
def test_ab_and_the_noise_ask_for_permission_too(command: str, outside: Outside) -> None:
    target = outside.nothing("not_for_ab")
    flags = ["--noise"] if command == "doctor" else ["--a", "cache=none", "--b", "cache=none"]
    done = zbench(command, *flags, *SMALL, f"engine.target={target}")
    assert done.returncode == 2 and "is code from outside zbench" in done.stderr and not outside.trace.exists()
    done = zbench(command, *flags, "--allow-code", *SMALL, f"engine.target={target}", "engine.loads_weights=false")
    assert done.returncode == 2 and "lacks supports, residency, engine" in done.stderr
    assert outside.trace.exists() and not outside.made.exists()


def test_the_flag_without_noise_is_refused() -> None:
    done = zbench("doctor", "--allow-code")
    assert done.returncode == 2 and "without --noise: --allow-code" in done.stderr


@pytest.fixture
def a_run(outside: Outside, tmp_path: Path) -> str:
    outside.module("my_formats", FORMAT)
    with Store(tmp_path / "runs" / "kept", lambda text: None) as store:
        store.append(complete(trial()))
    return "kept"


def test_a_format_of_ones_own(outside: Outside, a_run: str, tmp_path: Path) -> None:
    done = zbench("export", a_run, "--format", "my_formats:Count")
    assert done.returncode == 2 and "--format=my_formats:Count: is code from outside zbench" in done.stderr
    done = zbench("export", a_run, "--format", "my_formats:Count", "--allow-code")
    assert (done.returncode, done.stdout) == (0, "1 trials\n"), done.stderr
    outside.package(
        "formats", "zbench.exports", count="my_formats:Count", raw="my_formats:Bytes", csv="my_formats:Sick"
    )
    done = zbench("export", a_run, "--format", "count")
    assert (done.returncode, done.stdout) == (0, "1 trials\n"), done.stderr
    done = zbench("export", a_run, "--format", "raw")
    assert done.returncode == 2 and "--format raw is binary" in done.stderr
    assert zbench("export", a_run, "--format", "raw", "--out", "raw.bin").returncode == 0
    assert (tmp_path / "raw.bin").read_bytes() == b"\0"
    assert "trial_id" in zbench("export", a_run, "--format", "csv").stdout, "zbench's own name stays its own"


def test_the_help_of_export_names_installed_formats_and_imports_none(outside: Outside) -> None:
    outside.package("formats", "zbench.exports", traces=outside.nothing("format_with_traces"))
    done = zbench("export", "--help")
    assert done.returncode == 0 and "traces" in done.stdout and "--allow-code" in done.stdout
    assert not outside.trace.exists()
    assert format_names().count("traces") == 1
    done = zbench("export", "any", "--format", "trace")
    assert done.returncode == 2 and "--format=trace: no such format; there are: csv" in done.stderr


@pytest.mark.parametrize(
    ("name", "says"), [("Sick", "Sick.render failed: KeyError: 'nothing'"), ("Number", "Number.render gave int")]
)
def test_a_format_that_fails_is_no_fault_of_zbench(name: str, says: str, outside: Outside) -> None:
    outside.module("sick_formats", FORMAT)
    render = find_format(f"sick_formats:{name}", allow_code=True)
    with pytest.raises(ConfigError, match=says):
        render(view_of([complete(trial())]))


@pytest.mark.parametrize(
    "command", [["plan"], ["plan", "--cfg", "job"], ["sweep", "--info", "searchpath"], ["sweep", "--help"]]
)
@pytest.mark.parametrize("form", ["hydra.searchpath=[pkg://evil_conf]", "hydra={searchpath:[pkg://evil_conf]}"])
def test_a_package_on_hydras_search_path_is_not_imported(command: list[str], form: str, outside: Outside) -> None:
    (outside.folder / "evil_conf").mkdir()
    (outside.folder / "evil_conf" / "__init__.py").write_text(f"open({str(outside.trace)!r}, 'w')")
    done = zbench(*command[:1], *SMALL, form, *command[1:])
    assert done.returncode == 2 and not outside.trace.exists() and "Traceback" not in done.stderr
