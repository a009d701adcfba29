"""Jobs as workers of a pool, where Slurm is scripted: who is gone and why, what is kept, and that no job is left."""

import os
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from factories import ENVIRONMENT, measurement
from fake_cluster import is_measured, on_a_gpu, task_of
from scripted_slurm import BEGIN, BYE, CLOSING, CONFIG, DONE, RUN, Node, ScriptedSlurm, lost_after

from zbench.errors import MachineError
from zbench.executors import Done, Failed
from zbench.executors.remote import Heard, Lost, wire
from zbench.executors.remote.pool import RemotePool
from zbench.executors.slurm import SlurmExecutor, queue
from zbench.executors.slurm.channel import AGAIN, channel_now
from zbench.executors.slurm.queue import JobState, states_in
from zbench.executors.slurm.transport import SlurmTransport
from zbench.record import NODE_LOST


@pytest.fixture
def slurm() -> ScriptedSlurm:
    return ScriptedSlurm()


@pytest.fixture
def transport(tmp_path: Path, slurm: ScriptedSlurm) -> SlurmTransport:
    return SlurmTransport(CONFIG, tmp_path / "slurm", slurm, clock=slurm.clock)


def test_words_go_down_and_up(transport: SlurmTransport, slurm: ScriptedSlurm) -> None:
    transport.start("w", 2, BEGIN, ["n7"])
    assert slurm.asked == [(2, ["n7"])] and transport.poll(0.0) == []
    node = slurm.begins("1")
    assert node.begin == BEGIN
    transport.send("w", RUN)
    assert node.heard() == [RUN]
    node.say(DONE, BYE)
    assert transport.poll(0.0) == [Heard("w", DONE), Heard("w", BYE)]
    journals = list(slurm.folders["1"].rglob("*.jsonl"))
    assert len(journals) == 2 and {path.stat().st_mode & 0o077 for path in journals} == {0}, "nobody else reads them"


@pytest.mark.parametrize(
    ("state", "says"),
    [
        (JobState("TIMEOUT", "TimeLimit", "n1"), "TIMEOUT, TimeLimit on n1; a longer executor.time_min"),
        (JobState("NODE_FAIL", "None", "n1"), "job 1 ended: NODE_FAIL on n1"),
        (JobState("CANCELLED", "None", ""), "job 1 ended: CANCELLED"),
        (JobState("OUT_OF_MEMORY", "", "n1"), "executor.mem_gib asks for more"),
        (None, "Slurm does not know it any more"),
    ],
)
def test_a_job_that_ended_is_lost_after_its_last_words(
    transport: SlurmTransport, slurm: ScriptedSlurm, state: JobState | None, says: str
) -> None:
    transport.start("w", 1, BEGIN, [])
    slurm.begins("1").say(DONE)
    slurm.known = {} if state is None else {"1": state}
    slurm.now_s += CONFIG.poll_s
    heard, lost = transport.poll(0.0)
    assert heard == Heard("w", DONE) and isinstance(lost, Lost) and says in lost.why
    assert transport.poll(0.0) == [], "it is lost once"
    transport.kill("w")
    assert not slurm.cancelled


def test_what_a_job_printed_last_says_why_it_never_came(transport: SlurmTransport, slurm: ScriptedSlurm) -> None:
    transport.start("w", 1, BEGIN, [])
    prints = slurm.folders["1"].parent / "jobs"
    (prints / "1_0_log.out").write_text("Traceback …\nModuleNotFoundError: No module named 'zbench'\n\n")
    slurm.known["1"] = JobState("FAILED", "NonZeroExitCode", "n1")
    (why,) = lost_after(transport, slurm, CONFIG.poll_s)
    assert why.endswith("it printed last: ModuleNotFoundError: No module named 'zbench'")


def test_a_job_may_wait_in_the_queue_for_days(transport: SlurmTransport, slurm: ScriptedSlurm) -> None:
    transport.start("w", 1, BEGIN, [])
    for _ in range(48):
        assert not lost_after(transport, slurm, 3600.0)


