"""What a parent that was killed left behind: its jobs end, and what these said waits for the command that wants it."""

from pathlib import Path

import pytest
from scripted_slurm import BEGIN, CLOSING, CONFIG, RUN, ScriptedSlurm

from zbench.executors.remote import Heard, Lost, wire
from zbench.executors.remote.spool import INLINE_BYTES, SpoolWriter
from zbench.executors.slurm.channel import IDS, Channel
from zbench.executors.slurm.transport import SlurmTransport


@pytest.fixture
def slurm() -> ScriptedSlurm:
    return ScriptedSlurm()


@pytest.fixture
def transport(tmp_path: Path, slurm: ScriptedSlurm) -> SlurmTransport:
    return another(tmp_path, slurm)


def another(folder: Path, slurm: ScriptedSlurm) -> SlurmTransport:
    """Of the same run, once its parent is gone."""
    return SlurmTransport(CONFIG, folder / "slurm", slurm, clock=slurm.clock)


def ends(count: int) -> list[bytes]:
    """Words too large for a line."""
    return [wire.packed({"say": "done", "log": str(n) * INLINE_BYTES}) for n in range(count)]


def test_what_a_killed_parent_left_is_cancelled_before_anything_is_asked_for(
    transport: SlurmTransport, slurm: ScriptedSlurm, tmp_path: Path
) -> None:
    left = tmp_path / "slurm" / "elsewhere-1-1"
    left.mkdir(parents=True)
    (left / IDS).write_text("71\n72\n")
    transport.poll(0.0)
    assert not slurm.cancelled
    transport.start("w", 1, BEGIN, [])
    assert slurm.cancelled == ["71", "72"]
    transport.forget()
    assert not left.exists()
    transport.close()
    assert not (tmp_path / "slurm").exists()


def test_what_a_killed_parent_had_not_dealt_with_is_there_until_nobody_wants_it(
    transport: SlurmTransport, slurm: ScriptedSlurm, tmp_path: Path
) -> None:
    """So it is where the next one is killed as well, or ends early."""
    said = ends(4)
    transport.start("w", 1, BEGIN, [])
    node = slurm.begins("1")
    for end in said[:2]:
        node.say(end)
        assert transport.poll(0.0) == [Heard("w", end)]
    node.say(said[2])
    second = another(tmp_path, slurm)
    assert list(second.unheard()) == said[1:3] and slurm.cancelled == ["1"]
    with pytest.raises(OSError):
        node.heard()  # so a job ends that scancel does not reach
    second.start("v", 1, BEGIN, [])
    slurm.begins("2").say(said[3])
    third = another(tmp_path, slurm)
    assert list(third.unheard()) == said[1:]
    third.close()
    fourth = another(tmp_path, slurm)
    assert list(fourth.unheard()) == said[1:]
    fourth.forget()
    fourth.close()
    assert not (tmp_path / "slurm").exists()


def test_what_a_job_said_last_is_removed_once_it_is_dealt_with(
    transport: SlurmTransport, slurm: ScriptedSlurm, tmp_path: Path
) -> None:
    """A job of one task, or one whose time is nearly up, is no worker any more when that is recorded."""
    (end,) = ends(1)
    transport.start("w", 1, BEGIN, [])
    node = slurm.begins("1")
    transport.send("w", RUN)
    node.say(CLOSING, end)
    assert transport.poll(0.0) == [Heard("w", end), Lost("w", "its time is nearly up")]
    transport.kill("w")
    assert large_files(tmp_path), "it is recorded now"
    transport.poll(0.0)
    assert not large_files(tmp_path)


def large_files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size >= INLINE_BYTES]


def test_what_was_said_last_comes_last(slurm: ScriptedSlurm, tmp_path: Path) -> None:
    """Whatever their processes' numbers are."""
    said = ends(2)
    for end, name in zip(said, ("login-9871-18a0", "login-10234-18a1"), strict=True):
        up = Channel(tmp_path / "slurm" / name / "job-1" / "1").up
        SpoolWriter(up).send(end)
    assert list(another(tmp_path, slurm).unheard()) == said
