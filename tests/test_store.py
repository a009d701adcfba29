"""The journal loses nothing that was finished, and nobody else writes into it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from factories import trial

from zbench.errors import RecordError, StoreError
from zbench.record import Reason, Record
from zbench.store import RECORDS, Store, find_run, latest, read_records


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