def test_what_a_job_waits_for_is_told_in_slurm_s_words(transport: SlurmTransport, slurm: ScriptedSlurm) -> None:
    transport.start("w", 2, BEGIN, [])
    assert transport.in_queue(2) == "", "Slurm was not asked yet"
    lost_after(transport, slurm, CONFIG.poll_s)
    assert (transport.in_queue(2), transport.in_queue(1)) == ("job 1: PENDING, Priority", "")
    slurm.begins("1").say(DONE)
    transport.poll(0.0)
    assert transport.in_queue(2) == ""


def test_a_job_that_runs_and_never_says_a_word_is_lost(transport: SlurmTransport, slurm: ScriptedSlurm) -> None:
    transport.start("w", 1, BEGIN, [])
    slurm.known["1"] = JobState("RUNNING", "None", "n1")
    assert not lost_after(transport, slurm, 60.0)
    (why,) = lost_after(transport, slurm, 700.0)
    assert why == "job 1 is RUNNING on n1 and says nothing"
    transport.kill("w")
    assert slurm.cancelled == ["1"]


def test_a_job_that_falls_silent_is_lost_and_cancelled_though_slurm_knows_nothing(
    transport: SlurmTransport, slurm: ScriptedSlurm
) -> None:
    transport.start("w", 1, BEGIN, [])
    node = slurm.begins("1")
    node.say(DONE)
    transport.poll(0.0)
    slurm.answers = False
    for _ in range(20):
        node.pulse.beat()
        assert not lost_after(transport, slurm, 4.0)
    why = [why for _ in range(10) for why in lost_after(transport, slurm, 4.0)]
    assert why == ["job 1 was not heard of for 30 s"]
    transport.kill("w")
    assert slurm.cancelled == ["1"]


def test_a_job_that_is_requeued_is_lost_and_is_the_next_worker_of_its_size(
    transport: SlurmTransport, slurm: ScriptedSlurm
) -> None:
    transport.start("w", 1, BEGIN, [])
    slurm.begins("1").say(DONE)
    transport.poll(0.0)
    slurm.known["1"] = JobState("PENDING", "BeginTime")
    slurm.now_s += CONFIG.poll_s
    why = "Slurm requeued job 1: it was preempted, or its node failed"
    assert transport.poll(0.0) == [Lost("w", why, requeued=True)]
    transport.kill("w")
    transport.start("of another size", 2, BEGIN, [])
    transport.start("v", 1, BEGIN, ["n1"])
    assert len(slurm.asked) == 2 and not slurm.cancelled, "it kept its place in the queue"
    again = slurm.begins("1")
    transport.send("v", RUN)
    assert again.heard() == [RUN]
    again.say(DONE)
    assert Heard("v", DONE) in transport.poll(0.0)


def test_a_job_that_is_requeued_between_two_looks_says_so_itself(
    transport: SlurmTransport, slurm: ScriptedSlurm
) -> None:
    transport.start("w", 1, BEGIN, [])
    slurm.begins("1").say(DONE)
    transport.poll(0.0)
    assert not channel_now(slurm.folders["1"]).take(), "another process was this worker"
    (slurm.folders["1"] / AGAIN).write_text("n2 77\n")
    (why,) = lost_after(transport, slurm, CONFIG.poll_s)
    assert why.startswith("Slurm requeued job 1")
    transport.kill("w")
    transport.start("v", 1, BEGIN, [])
    assert len(slurm.asked) == 1 and channel_now(slurm.folders["1"]).take()
    assert not lost_after(transport, slurm, CONFIG.poll_s), "what it said once counts once"


