"""Prompts come from one word or from a file, arrive as they were written, and are what names a trial."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
from composing import jobs

from zbench.composition.prompts import read_prompts
from zbench.config import Prompt, WorkloadConfig
from zbench.errors import ConfigError, ZbenchError
from zbench.trial import Trial

SMALL = ("pipeline=zimage_tiny", "hardware=cpu")
GUIDED = (*SMALL, "pipeline.guidance_scale=4")

TEXTS = [
    'a cat, 50 % "wow"',
    "a=b",
    "${pipeline.height} and ${nothing}",
    "\\${x} \\\\${y}",
    "'all quoted'",
    '"all quoted"',
    "{a:1,a:2}",
    "[x",
    "左边有一个大的红色圆形",
    "\\",
    "42 cats",
    "null",
    "true",
    "two\nlines",
    "???",
    " leading",
    "#c",
    "choice(a,b)",
    "range(1,5,0)",
    "👩‍🎨 paints",
]


def workload(*overrides: str, **options: object) -> WorkloadConfig:
    (job,) = jobs(*overrides, **options).jobs
    return job.config.workload


def refusal(*overrides: str) -> str:
    with pytest.raises(ZbenchError) as raised:
        jobs(*overrides)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_any_text_arrives_untouched_as_one_word() -> None:
    for text in TEXTS:
        (prompt,) = workload(*SMALL, f"workload.prompt={text}").prompts
        assert prompt == Prompt(id="p0", text=text)
    for text in ("${nothing} [x", "???", "null"):  # where another value is resolved point by point
        made = workload(
            *GUIDED, "pipeline.width=${pipeline.height}", f"+workload.negative_prompt={text}", "workload=single"
        )
        assert made.prompts[0].negative_prompt == text


def test_what_hydra_is_given_says_the_same_text(monkeypatch: pytest.MonkeyPatch) -> None:
    from zbench.composition import grammar

    (job,) = jobs(*SMALL, "workload.prompt=a ${b}, 'c' \\${d}").jobs
    monkeypatch.setattr(grammar, "TEXT_KEYS", ())
    (again,) = jobs(*job.overrides).jobs
    assert again.config == job.config


@pytest.mark.parametrize("suffix", ["txt", "jsonl", "csv"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_files_say_the_same_whatever_their_mark_and_line_ends(
    suffix: str, encoding: str, line_end: str, tmp_path: Path
) -> None:
    lines = {
        "txt": ["a large circle, on white", "", "左边有一个圆形", '  a sign "CAT: 50 %"  '],
        "jsonl": [
            '{"prompt": "a large circle, on white"}',
            "",
            '{"text": "左边有一个圆形"}',
            '{"id": null, "prompt": "a sign \\"CAT: 50 %\\""}',
        ],
        "csv": ["prompt", '"a large circle, on white"', "左边有一个圆形", "", '"a sign ""CAT: 50 %"""'],
    }
    path = tmp_path / f"prompts.{suffix}"
    path.write_bytes(line_end.join(lines[suffix]).encode(encoding))
    assert read_prompts(path) == [
        Prompt(id="p0", text="a large circle, on white"),
        Prompt(id="p1", text="左边有一个圆形"),
        Prompt(id="p2", text='a sign "CAT: 50 %"'),
    ]


def test_marks_amid_files_that_were_put_together_say_nothing(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_bytes("\ufeffa cat\r\n\ufeffa dog\n".encode())
    assert [prompt.text for prompt in read_prompts(path)] == ["a cat", "a dog"]


def test_a_cell_may_be_as_long_as_a_line(tmp_path: Path) -> None:
    path = tmp_path / "prompts.csv"
    path.write_text("prompt\n" + "a" * 200_000 + "\n")
    assert [len(prompt.text) for prompt in read_prompts(path)] == [200_000]


def test_a_file_may_say_more_of_a_prompt_and_ids_stay_unique(tmp_path: Path) -> None:
    path = tmp_path / "prompts.csv"
    path.write_text("id,prompt,negative_prompt,language,scene\np1,a,blurry,,\n,b,,zh,large red circle left; on white\n")
    scene = "large red circle left; on white"
    assert read_prompts(path) == [
        Prompt(id="p1", text="a", negative_prompt="blurry"),
        Prompt(id="p1_", text="b", language="zh", scene=scene),
    ]
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"id": 7, "prompt": "a"}\n')
    assert read_prompts(path) == [Prompt(id="7", text="a")]


