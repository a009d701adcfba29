"""Words through a folder: whole, in order, once; and who is silent is gone, whatever the clocks say."""

from pathlib import Path

import pytest

from zbench.executors.remote.spool import INLINE_BYTES, Ear, Pulse, SpoolReader, SpoolWriter, journal, left_in

LARGE = bytes(range(256)) * (INLINE_BYTES // 256 + 1)


class Clock:
    """Seconds, as a test says."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_messages_come_whole_in_their_order_and_once(tmp_path: Path) -> None:
    writer, reader = SpoolWriter(tmp_path), SpoolReader(tmp_path)
    assert list(reader.received()) == []
    for message in (b"first", LARGE, b"", b"line\nfeed"):
        writer.send(message)
    assert list(reader.received()) == [b"first", LARGE, b"", b"line\nfeed"]
    assert list(reader.received()) == []
    writer.send(b"more")
    assert list(reader.received()) == [b"more"]


def test_what_was_read_takes_no_room_but_its_line(tmp_path: Path) -> None:
    writer, reader = SpoolWriter(tmp_path), SpoolReader(tmp_path)
    for _ in range(3):
        writer.send(LARGE)
    assert len(list(tmp_path.iterdir())) == 4
    assert list(reader.received()) == [LARGE] * 3
    assert list(reader.received()) == []
    assert list(tmp_path.iterdir()) == [journal(tmp_path)] and journal(tmp_path).stat().st_size < 200


def test_nobody_else_may_read_what_is_said(tmp_path: Path) -> None:
    SpoolWriter(tmp_path).send(LARGE)
    assert {path.stat().st_mode & 0o077 for path in tmp_path.iterdir()} == {0}


def test_a_line_counts_once_it_is_whole(tmp_path: Path) -> None:
    SpoolWriter(tmp_path).send(b"whole")
    line = journal(tmp_path).read_bytes()
    reader = SpoolReader(tmp_path)
    journal(tmp_path).write_bytes(line + line[:-3])
    assert list(reader.received()) == [b"whole"]
    assert list(reader.received()) == []
    journal(tmp_path).write_bytes(line + line)
    assert list(reader.received()) == [b"whole"]


def test_a_reader_that_is_cut_off_in_a_message_has_that_again(tmp_path: Path) -> None:
    writer, reader = SpoolWriter(tmp_path), SpoolReader(tmp_path)
    writer.send(b"first")
    writer.send(b"second")
    assert next(reader.received()) == b"first"
    assert list(reader.received()) == [b"second"]


def test_what_a_reader_that_was_killed_had_not_dealt_with_is_left(tmp_path: Path) -> None:
    """It is done with what it read when it looks again. What is in a line stays, and is told once more."""
    writer, reader = SpoolWriter(tmp_path), SpoolReader(tmp_path)
    first, second, third = (bytes([n]) * len(LARGE) for n in range(3))
    for message in (b"small", first):
        writer.send(message)
    assert list(reader.received()) == [b"small", first]
    assert list(left_in(tmp_path)) == [b"small", first]
    writer.send(second)
    assert list(reader.received()) == [second]
    writer.send(third)
    with journal(tmp_path).open("ab") as file:
        file.write(b'{"inline": "YW5k')
    for _ in range(2):
        assert list(left_in(tmp_path)) == [b"small", second, third], "nothing is taken away"
    assert list(left_in(tmp_path / "nowhere")) == []


@pytest.mark.parametrize("line", ["[]", "{}", '{"file": "../x"}', '{"inline": 1}', "not JSON", '{"inline": "%"}'])
def test_what_is_no_message_is_an_error_that_names_the_file(tmp_path: Path, line: str) -> None:
    journal(tmp_path).write_text(f"{line}\n")
    with pytest.raises(ValueError):
        list(SpoolReader(tmp_path).received())


def test_no_file_outside_its_folder_is_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    folder = tmp_path / "spool"
    folder.mkdir()
    journal(folder).write_text('{"file": "../secret"}\n')
    with pytest.raises(ValueError, match="is no message"):
        list(SpoolReader(folder).received())
    assert (tmp_path / "secret").exists()


def test_who_beats_is_heard_and_who_does_not_is_silent_ever_longer(tmp_path: Path) -> None:
    clock = Clock()
    pulse, ear = Pulse(tmp_path / "pulse", 2.0, clock), Ear(tmp_path / "pulse", clock)
    for _ in range(10):
        clock.now_s += 1.0
        pulse.beat()
        assert ear.silent_s() <= 1.0
    for silent_s in range(1, 9):
        clock.now_s += 1.0
        assert silent_s - 1 <= ear.silent_s() <= silent_s


def test_a_pulse_writes_no_more_often_than_it_is_asked_to(tmp_path: Path) -> None:
    clock = Clock()
    pulse = Pulse(tmp_path / "pulse", 10.0, clock)
    said = {(tmp_path / "pulse").read_text()}
    for _ in range(20):
        clock.now_s += 1.0
        pulse.beat()
        said.add((tmp_path / "pulse").read_text())
    assert len(said) == 3


def test_time_in_which_nobody_listened_is_no_silence(tmp_path: Path) -> None:
    clock = Clock()
    Pulse(tmp_path / "pulse", 2.0, clock)
    ear = Ear(tmp_path / "pulse", clock)
    ear.silent_s()
    clock.now_s += 3600.0  # Ctrl-Z, or a closed lid
    assert ear.silent_s() <= 5.0


def test_the_clock_of_the_other_machine_does_not_matter(tmp_path: Path) -> None:
    here, there = Clock(), Clock()
    there.now_s = 5e6
    pulse, ear = Pulse(tmp_path / "pulse", 1.0, there), Ear(tmp_path / "pulse", here)
    for _ in range(5):
        here.now_s, there.now_s = here.now_s + 2.0, there.now_s + 2.0
        pulse.beat()
        assert ear.silent_s() == 0.0


def test_a_pulse_that_was_never_there_is_silent_from_the_first_look(tmp_path: Path) -> None:
    clock = Clock()
    ear = Ear(tmp_path / "nothing", clock)
    clock.now_s += 4.0
    assert ear.silent_s() == 4.0