def test_a_job_that_begins_while_slurm_answers_is_not_taken_for_requeued(
    transport: SlurmTransport, slurm: ScriptedSlurm
) -> None:
    transport.start("w", 1, BEGIN, [])
    slurm.meanwhile = lambda: slurm.begins("1")
    assert not lost_after(transport, slurm, CONFIG.poll_s), "it was PENDING when Slurm looked"
    slurm.meanwhile = lambda: None
    assert not lost_after(transport, slurm, CONFIG.poll_s)
    slurm.known["1"] = JobState("PENDING", "BeginTime")
    assert len(lost_after(transport, slurm, CONFIG.poll_s)) == 1, "now it was"


def test_a_requeued_job_that_nobody_needs_is_cancelled_at_the_end(
    transport: SlurmTransport, slurm: ScriptedSlurm
) -> None:
    transport.start("w", 1, BEGIN, [])
    slurm.begins("1")
    slurm.known["1"] = JobState("PENDING", "BeginTime")
    assert lost_after(transport, slurm, CONFIG.poll_s)
    transport.kill("w")
    transport.close()
    assert slurm.cancelled == ["1"]


def test_a_job_whose_time_is_nearly_up_ends_its_task_and_leaves_by_itself(
    transport: SlurmTransport, slurm: ScriptedSlurm
) -> None:
    transport.start("w", 1, BEGIN, [])
    node = slurm.begins("1")
    transport.send("w", RUN)
    node.say(CLOSING)
    assert transport.poll(0.0) == [], "it still measures"
    node.say(DONE)
    assert transport.poll(0.0) == [Heard("w", DONE), Lost("w", "its time is nearly up")]
    node.heard()
    transport.kill("w")
    assert [wire.unpacked(message)[0]["say"] for message in node.heard()] == ["go"] and not slurm.cancelled


class JobsOfAPool:
    """A pool with one trial, whose jobs do what a test says."""

    def __init__(self, slurm: ScriptedSlurm, transport: SlurmTransport, folder: Path) -> None:
        self._slurm, self._folder, self._trial = slurm, folder, on_a_gpu(0.1)
        self._pool = RemotePool(transport, CONFIG, folder / "logs", clock=slurm.clock)
        self._nodes: dict[str, Node] = {}

    def after(self, *steps: Callable[[], None]) -> Done:
        """What comes of the trial; a step each time that the pool looks."""
        left = iter(steps)
        self._pool.submit(task_of(self._folder, self._trial))
        with self._pool as pool:
            return pool.next_done(lambda *_: None, lambda: bool(next(left, lambda: None)()))

    def begins(self, job: str) -> Callable[[], None]:
        hello = {"say": "hello", "wire": wire.VERSION, "node": f"n{job}", "environment": ENVIRONMENT}

        def step() -> None:
            self._nodes[job] = self._slurm.begins(job)
            self._nodes[job].say(wire.packed(hello))

        return step

    def measures(self, job: str) -> Callable[[], None]:
        results = [{"measurement": asdict(measurement(self._trial))}]
        done = {"say": "done", "results": results, "environment": ENVIRONMENT, "log": ""}
        return lambda: self._nodes[job].say(wire.packed(done), BYE)

    def outlasts(self, job: str) -> Callable[[], None]:
        """The trial that job measures goes on until Slurm ends it."""

        def step() -> None:
            self._nodes[job].say(CLOSING)
            self._slurm.known[job] = JobState("TIMEOUT", "TimeLimit", f"n{job}")
            self._slurm.now_s += CONFIG.poll_s

        return step