def test_a_trial_is_named_by_what_prompts_say_and_not_by_where_they_lay(tmp_path: Path) -> None:
    trials = []
    for name in ("one.txt", "two.txt"):
        (tmp_path / name).write_text("a cat\n")
        (job,) = jobs(*SMALL, f"workload.prompts_file={tmp_path / name}").jobs
        trials.append(Trial.from_config(job.config, projected=False))
    assert trials[0] == trials[1] and trials[0].to_dict()["workload"]["prompts"][0]["text"] == "a cat"
    both = jobs(*SMALL, f"workload.prompts_file={tmp_path / 'one.txt'},{tmp_path / 'two.txt'}").jobs
    assert len(both) == 1, "an axis of files, of which two say the same"
    (tmp_path / "two.txt").write_text("a dog\n")
    assert len(jobs(*SMALL, f"workload.prompts_file={tmp_path / 'one.txt'},{tmp_path / 'two.txt'}").jobs) == 2


def test_a_workload_of_the_users_own_may_name_a_file_and_what_is_typed_counts(tmp_path: Path) -> None:
    (tmp_path / "workload").mkdir()
    (tmp_path / "prompts.txt").write_text("a cat\n")
    (tmp_path / "workload" / "mine.yaml").write_text(
        "defaults:\n  - /schema/workload@_here_: workload\n  - _self_\n"
        f"name: mine\nprompts_file: {tmp_path}/prompts.txt\n"
    )
    own = workload(*SMALL, "workload=mine", config_dir=str(tmp_path))
    assert (own.name, [p.text for p in own.prompts]) == ("mine", ["a cat"])
    typed = workload(*SMALL, "workload=mine", "workload.prompt=a dog", config_dir=str(tmp_path))
    assert (typed.name, [p.text for p in typed.prompts]) == ("prompt", ["a dog"])
    listed = workload(*SMALL, "workload=mine", "workload.prompts=[{id:x,text:y}]", config_dir=str(tmp_path))
    assert [p.text for p in listed.prompts] == ["y"]


def test_a_negative_prompt_is_every_prompts_that_has_none_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "a", "negative_prompt": "own"}\n{"prompt": "b"}\n')
    made = workload(*GUIDED, f"workload.prompts_file={path}", "workload.negative_prompt=blurry, dark")
    assert [p.negative_prompt for p in made.prompts] == ["own", "blurry, dark"]
    assert made.negative_prompt == ""


def test_a_negative_prompt_that_would_change_nothing_is_refused() -> None:
    said = refusal(*SMALL, "workload=single", "workload.negative_prompt=blurry")
    assert said.startswith("workload.negative_prompt='blurry'") and "pipeline.guidance_scale above 0" in said


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (("workload.prompt=a", "workload.prompts_file=b.txt"), "both say what is painted; type one"),
        (("workload.prompt=a", "workload.prompts=[]"), "both say what is painted; type one"),
        (("workload.prompts_file=a.txt", "workload.prompts.0.text=b"), "both say what is painted; type one"),
        (("workload.prompt=a", "workload.prompt=b"), "both decide workload.prompt; type one of them"),
        (("workload.prompt=",), "workload.prompt='': is empty"),
        (("workload.prompt= \t",), "is empty; say what to paint"),
        (("workload.prompt=a\x00b",), "U+0000, which is no text"),
        (("workload.prompt=\x1b[31mred",), "U+001B, which is no text"),
        (("workload.prompt=\udcff",), "bytes that are not UTF-8"),
        (("workload.prompts_file=",), "needs a txt, jsonl or csv file"),
        (("workload.prompts_file=/no/such.txt",), "workload.prompts_file=/no/such.txt: cannot be read (No such file"),
        (("workload.prompts_file=~/文件.txt",), "cannot be read (No such file"),
        (("workload.prompts_file=prompts.json",), "must end in one of .txt, .jsonl, .csv"),
        (("workload.prompts_file=null", "workload.prompts=[]"), "both say what is painted"),
    ],
)
def test_bad_words_are_one_line(overrides: tuple[str, ...], says: str) -> None:
    assert says in refusal(*SMALL, *overrides)


