"""No failure to print changes what a command found out: 1 is a regression, and nothing else."""

import errno
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from commands import SYNTHETIC, environment
from factories import GRID, complete, demo_records, failed, trial
from hostile import HOSTILE, commands_to_ci, unseen
from rich.console import Console

from zbench.analysis.view import view_of
from zbench.cli import COMMANDS, main, measuring
from zbench.cli.command import Command
from zbench.config import DBCacheConfig
from zbench.errors import Exit, ZbenchError
from zbench.gate.baselines import save_baseline
from zbench.record import Record
from zbench.search import Foresight
from zbench.store import RECORDS
from zbench.streams import GuardedStream, talk_from_handler
from zbench.sweeper import conduct
from zbench.sweeper.loading_bar import LoadingBar
from zbench.sweeper.outcome import SweepResult
from zbench.sweeper.progress import SweepProgress


def keep(runs: Path, name: str, records: list[Record]) -> None:
    (runs / name).mkdir(parents=True)
    lines = "".join(record.to_json() + "\n" for record in records)
    (runs / name / RECORDS).write_text(lines, encoding="utf-8")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs named base, slow (a regression), few (inconclusive), big (of 20 GiB), demo; and the baseline b."""
    folder = tmp_path_factory.mktemp("runs")
    keep(folder, "base", [complete(trial(), n_rounds=24)])
    keep(folder, "slow", [complete(trial(), latency_s=1.3, n_rounds=24)])
    keep(folder, "few", [complete(trial(), n_rounds=2)])
    keep(folder, "big", [complete(trial(), vram_gib=20.0)])
    keep(folder, "demo", demo_records())
    save_baseline([complete(trial(), n_rounds=24)], "b", folder)
    return folder


def full(buffering: int) -> io.TextIOWrapper:
    return open("/dev/full", "w", buffering=buffering, encoding="utf-8")


def unread(buffering: int) -> io.TextIOWrapper:
    """A pipe whose reader went away."""
    reader, writer = os.pipe()
    os.close(reader)
    return open(writer, "w", buffering=buffering, encoding="utf-8")


class Lost(io.StringIO):
    """A terminal that hung up, or a disk that fails."""

    def __init__(self, code: int, *, is_terminal: bool) -> None:
        super().__init__()
        self._code, self._is_terminal = code, is_terminal

    def isatty(self) -> bool:
        return self._is_terminal

    def write(self, text: str) -> int:
        raise OSError(self._code, os.strerror(self._code))


def shut() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


BROKEN: dict[str, tuple[Callable[[], Any], bool]] = {  # how a stream is made, and whether data is lost that was wanted
    "reader gone, buffered": (lambda: unread(-1), False),
    "reader gone, by line": (lambda: unread(1), False),
    "disk full, buffered": (lambda: full(-1), True),
    "disk full, by line": (lambda: full(1), True),
    "hung up": (lambda: Lost(errno.EIO, is_terminal=True), False),
    "disk broken": (lambda: Lost(errno.EIO, is_terminal=False), True),
    "never open": (lambda: None, False),
    "closed": (shut, False),
}
VERDICTS = [
    (["gate", "base", "--baseline", "b"], Exit.DONE),
    (["gate", "slow", "--baseline", "b"], Exit.REGRESSION),
    (["gate", "slow", "--baseline", "b", "--format", "junit", "--github"], Exit.REGRESSION),
    (["compare", "base", "few"], Exit.INCONCLUSIVE),
    (["compare", "base", "nowhere"], Exit.BAD_INPUT),
]
OTHERS = [
    (["recommend", "base"], Exit.DONE),
    (["recommend", "big", "--max-vram-gib", "1"], Exit.FAILED),
    (["export", "base", "--format", "bencher"], Exit.DONE),
    (["--help"], Exit.DONE),
    (["--version"], Exit.DONE),
    (["export", "--help"], Exit.DONE),
    (["export", "nowhere"], Exit.BAD_INPUT),
    (["nosuch"], Exit.BAD_INPUT),
]


@pytest.fixture
def broken(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, runs: Path, capfd: pytest.CaptureFixture[str]
) -> Iterator[Callable[[list[str], bool, bool], int]]:
    """Run a command with the streams that `request.param` names, and see that what it left can be closed."""
    monkeypatch.chdir(runs.parent)
    made: list[Any] = []

    def run(args: list[str], out: bool, err: bool) -> int:
        make, _ = BROKEN[request.param]
        for name, wanted in (("stdout", out), ("stderr", err)):
            if wanted:
                made.append(make())
                monkeypatch.setattr(sys, name, made[-1])
        where = ["--runs-dir", str(runs)] if args[0] in COMMANDS and "--help" not in args else []
        try:
            return main([*args, *where])
        finally:
            monkeypatch.setattr(sys, "stdout", sys.__stdout__)
            monkeypatch.setattr(sys, "stderr", sys.__stderr__)

    yield run
    for stream in made:
        if stream is not None:
            stream.close()  # raises if something is left in it, as it would at the end of the interpreter


@pytest.mark.parametrize("broken", BROKEN, indirect=True, ids=str)
def test_a_verdict_survives_every_failure_to_print(broken: Callable[..., int]) -> None:
    for args, verdict in VERDICTS:
        for out, err in ((True, False), (False, True), (True, True)):
            assert broken(args, out, err) == verdict, (args, out, err)


@pytest.mark.parametrize("broken", BROKEN, indirect=True, ids=str)
def test_data_that_did_not_arrive_is_no_success_and_no_regression(
    broken: Callable[..., int], request: pytest.FixtureRequest
) -> None:
    _, is_loss = BROKEN[request.node.callspec.params["broken"]]
    for args, code in OTHERS:
        lost = Exit.BAD_INPUT if is_loss and code == Exit.DONE else code
        assert broken(args, True, False) == broken(args, True, True) == lost, args


def test_a_full_disk_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with full(-1) as disk:
        monkeypatch.setattr(sys, "stdout", disk)
        assert main(["--version"]) == Exit.BAD_INPUT
    assert capsys.readouterr().err == "zbench: error: cannot write to stdout: No space left on device\n"


@pytest.mark.parametrize(
    ("raised", "code"), [(RuntimeError("a bug"), 70), (KeyboardInterrupt(), 130), (SystemExit(1), 2)]
)
def test_a_fault_is_no_regression_though_nobody_can_be_told(
    raised: BaseException, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ends(command: Command, args: list[str]) -> int:
        print("before")
        raise raised

    monkeypatch.setitem(COMMANDS, "doctor", COMMANDS["doctor"]._replace(function=ends))
    with full(1) as out, full(1) as err:
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", err)
        assert main(["doctor"]) == code


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_the_interpreters_own_last_flush_changes_nothing(unbuffered: str, tmp_path: Path) -> None:
    zbench = f"{sys.executable} -m zbench"
    script = f"""
    {zbench} --help | true; echo ${{PIPESTATUS[0]}}
    {zbench} --help >/dev/full; echo $?
    {zbench} nosuch 2>/dev/full; echo $?
    {zbench} --version >&- 2>&-; echo $?
    """
    done = subprocess.run(
        ["bash", "-c", script],
        env={**environment(), "PYTHONUNBUFFERED": unbuffered},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["0", "2", "2", "0"]
    assert done.stderr == "zbench: error: cannot write to stdout: No space left on device\n"


def test_a_sweep_that_can_say_nothing_measures_and_reports(tmp_path: Path) -> None:
    """Without 1 and 2 the journal would get one of these numbers, and what a library prints would land in it."""
    small = [*SYNTHETIC, "cache=none", "workload=single", "measure=quick", "sweep.name=mute"]
    line = ["bash", "-c", '"$@" >&- 2>&-', "-", sys.executable, "-m", "zbench", "sweep", *small]
    done = subprocess.run(line, env={**environment(), "PYTHONUNBUFFERED": "1"}, cwd=tmp_path, check=False)
    assert done.returncode == 0
    lines = (tmp_path / "runs" / "mute" / RECORDS).read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["state"] for line in lines] == ["COMPLETE"]
    assert (tmp_path / "reports" / "mute" / "report.html").is_file()


def test_the_report_is_written_before_the_table_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unprintable(*_: object) -> str:
        raise ZbenchError("this table cannot be printed")

    records = [complete(trial()), failed(trial(DBCacheConfig()))]
    monkeypatch.setattr(conduct, "conduct", lambda *_: SweepResult(records, interrupted=False))
    monkeypatch.setattr("zbench.report.tables.main.render", unprintable)
    plan: Any = SimpleNamespace(
        name="demo", run_folder=tmp_path, report_folder=tmp_path / "report", command="", search=GRID
    )
    with pytest.raises(ZbenchError, match="cannot be printed"):
        measuring._execute(plan, "table")
    assert (tmp_path / "report" / "report.html").is_file()


class Narrow(io.TextIOWrapper):
    """A stream of another encoding, in memory."""

    def __init__(self, encoding: str) -> None:
        super().__init__(io.BytesIO(), encoding=encoding, write_through=True)

    @property
    def text(self) -> str:
        buffer = self.buffer
        assert isinstance(buffer, io.BytesIO)
        return buffer.getvalue().decode(self.encoding)


def printed(args: list[str], encoding: str, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    out, err = Narrow(encoding), Narrow(encoding)
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    assert main(args) in (Exit.DONE, Exit.REGRESSION)
    return out.text, err.text


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_what_an_encoding_lacks_is_replaced(encoding: str, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where = ["--runs-dir", str(runs)]
    text, _ = printed(["recommend", "demo", *where], encoding, monkeypatch)
    assert f"2.29{'x' if encoding == 'ascii' else '×'} the baseline's speed" in text
    text, _ = printed(["compare", "base", "slow", *where], encoding, monkeypatch)
    assert "\n-----  ---" in text and "+30.00 %" in text
    assert printed(["--help"], encoding, monkeypatch)[0].startswith("usage: zbench COMMAND [OPTION")


def test_json_loses_nothing_and_other_losses_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    out = GuardedStream(narrow := Narrow("ascii"))
    print('{"label": "中文 😀 é"}', file=out)
    assert narrow.text == '{"label": "\\u4e2d\\u6587 \\ud83d\\ude00 \\u00e9"}\n' and not out.lacks_characters
    print("中文 × …", file=out)
    assert narrow.text.endswith("\n?? x ...\n") and out.lacks_characters

    def says(command: Command, args: list[str]) -> int:
        print("中")
        return Exit.DONE

    monkeypatch.setitem(COMMANDS, "doctor", COMMANDS["doctor"]._replace(function=says))
    _, said = printed(["doctor"], "ascii", monkeypatch)
    assert said.startswith("note: stdout's encoding, ascii, lacks characters") and "PYTHONIOENCODING=utf-8" in said


def test_a_handler_writes_past_a_broken_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", fails)
    talk_from_handler("stopping")


@pytest.mark.parametrize("is_terminal", [False, True])
def test_progress_says_nothing_that_a_terminal_obeys(is_terminal: bool) -> None:
    (record,) = records = [failed(trial(), message=HOSTILE)]
    (figures,) = view_of(records).trials
    console = Console(file=io.StringIO(), force_terminal=is_terminal, color_system=None, width=40, legacy_windows=False)
    placed: Any = SimpleNamespace(trial=SimpleNamespace(trial_id="x", label=HOSTILE))
    progress = SweepProgress(Foresight(1, 1), console)
    progress.note(HOSTILE)
    progress.started(placed)
    progress.event(placed, {"event": "loading", "stage": "[/red]" + HOSTILE, "done_bytes": 1, "total_bytes": 2})
    console.print(progress._render())
    progress.finished(placed, record, figures)
    console.print(progress._render())
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "pwned" in text and not commands_to_ci(text)
    assert not unseen(text)


def test_a_long_load_says_nothing_that_a_terminal_obeys() -> None:
    console, seconds = Console(file=io.StringIO(), width=400), iter([0.0, *[9.0] * 99])
    bar = LoadingBar(console, clock=lambda: next(seconds))
    bar.event(HOSTILE, {"event": "loading"})
    bar.event(HOSTILE, {"event": "loading", "stage": HOSTILE, "done_bytes": 1, "total_bytes": 2})
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "each file checked" in text and not unseen(text) and not commands_to_ci(text)


def test_an_error_is_one_line_whatever_is_in_it(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["report", f"no{HOSTILE}".replace("\x00", ""), "--runs-dir", str(tmp_path)]) == Exit.BAD_INPUT
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("zbench: error: ") and not unseen(line) and not commands_to_ci(line)