@pytest.fixture
def jobs(
    slurm: ScriptedSlurm, transport: SlurmTransport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> JobsOfAPool:
    """No time passes but the script's."""

    def passes(seconds: float) -> None:
        slurm.now_s += seconds

    monkeypatch.setattr(time, "sleep", passes)
    return JobsOfAPool(slurm, transport, tmp_path)


def test_a_trial_that_its_job_has_no_time_for_is_tried_once_more_in_another(
    jobs: JobsOfAPool, slurm: ScriptedSlurm
) -> None:
    looks = [lambda: None] * 2
    done = jobs.after(
        *looks, jobs.begins("1"), *looks, jobs.outlasts("1"), *looks, jobs.begins("2"), jobs.measures("2")
    )
    assert is_measured(done) and slurm.asked == [(1, []), (1, ["n1"])]


def test_a_trial_that_no_job_has_time_for_fails_and_says_which_key_gives_more(
    jobs: JobsOfAPool, slurm: ScriptedSlurm
) -> None:
    looks = [lambda: None] * 2
    steps = [step for job in "12" for step in (*looks, jobs.begins(job), *looks, jobs.outlasts(job))]
    (result,) = jobs.after(*steps).results
    assert isinstance(result, Failed) and result.reason.code == NODE_LOST and len(slurm.asked) == 2
    assert "TIMEOUT" in result.reason.message and "a longer executor.time_min" in result.reason.message


def test_at_the_end_no_job_and_no_file_is_left(transport: SlurmTransport, slurm: ScriptedSlurm, tmp_path: Path) -> None:
    for name in ("waits", "runs", "left"):
        transport.start(name, 1, BEGIN, [])
    slurm.begins("2").say(DONE)
    slurm.begins("3").say(DONE, BYE)
    transport.poll(0.0)
    transport.kill("left")
    slurm.known["3"] = JobState("COMPLETED")
    transport.close()
    assert slurm.cancelled == ["1", "2"] and not (tmp_path / "slurm").exists()


def test_slurm_is_asked_once_for_all_jobs_and_not_often(transport: SlurmTransport, slurm: ScriptedSlurm) -> None:
    for number in range(4):
        transport.start(f"w{number}", 1, BEGIN, [])
    for _ in range(100):
        lost_after(transport, slurm, 1.0)
    assert slurm.questions <= 11


def test_a_folder_that_cannot_be_written_is_the_machine_s_fault(slurm: ScriptedSlurm, tmp_path: Path) -> None:
    (tmp_path / "slurm").write_text("a file")
    transport = SlurmTransport(CONFIG, tmp_path / "slurm", slurm, clock=slurm.clock)
    with pytest.raises(MachineError, match="cannot write"):
        transport.start("w", 1, BEGIN, [])
    assert not slurm.asked


def test_a_squeue_that_does_not_answer_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that asks writes the journal too."""
    (tmp_path / "squeue").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(queue, "ANSWERS_WITHIN_S", 0.1)
    assert queue.job_states(["7"]) is None


@pytest.mark.parametrize(
    ("sinfo", "devices"),
    [
        ("echo '(null)'", ()),
        ("echo '(null)'; echo 'gpu:h100:8(S:0-1)'", None),
        ("true", None),
        ("echo '(null)'; exit 1", None),
        ("test $3 = --partition=low && echo '(null)' || echo gpu:1", ()),
    ],
    ids=["no GPU", "some", "says nothing", "fails", "of the partition"],
)
def test_a_partition_without_gpus_is_known_and_no_kind_of_gpu_is(
    sinfo: str, devices: tuple[()] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sinfo").write_text(f"#!/bin/sh\n{sinfo}\n")
    (tmp_path / "sinfo").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    config = replace(CONFIG, partition="low")
    assert SlurmExecutor.known_devices(config) == devices
    assert SlurmExecutor.known_devices(replace(config, options={"clusters": "far"})) is None


def test_squeue_is_read_line_by_line() -> None:
    said = "7|RUNNING|None|n1\n8|PENDING|Resources|\nslurm_load_jobs error: busy\n9|TIMEOUT|TimeLimit|n[1-2]\n"
    found = states_in(said)
    assert {job: str(state) for job, state in found.items()} == {
        "7": "RUNNING on n1",
        "8": "PENDING, Resources",
        "9": "TIMEOUT, TimeLimit on n[1-2]",
    }
    assert [job for job, state in found.items() if state.has_ended] == ["9"] and found["8"].waits
