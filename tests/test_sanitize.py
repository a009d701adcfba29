"""Text from records and command lines does nothing where it is shown, and a command line still means what it says."""

import json
import subprocess

import pytest
from hostile import HOSTILE, unseen

from zbench.sanitize import csv_cell, json_text, printable, printable_lines, shell_line, without_folders


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("F1B0_W4_MC3_R0.24, 1.42× – 中文 é", "F1B0_W4_MC3_R0.24, 1.42× – 中文 é"),
        ("a\u00a0b\u3000c", "a\u00a0b\u3000c"),  # spaces of other widths are seen
        ("می\u200cخواهم 👩\u200d💻", "می\u200cخواهم 👩\u200d💻"),  # as such words and signs are spelled
        ("\x1b[2Jx", r"\x1b[2Jx"),
        ("\x9b31m", r"\x9b31m"),
        ("100 %\r0 %\b", r"100 %\r0 %\b".replace(r"\b", r"\x08")),
        ("a\nb\x0bc\x85d\u2028e", r"a\nb\x0bc\x85d\u2028e"),
        ("\u202egnp.exe\u2066\ufeff", r"\u202egnp.exe\u2066\ufeff"),
        ("\ud800", r"\ud800"),
        ("::error::x", r"\::error::x"),
        (" \t::add-mask::x", r" \t::add-mask::x"),
        ("  ::set-output name=a::b", r"  \::set-output name=a::b"),
        ("a ##[error]x ###[x] ##vso[task.x] ##teamcity[y]", r"a #\#[error]x ##\#[x] #\#vso[task.x] #\#teamcity[y]"),
        ("## a heading, module::Class", "## a heading, module::Class"),
    ],
)
def test_what_is_printed_can_be_seen_and_commands_nothing(text: str, shown: str) -> None:
    assert printable(text) == shown


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        (
            'File "/home/ann/my venv/lib/python3.11/site-packages/torch/nn/modules/module.py", line 7, in _call_impl',
            'File "torch/nn/modules/module.py", line 7, in _call_impl',
        ),
        ('File "/usr/lib/python3.11/json/__init__.py", line 3', 'File "python3.11/json/__init__.py", line 3'),
        (
            "/opt/conda/lib/python3.12/site-packages/a/lib/python3.12/site-packages/b.py:3: UserWarning: x",
            "b.py:3: UserWarning: x",
        ),
        ('File "/home/ann/zbench/zbench/worker/request.py"', 'File "zbench/worker/request.py"'),
        ("File '/tmp/zbench-rev-1/zbench/trial.py'", "File 'zbench/trial.py'"),
        ('  File "/srv/ann/plugins/mine/cache.py", line 3, in x', '  File "…/mine/cache.py", line 3, in x'),
        ("No such file: '/data/here/runs/s/x.png'", "No such file: 'runs/s/x.png'"),
        ("in /data/here, and /data/here2/x", "in ., and /data/here2/x"),
        ("/home/ann: gone; /home/anna and /home/ann/models", "~: gone; /home/anna and ~/models"),
        ("/var/scratch/zbench-noise-1/log", "$TMPDIR/zbench-noise-1/log"),
        ("https://host/lib/python3.11/site-packages/x", "https://host/lib/python3.11/site-packages/x"),
        ("a/b, 3/4 and /dev/nvidia0", "a/b, 3/4 and /dev/nvidia0"),
        ("nothing of the kind", "nothing of the kind"),
    ],
)
def test_what_a_program_said_names_no_folder_of_the_machine(
    said: str, kept: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.getcwd", lambda: "/data/here")
    monkeypatch.setenv("HOME", "/home/ann")
    monkeypatch.setattr("tempfile.gettempdir", lambda: "/var/scratch")
    assert without_folders(said) == kept == without_folders(kept)


def test_no_folder_is_known_where_the_current_one_is_gone_or_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone() -> str:
        raise FileNotFoundError

    monkeypatch.setenv("HOME", "/")
    monkeypatch.setattr("os.getcwd", gone)
    assert without_folders("cannot read /data/x") == "cannot read /data/x"


def test_lines_stay_lines_and_none_of_them_commands() -> None:
    assert printable_lines("Traceback\n  ::error::x\n\x1b[0m") == "Traceback\n  \\::error::x\n\\x1b[0m"


WORDS = [
    "zbench",
    "key=plain",
    "it's",
    "",
    "a\nrm -rf /\r\t\\n",
    "\x1b[2J\x85\u2028\u202e 中😀 'x' \\'",
    "##[error]x",
    "$HOME `id` $(id)",
    "::error::x",
]


def test_a_shell_reads_back_every_word_from_one_printable_line() -> None:
    line = shell_line(WORDS)
    assert line.isprintable() and printable(line) == line
    done = subprocess.run(["bash", "-c", f"printf '%s\\0' {line}"], capture_output=True, check=True)
    assert done.stdout.decode().split("\0")[:-1] == WORDS
    assert shell_line(["a", "b c"]) == "a 'b c'"


def test_a_byte_of_the_command_line_that_is_no_utf8_stays_that_byte() -> None:
    word = b"run-\xff".decode(errors="surrogateescape")
    assert shell_line([word]) == r"$'run-\xff'"


@pytest.mark.parametrize("text", [HOSTILE, "\x7f", "##[x]", "😀\ue000", "\ud800"])
def test_json_says_the_same_and_shows_nothing_unseen(text: str) -> None:
    written = json_text(json.dumps({"label": text}, ensure_ascii=False, indent=2))
    assert json.loads(written) == {"label": text}
    assert not unseen(written) and "##[" not in written


@pytest.mark.parametrize(
    "begins", ["=1+1", "+x", "-x", "@SUM(A1)", "\t=1", "\r=1", " =1", "＝1+1", "＋x", "－x", "＠x", "'=1"]
)
def test_no_cell_is_a_formula(begins: str) -> None:
    assert str(csv_cell(begins)).startswith("'")


@pytest.mark.parametrize("value", [-3.5, None, True, 7, "-3.5", "+1", "-1e-3", "none", "F1B0", "a=b", "", "–"])
def test_numbers_and_plain_words_stay_what_they_are(value: object) -> None:
    assert csv_cell(value) == value
