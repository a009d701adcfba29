"""No file is read twice, in no process, and no replacement is missed; a bad memory is no memory."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from zbench.zimage import digests
from zbench.zimage.digests import FORMAT, files_sha256, memory_file


@pytest.fixture(autouse=True)
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ZBENCH_DIGESTS_DIR", str(tmp_path / "memory"))
    monkeypatch.setattr(digests, "_known", {})
    return tmp_path / "memory" / "digests.json"


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are read from now on."""
    names: list[str] = []
    real = digests._read
    monkeypatch.setattr(digests, "_read", lambda path, count: (names.append(path.name), real(path, count))[1])
    return names


def forget() -> None:
    """As a new process begins."""
    digests._known.clear()


def digest(path: Path) -> str:
    (found,) = files_sha256([path])
    return found


def made(path: Path, data: bytes = b"old weights") -> Path:
    path.write_bytes(data)
    return path


def test_a_second_reading_reads_no_file_in_this_process_and_in_the_next(tmp_path: Path, opened: list[str]) -> None:
    paths = [made(tmp_path / name, name.encode()) for name in ("a", "b")]
    expected = [hashlib.sha256(name).hexdigest() for name in (b"a", b"b")]
    for _ in range(2):
        assert files_sha256(paths) == expected and sorted(opened) == ["a", "b"]
    forget()
    assert files_sha256(paths[::-1]) == expected[::-1] and sorted(opened) == ["a", "b"]


def test_what_another_process_read_is_not_read_here(tmp_path: Path, opened: list[str]) -> None:
    path = made(tmp_path / "a")
    digest(made(tmp_path / "b"))  # this process has looked into the memory before
    code = "import sys, pathlib; from zbench.zimage.digests import *; files_sha256([pathlib.Path(sys.argv[1])])"
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
    assert digest(path) == hashlib.sha256(b"old weights").hexdigest() and opened == ["b"]


def replaced_in_place(path: Path, new: bytes) -> None:
    path.write_bytes(new)


def replaced_by_another_file(path: Path, new: bytes) -> None:
    other = made(path.with_name("other"), new)
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    os.replace(other, path)


def replaced_with_its_date(path: Path, new: bytes) -> None:
    """As `cp -p` and `rsync --inplace` do: same inode, size and date."""
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    path.write_bytes(new)
    os.utime(path, ns=times)


@pytest.mark.parametrize("replace", [replaced_in_place, replaced_by_another_file, replaced_with_its_date])
@pytest.mark.parametrize("process", ["same", "next"])
def test_a_replacement_of_the_same_size_is_seen(replace: object, process: str, tmp_path: Path) -> None:
    path = made(tmp_path / "a")
    before = digest(path)
    replace(path, b"new weights")  # type: ignore[operator]
    if process == "next":
        forget()
    assert digest(path) == hashlib.sha256(b"new weights").hexdigest() != before


def test_changes_in_quick_succession_are_all_seen(tmp_path: Path) -> None:
    """Faster than the kernel's clock ticks."""
    path = tmp_path / "a"
    for number in range(20):
        made(path, b"%d" % (number + 10))
        assert digest(path) == hashlib.sha256(b"%d" % (number + 10)).hexdigest()


def test_a_link_is_what_it_leads_to(tmp_path: Path, opened: list[str]) -> None:
    """As in the Hugging Face cache, where a snapshot's files are links to blobs."""
    old, new = made(tmp_path / "blob-1"), made(tmp_path / "blob-2", b"new weights")
    link = tmp_path / "model.safetensors"
    link.symlink_to("blob-1")
    assert digest(link) == digest(old) and opened == ["blob-1"]
    link.unlink()
    link.symlink_to("blob-2")
    assert digest(link) == digest(new) and opened == ["blob-1", "blob-2"]


def test_a_file_that_changes_while_it_is_read_is_not_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory: Path
) -> None:
    path = made(tmp_path / "a")
    monkeypatch.setattr(digests, "CHUNK_BYTES", 4)
    digests._read_all([path], lambda read: path.write_bytes(b"new weights") if path.read_bytes()[:1] == b"o" else None)
    assert digest(path) == hashlib.sha256(b"new weights").hexdigest()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        '{"format": "another program\'s", "files": {}}',
        json.dumps({"format": FORMAT, "files": []}),
        json.dumps({"format": FORMAT, "files": {"a": None, "b": [1, 2, 3, 4], "c": [1, 2, 3, True, "0" * 64]}}),
        "[" * 100_000,
        "ä",
    ],
)
def test_a_broken_or_foreign_memory_is_replaced(content: str, memory: Path, tmp_path: Path, opened: list[str]) -> None:
    memory.parent.mkdir()
    memory.write_text(content, encoding="utf-8")
    path = made(tmp_path / "a")
    assert digest(path) == hashlib.sha256(b"old weights").hexdigest()
    forget()
    assert digest(path) and opened == ["a"], "what was written in its place is a memory"
    assert list(json.loads(memory.read_text())["files"]) == [str(path)]


def test_an_entry_with_a_digest_that_is_none_is_read_anew(memory: Path, tmp_path: Path) -> None:
    path = made(tmp_path / "a")
    before = digest(path)
    memory.write_text(memory.read_text().replace(before, "not a digest"))
    forget()
    assert digest(path) == before


def test_a_memory_that_is_a_folder_or_cannot_be_written_costs_nothing_but_time(
    memory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.mkdir(parents=True)
    assert digest(made(tmp_path / "a"))
    assert list(memory.parent.iterdir()) == [memory], "nothing is left lying about"
    monkeypatch.setenv("ZBENCH_DIGESTS_DIR", str(made(tmp_path / "file") / "below"))
    assert digest(made(tmp_path / "b"))


def test_the_memory_is_bounded_and_forgets_the_oldest(
    memory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "MOST_FILES", 3)
    for name in ("a", "b", "c", "a", "d"):
        digest(made(tmp_path / name, name.encode() * len(name)))
    assert [Path(path).name for path in json.loads(memory.read_text())["files"]] == ["c", "a", "d"]


def test_writers_keep_what_others_have_written(memory: Path, tmp_path: Path) -> None:
    digest(made(tmp_path / "a"))
    forget()  # and so does not know what it does not need
    digest(made(tmp_path / "b"))
    assert len(json.loads(memory.read_text())["files"]) == 2
    assert [path.name for path in memory.parent.iterdir()] == ["digests.json"]


def test_it_lies_in_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ZBENCH_DIGESTS_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert memory_file() == tmp_path / "zbench" / "digests.json"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # the specification has it ignored
    assert memory_file() == Path.home() / ".cache" / "zbench" / "digests.json"


def test_a_file_that_is_gone_is_an_error_remembered_or_not(tmp_path: Path) -> None:
    path = made(tmp_path / "gone")
    digest(path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match="gone"):
        digest(path)


def test_a_moved_folder_is_read_again(tmp_path: Path, opened: list[str]) -> None:
    """A digest is a path's: two machines that share a cache folder do not answer for each other."""
    (tmp_path / "one").mkdir()
    path = made(tmp_path / "one" / "a")
    before = digest(path)
    moved = Path(shutil.move(tmp_path / "one", tmp_path / "two")) / "a"
    assert digest(moved) == before and opened == ["a", "a"]