LATIN = "Käse\n".encode("latin-1")
BAD_FILES = [
    ("a.txt", b"", "holds no prompt"),
    ("a.txt", b"\n \n", "holds no prompt"),
    ("a.txt", b"cat\n" + LATIN, "a.txt, line 2: is not UTF-8; save it as UTF-8"),
    ("a.txt", "a cat".encode("utf-16"), "is not UTF-8 but UTF-16; save it as UTF-8"),
    ("a.txt", "a cat".encode("utf-16-le"), "UTF-16 or no text at all; save it as UTF-8"),
    ("a.txt", b"a cat\x00", "no text at all; save it as UTF-8"),
    ("a.txt", "a cat".encode("utf-32"), "is not UTF-8 but UTF-32"),
    ("a.txt", "a \uffff cat".encode(), "holds U+FFFF, which is no text"),
    ("a.jsonl", b'[{"prompt": "a"},\n{"prompt": "b"}]', "write one a line"),
    ("a.csv", b"prompt,\na,\n", "a.csv, line 1: no field ''"),
    ("a.txt", b"a \x07 cat", "a.txt, line 1: text='a \\x07 cat': holds U+0007"),
    ("a.jsonl", b'{"prompt": "a"}\n{"prompt"', "a.jsonl, line 2: no JSON object"),
    ("a.jsonl", b'["a"]', "a.jsonl, line 1: no JSON object; write {"),
    ("a.jsonl", b"[" * 100_000, "a.jsonl, line 1: no JSON object"),
    ("a.jsonl", b'{"prompt": 3}', "a.jsonl, line 1: prompt is no text but 3; put it in quotes"),
    ("a.jsonl", b'{"prompt": ["a"]}', 'a.jsonl, line 1: prompt is no text but ["a"]'),
    ("a.jsonl", b'{"prompt": "a", "text": "b"}', "has both prompt and text"),
    ("a.jsonl", b'{"prompt": "a", "prompt": "b"}', "stands there twice"),
    ("a.jsonl", b'{"promt": "a"}', "no field 'promt'; a prompt has id, prompt"),
    ("a.jsonl", b'{"id": "x"}', "prompt is empty or not there"),
    ("a.jsonl", b'{"id": "x", "prompt": "a"}\n\n{"id": "x", "prompt": "b"}', "line 3: id x is that of"),
    (
        "a.jsonl",
        json.dumps({"id": "x" * 300, "prompt": "a"}).encode(),
        "id=xxxxxxxxxxxxxxxxxxxx…: is part of file",
    ),
    ("a.jsonl", b'{"id": "../x", "prompt": "a"}', "line 1: id=../x: is part of file names"),
    ("a.jsonl", b'{"prompt": "\\ud800"}', "U+D800, which is no text"),
    ("a.csv", b"cat\ndog\n", "a.csv, line 1: 'cat': the first line must name the columns"),
    ("a.csv", b"id;prompt\n1;cat\n", "must name the columns, separated by commas"),
    ("a.csv", b"prompt,prompt\na,b\n", "names a column twice"),
    ("a.csv", b"id,prompt\n1,a cat, a dog\n", "a.csv, line 2: 3 cells, and the first line names 2; quote"),
    ("a.csv", b'prompt\n"a\n', "cannot be read as csv"),
    ("a.csv", b"prompt,colour\na,b\n", "no field 'colour'"),
    ("a.csv", b"prompt\n", "holds no prompt"),
]


