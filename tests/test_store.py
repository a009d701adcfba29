"""The journal loses nothing that was finished, and nobody else writes into it."""

import codecs
import errno
import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from factories import trial

from zbench.errors import RecordError, StoreError
from zbench.record import Reason, Record
from zbench.store import RECORDS, KeptRecords, Store, find_run, latest, read_records


def record(trial_id: str, state: str = "FAILED") -> Record:
    return Record(
        sweep="s",
        trial_id=trial_id,
        reference_id="base",
        baseline_id="base",
        label=trial_id,
        state=state,  # type: ignore[arg-type]
        config={
            **trial().to_dict(),
            "text": "紅 \u2028 line",
        },  # a Unicode line separator must not split a journal line
        environment={},
        reason=Reason("timeout", "took longer than 1 s", ("last line",)),
    )


def fill(folder: Path, *ids: str) -> None:
    with Store(folder, lambda text: None) as store:
        for trial_id in ids:
            store.append(record(trial_id))


def test_what_was_appended_is_read_back(tmp_path: Path) -> None:
    fill(tmp_path / "run", "a", "b")
    fill(tmp_path / "run", "c")
    assert read_records(tmp_path / "run" / RECORDS) == [record("a"), record("b"), record("c")]


def test_the_last_record_of_a_trial_counts(tmp_path: Path) -> None:
    with Store(tmp_path, lambda text: None) as store:
        store.append(record("a"))
        store.append(record("a", "PRUNED"))
        assert store.latest == {"a": record("a", "PRUNED")}
    with Store(tmp_path, lambda text: None) as store:
        assert store.latest == {"a": record("a", "PRUNED")}, "the same read back"
    assert [r.state for r in latest(read_records(tmp_path / RECORDS)).values()] == ["PRUNED"]