@pytest.mark.parametrize(("name", "data", "says"), BAD_FILES)
def test_bad_files_are_one_line_that_names_file_and_line(name: str, data: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ZbenchError) as raised:
        read_prompts(tmp_path / name)
    assert says in str(raised.value) and str(tmp_path) in str(raised.value) and "\n" not in str(raised.value)


def test_a_folder_in_a_files_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(ZbenchError, match=r"workload\.prompts_file=.*a\.txt: cannot be read \(Is a directory\)"):
        read_prompts(tmp_path / "a.txt")


@pytest.mark.parametrize(
    ("prompts", "says"),
    [
        ([Prompt("a", "x"), Prompt("A", "y")], "another is a, the same file on many systems"),
        ([Prompt("é", "x"), Prompt("e\u0301", "y")], "letters, digits"),
        ([Prompt("a", "x"), Prompt("a", "y")], "two prompts have this id"),
        ([Prompt("", "x")], "workload.prompts[0].id=''"),
        ([Prompt("a/b", "x")], "letters, digits, '_', '-' and '.'"),
        ([Prompt("..", "x")], "letters, digits"),
        ([Prompt("图" * 50, "x")], "at most 128 bytes, and this has 150"),
        ([Prompt("a", " ")], "prompt a is empty"),
    ],
)
def test_ids_become_file_names(prompts: list[Prompt], says: str) -> None:
    from zbench.config.pipeline import check_workload

    with pytest.raises(ConfigError) as raised:
        check_workload(WorkloadConfig(name="w", prompts=prompts))
    assert says in str(raised.value)


def test_new_keys_do_not_change_trials_that_do_not_use_them() -> None:
    (job,) = jobs(*SMALL, "workload=single").jobs
    trial = Trial.from_config(job.config, projected=False)
    written = trial.to_dict()["workload"]
    assert set(written) == {"name", "prompts", "seeds"}
    assert set(written["prompts"][0]) == {"id", "text", "language", "scene"}
    negative = [replace(trial.workload.prompts[0], negative_prompt="blurry")]
    guided = replace(trial, workload=replace(trial.workload, prompts=negative))
    assert guided.trial_id != trial.trial_id
    assert guided.to_dict()["workload"]["prompts"][0]["negative_prompt"] == "blurry"
    assert Trial.from_dict(guided.to_dict()) == guided


def test_a_cell_may_be_as_long_as_its_file_and_other_readers_keep_their_limit(tmp_path: Path) -> None:
    before, long = csv.field_size_limit(), "a cat, " * 30_000
    for text in (long, "a cat"):
        (tmp_path / "p.csv").write_text(f'prompt\n"{text}"\n', encoding="utf-8")
        assert [prompt.text.strip() for prompt in read_prompts(tmp_path / "p.csv")] == [text.strip()]
        assert csv.field_size_limit() == before


def test_prompts_of_a_file_may_have_a_size_and_steps_of_their_own(tmp_path: Path) -> None:
    lines, table = tmp_path / "p.jsonl", tmp_path / "p.csv"
    lines.write_text('{"prompt": "a"}\n{"prompt": "b", "width": 512, "steps": 4}\n')
    table.write_text("prompt,width,steps\na,,\nb,512,4\n")
    for path in (lines, table):
        assert [prompt.own for prompt in read_prompts(path)] == [{}, {"width": 512, "steps": 4}]


@pytest.mark.parametrize(
    ("field", "told"),
    [
        ('"width": "wide"', 'line 1: width is no whole number but "wide"'),
        ('"width": 500', "line 1: width=500: must be a positive multiple of 16 pixels; nearest: 496 and 512"),
        ('"steps": 0', "line 1: steps=0: must be at least 1"),
        ('"steps": 4.5', "line 1: steps is no whole number but 4.5"),
        ('"height": true', "line 1: height is no whole number but true"),
    ],
)
def test_a_size_that_is_none_is_named_with_its_line(field: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(f'{{"prompt": "a", {field}}}\n')
    with pytest.raises(ZbenchError) as raised:
        read_prompts(path)
    assert told in str(raised.value)