def test_a_sweep_of_very_many_trials_has_each_record_whole_and_few_of_them_at_hand(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Those that were not wanted lately are read from their line anew; one that is replaced is gone."""
    monkeypatch.setattr("zbench.store.AT_HAND", 3)
    ids = [f"{number:02}" for number in range(20)]
    with Store(tmp_path, lambda text: None) as store:
        for trial_id in ids:
            store.append(record(trial_id))
        store.append(record("05", "PRUNED"))
        assert list(store.latest) == ids and len(store.latest._at_hand) == 3
        wanted = {trial_id: record(trial_id, "PRUNED" if trial_id == "05" else "FAILED") for trial_id in ids}
        assert store.latest == wanted == dict(store.latest)
        assert store.appended == set(ids)
        (tmp_path / RECORDS).unlink()
        with pytest.raises(StoreError, match="was removed"):
            store.append(record("99"))
    assert {r.trial_id: r for r in read_records(tmp_path / RECORDS)} == {**wanted, "99": record("99")}
    with pytest.raises(KeyError):
        KeptRecords()["nothing"]


def test_a_torn_last_line_is_removed_with_a_notice_and_the_rest_stays(tmp_path: Path) -> None:
    fill(tmp_path, "a", "b")
    whole = (tmp_path / RECORDS).read_bytes()
    for cut in (1, len(record("b").to_json().encode()) // 2, len(record("b").to_json().encode()) - 1):
        (tmp_path / RECORDS).write_bytes(whole[: len(whole) - 1 - cut])
        assert [r.trial_id for r in read_records(tmp_path / RECORDS)] == ["a"]
        notices: list[str] = []
        with Store(tmp_path, notices.append) as store:
            assert list(store.latest) == ["a"]
            store.append(record("b"))
        assert len(notices) == 1 and "torn" in notices[0]
        assert (tmp_path / RECORDS).read_bytes() == whole


def test_a_last_line_that_lacks_only_its_line_feed_is_kept(tmp_path: Path) -> None:
    fill(tmp_path, "a", "b")
    whole = (tmp_path / RECORDS).read_bytes()
    (tmp_path / RECORDS).write_bytes(whole[:-1])
    notices: list[str] = []
    with Store(tmp_path, notices.append) as store:
        assert list(store.latest) == ["a", "b"]
    assert not notices and (tmp_path / RECORDS).read_bytes() == whole


def test_a_bad_line_in_the_middle_is_named_and_nothing_is_touched(tmp_path: Path) -> None:
    fill(tmp_path, "a", "b")
    lines = (tmp_path / RECORDS).read_bytes().split(b"\n")
    damaged = b"\n".join([lines[0], b"{half", *lines[1:]])
    (tmp_path / RECORDS).write_bytes(damaged)
    with pytest.raises(RecordError, match="line 2: not JSON"):
        Store(tmp_path, lambda text: None)
    assert (tmp_path / RECORDS).read_bytes() == damaged


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'{"benchmark": 1}\n', "not a zbench record"),
        (b"\xff\xfe\x00binary\n", "not a zbench journal"),
        (b"precious notes without a line feed", "not JSON"),
        (b'{"trial_id": "a", "schema_version": 99}\n', "schema_version 99 cannot be upgraded to 2"),
        (b'{"trial_id": "a", "schema_version": 1}\n', "not a valid record"),
        (b'{"trial_id": "a", "schema_version": NaN}\n', "NaN is not allowed"),
    ],
)
def test_a_foreign_file_is_refused_in_one_line(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / RECORDS).write_bytes(content)
    with pytest.raises(RecordError, match=says) as raised:
        read_records(tmp_path / RECORDS)
    assert "\n" not in str(raised.value) and RECORDS in str(raised.value)


def test_a_foreign_file_is_never_cut(tmp_path: Path) -> None:
    (tmp_path / RECORDS).write_bytes(b"precious notes without a line feed")
    with pytest.raises(RecordError, match="not JSON"):
        Store(tmp_path, lambda text: None)
    assert (tmp_path / RECORDS).read_bytes() == b"precious notes without a line feed"


def test_a_line_torn_inside_a_character_hides_no_other_line(tmp_path: Path) -> None:
    fill(tmp_path, "a", "b")
    whole = (tmp_path / RECORDS).read_bytes()
    inside = whole.rindex("紅".encode()) + 1
    (tmp_path / RECORDS).write_bytes(whole[:inside])
    assert [r.trial_id for r in read_records(tmp_path / RECORDS)] == ["a"]


def test_a_full_disk_is_one_clear_error_and_leaves_no_half_line(tmp_path: Path) -> None:
    """The kernel's own limit on file size stands in for the disk: a write past it fails the same way."""
    fill(tmp_path, "a")
    code = (
        "import resource, signal, sys; sys.path[:0] = sys.argv[2:]; from pathlib import Path\n"
        "from zbench.store import Store; from test_store import record\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "with Store(Path(sys.argv[1]), print) as store:\n"
        "    size = (Path(sys.argv[1]) / 'records.jsonl').stat().st_size\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 50, size + 50)); store.append(record('b'))"
    )
    command = [sys.executable, "-c", code, str(tmp_path), str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "StoreError: cannot append to" in done.stderr and "free some space" in done.stderr
    fill(tmp_path, "c")
    assert [r.trial_id for r in read_records(tmp_path / RECORDS)] == ["a", "c"]


def test_a_second_writer_is_refused_and_the_holder_named(tmp_path: Path) -> None:
    with (
        Store(tmp_path, lambda text: None),
        pytest.raises(StoreError, match=f"in use by process {os.getpid()} on "),
    ):
        Store(tmp_path, lambda text: None)
    fill(tmp_path, "a")  # free again


def test_the_lock_of_a_killed_holder_does_not_outlive_it(tmp_path: Path) -> None:
    code = (
        "import sys, os, signal; from pathlib import Path; from zbench.store import Store\n"
        "s = Store(Path(sys.argv[1]), print); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    fill(tmp_path, "a")
    assert len(read_records(tmp_path / RECORDS)) == 1


def test_an_unwritable_folder_is_named(tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("in the way")
    with pytest.raises(StoreError, match=r"cannot write run folder .*file/run.*sweep\.runs_dir="):
        Store(blocker / "run", lambda text: None)


def test_a_run_is_found_by_name_folder_and_journal(tmp_path: Path) -> None:
    fill(tmp_path / "mine", "a")
    journal = tmp_path / "mine" / RECORDS
    for run in ("mine", str(tmp_path / "mine"), str(journal)):
        assert find_run(run, tmp_path) == journal
    with pytest.raises(StoreError, match=r"no run 'other'.* has: mine"):
        find_run("other", tmp_path)


def test_a_record_without_a_number_is_never_written(tmp_path: Path) -> None:
    broken = Record("s", "a", "a", "a", "a", "FAILED", {"x": float("nan")}, {})
    with Store(tmp_path, lambda text: None) as store, pytest.raises(ValueError, match="not JSON compliant"):
        store.append(broken)
    assert read_records(tmp_path / RECORDS) == []


WHOLE = b"".join(record(i).to_json().encode() + b"\n" for i in "ab")
HALF = record("c").to_json().encode()[:40]
NULS = b"\0" * 4096


def opened(folder: Path, content: bytes) -> tuple[list[str], list[str], bytes, list[bytes]]:
    """What a store makes of a journal: trials, notices, the journal and copies of what was cut."""
    folder.mkdir(exist_ok=True)
    (folder / RECORDS).write_bytes(content)
    notices: list[str] = []
    with Store(folder, notices.append) as store:
        trials = list(store.latest)
    copies = [path.read_bytes() for path in sorted(folder.glob(f"{RECORDS}.torn-*"))]
    return trials, notices, (folder / RECORDS).read_bytes(), copies


@pytest.mark.parametrize(
    ("content", "trials", "left", "cut"),
    [
        (WHOLE + NULS, "ab", WHOLE, NULS),
        (WHOLE + HALF + NULS, "ab", WHOLE, HALF + NULS),
        (WHOLE[:-1] + NULS, "ab", WHOLE, NULS),
        (WHOLE + HALF, "ab", WHOLE, HALF),
        (NULS, "", b"", NULS),
        (HALF, "", b"", HALF),
        (WHOLE + b"\0" * 200_000, "ab", WHOLE, b"\0" * 200_000),
        (WHOLE.replace(b"\n", b"\r\n") + HALF, "ab", WHOLE.replace(b"\n", b"\r\n"), HALF),
        (WHOLE.replace(b"\n", b"\r") + HALF + NULS, "ab", WHOLE.replace(b"\n", b"\r"), HALF + NULS),
    ],
)
def test_a_torn_end_is_cut_and_a_copy_kept_beside(
    tmp_path: Path, content: bytes, trials: str, left: bytes, cut: bytes
) -> None:
    """NULs are what a file system leaves that lost power between making room for a line and writing it."""
    (tmp_path / RECORDS).write_bytes(content)
    assert [r.trial_id for r in read_records(tmp_path / RECORDS)] == list(trials), (
        "readers see the same, and cut nothing"
    )
    assert (tmp_path / RECORDS).read_bytes() == content
    found, notices, journal, copies = opened(tmp_path, content)
    assert (found, journal, copies) == (list(trials), left, [cut])
    assert len(notices) == 1 and f"{RECORDS}.torn-1" in notices[0]
    again = opened(tmp_path, content)
    assert again[3] == [cut, cut], "no copy is written over"
    fill(tmp_path, "z")
    assert [r.trial_id for r in read_records(tmp_path / RECORDS)] == [*trials, "z"]


@pytest.mark.parametrize("ends", [b"\r\n", b"\r", b"\n\n", b"\n" + b"\0" * 9 + b"\n"])
def test_other_line_ends_are_read_and_left_alone(tmp_path: Path, ends: bytes) -> None:
    content = WHOLE.replace(b"\n", ends)
    assert opened(tmp_path, content) == (["a", "b"], [], content, [])


def test_a_byte_order_mark_is_read_over_and_left_alone(tmp_path: Path) -> None:
    content = codecs.BOM_UTF8 + WHOLE
    assert opened(tmp_path, content) == (["a", "b"], [], content, [])


def test_a_torn_end_is_not_cut_where_no_copy_can_be_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / RECORDS).write_bytes(WHOLE + HALF)
    monkeypatch.setattr("zbench.store.keep", lambda *_: None)
    with pytest.raises(StoreError, match="cannot keep a copy"):
        Store(tmp_path, lambda text: None)
    assert (tmp_path / RECORDS).read_bytes() == WHOLE + HALF


def remove(journal: Path) -> None:
    journal.unlink()


def rename(journal: Path) -> None:
    journal.rename(journal.with_name("mine.jsonl"))


def remove_folder(journal: Path) -> None:
    shutil.rmtree(journal.parent)


def replace_by_copy(journal: Path) -> None:
    """As many editors save a file."""
    data = journal.read_bytes()
    journal.unlink()
    journal.with_name("taken").touch()  # so that its inode is another
    journal.write_bytes(data)


def replace_by_folder(journal: Path) -> None:
    journal.unlink()
    journal.mkdir()


def empty(journal: Path) -> None:
    journal.write_bytes(b"")


def write_into(journal: Path) -> None:
    with journal.open("ab") as file:
        file.write(b"a note")


@pytest.mark.parametrize(
    "happens", [remove, rename, remove_folder, replace_by_copy, replace_by_folder, empty, write_into]
)
@pytest.mark.parametrize("is_last", [False, True], ids=["append", "check"])
def test_a_journal_that_somebody_touches_while_it_is_written_stops_it_and_nothing_is_lost(
    tmp_path: Path, happens: Callable[[Path], None], is_last: bool
) -> None:
    folder = tmp_path / "run"
    with Store(folder, lambda text: None) as store:
        store.append(record("a"))
        store.append(record("b"))
        happens(folder / RECORDS)
        with pytest.raises(StoreError) as raised:
            store.check() if is_last else store.append(record("c"))
    said = str(raised.value)
    assert "\n" not in said and str(folder / RECORDS) in said
    (kept,) = [
        path for path in folder.glob(f"{RECORDS}*") if path.is_file() and str(path) in said.split(" are in ")[1]
    ][-1:]
    assert [r.trial_id for r in read_records(kept)] == ["a", "b"] + ([] if is_last else ["c"])
    if happens in (remove, rename, remove_folder):
        assert kept == folder / RECORDS and "the same command goes on" in said
        fill(folder, "d")
        assert len(read_records(folder / RECORDS)) == (3 if is_last else 4)


def test_a_journal_that_cannot_be_read_any_more_is_no_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may read anything, so the refusal is the kernel's in name only."""
    opens = os.open

    def refuse(path: Any, *rest: Any) -> int:
        if str(path).endswith(RECORDS):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return opens(path, *rest)

    with Store(tmp_path, lambda text: None) as store:
        store.append(record("a"))
        monkeypatch.setattr("zbench.files.os.open", refuse)
        with pytest.raises(StoreError, match=r"cannot be read any more \(Permission denied\).*rescued-1"):
            store.check()


def test_a_lock_that_was_removed_is_put_back_and_keeps_others_out(tmp_path: Path) -> None:
    notices: list[str] = []
    with Store(tmp_path, notices.append) as store:
        store.append(record("a"))
        (tmp_path / "lock").unlink()
        with pytest.raises(StoreError, match="in use by another process, whose lock file was removed"):
            Store(tmp_path, lambda text: None)
        store.append(record("b"))
        assert len(notices) == 1 and "put back" in notices[0]
        with pytest.raises(StoreError, match=f"in use by process {os.getpid()} on "):
            Store(tmp_path, lambda text: None)
    assert len(read_records(tmp_path / RECORDS)) == 2


def test_a_lock_that_another_program_took_meanwhile_stops_the_writer(tmp_path: Path) -> None:
    """As an older zbench may, which locks no journal."""
    with Store(tmp_path, lambda text: None) as store:
        store.append(record("a"))
        (tmp_path / "lock").unlink()
        with open(tmp_path / "lock", "w") as theirs:
            fcntl.flock(theirs, fcntl.LOCK_EX | fcntl.LOCK_NB)
            theirs.write("process 1 on another machine")
            theirs.flush()
            with pytest.raises(
                StoreError, match=r"its lock was removed.*in use by process 1 on another.*2 trials are in"
            ):
                store.append(record("b"))


def test_a_lock_that_is_replaced_between_opening_and_locking_is_not_taken_for_the_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, locks, replaced = tmp_path / "lock", fcntl.flock, []

    def replace_once(file: Any, how: int) -> None:
        if not replaced:
            replaced.append(lock.stat().st_ino)
            lock.rename(tmp_path / "old")
            lock.touch()
        locks(file, how)

    monkeypatch.setattr("zbench.files.fcntl.flock", replace_once)
    with Store(tmp_path, lambda text: None) as store:
        assert lock.stat().st_ino != replaced[0] and lock.read_text().startswith("process ")
        store.append(record("a"))


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ESTALE, errno.EOPNOTSUPP, errno.EIO])
def test_a_file_system_without_locks_is_one_line_and_not_another_process(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(file: Any, how: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("zbench.files.fcntl.flock", refuse)
    with pytest.raises(StoreError) as raised:
        Store(tmp_path, lambda text: None)
    assert os.strerror(number) in str(raised.value) and "in use" not in str(raised.value)


@pytest.mark.parametrize("name", [RECORDS, "lock"])
@pytest.mark.parametrize("kind", ["device", "fifo", "folder"])
def test_what_is_no_file_is_no_journal_and_no_lock(tmp_path: Path, name: str, kind: str) -> None:
    match kind:
        case "device":
            (tmp_path / name).symlink_to("/dev/full")
        case "fifo":
            os.mkfifo(tmp_path / name)
        case _:
            (tmp_path / name).mkdir()
    with pytest.raises(StoreError, match=name):
        Store(tmp_path, lambda text: None)
    (tmp_path / name).rmdir() if kind == "folder" else (tmp_path / name).unlink()
    fill(tmp_path, "a")


def test_a_lock_without_room_for_its_holder_s_name_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("zbench.files.os.fsync", no_room)
    with pytest.raises(StoreError, match=r"lock: No space left on device; free some space"):
        Store(tmp_path, lambda text: None)


def test_a_line_without_room_is_kept_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    syncs, full = os.fsync, [True]

    def no_room_once(descriptor: int) -> None:
        if full.pop() if full else False:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        syncs(descriptor)

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "elsewhere"))
    (tmp_path / "elsewhere").mkdir()
    with Store(tmp_path / "run", lambda text: None) as store:
        store.append(record("a"))
        monkeypatch.setattr("zbench.files.os.fsync", no_room_once)
        with pytest.raises(
            StoreError, match=r"cannot append to .*free some space: about 0.1 MB are needed, .* is kept in "
        ):
            store.append(record("b"))
        store.append(record("c"))
    (kept,) = (tmp_path / "elsewhere").iterdir()
    assert [r.trial_id for r in read_records(kept)] == ["b"]
    assert [r.trial_id for r in read_records(tmp_path / "run" / RECORDS)] == ["a", "c"]
