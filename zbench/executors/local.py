"""Trials in resident worker processes on this machine; it imports no torch and survives whatever a trial does.

By default one worker has the whole machine. With `executor.concurrent_trials=N` there are N, each with a GPU of its
own; what needs more than one GPU, or none, has the whole machine to itself. A worker has a session of its own, so
Ctrl-C reaches only the parent. It is kept while trials succeed; after any failure it is killed with all it started, and
the next trial begins with a fresh one.

A trial has its devices in turn with whatever else zbench measures there (`hardware.turns`), from its load to the
judgement of its images. Its time-out begins with its turn.
"""

import os
import select
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from zbench.config import ExecutorConfig
from zbench.decode import typed
from zbench.errors import ConfigError
from zbench.executors import Completed, Disrupted, Done, Failed, OnEvent, Setting, Stopped, Task, TaskResult
from zbench.executors.client import OtherProtocol, Patience, WorkerClient, WorkerGone, death
from zbench.executors.places import places_of
from zbench.executors.slots import RunningTask, Slot, has_a_device_of_its_own, is_of_another_group, slots_on
from zbench.hardware.detect import environment_on, present_devices
from zbench.hardware.nvml import Device
from zbench.hardware.turns import TurnOnDevices
from zbench.measurement import DeviceTurn, Measurement
from zbench.methods.parallel import ParallelDims
from zbench.probes.memory import oom_kills
from zbench.probes.others import OthersOnCores
from zbench.record import MACHINE, Reason
from zbench.trial import Trial
from zbench.workload import longest_gap_s

LEADING_LINES = 6
"""Of the log, before where the processes of a trial stood that took too long."""

PROFILE_S = 120.0
"""How long a worker may take to profile what it has measured."""

POLL_S = 0.2
"""Longest wait between two looks at `should_stop` and the clock."""

TURN_POLL_S = 0.05
"""The same while a task waits for its turn on a device."""

OTHERS_S = 5.0
"""Between two looks at what else keeps cores busy."""


class LocalExecutor:
    """See `Executor`."""

    def __init__(
        self,
        config: ExecutorConfig,
        log_folder: Path,
        *,
        allow_code: bool = False,
        devices: Callable[[], Sequence[Device]] = present_devices,
    ) -> None:
        """Workers write their stdout and stderr to `log_folder/worker-<pid of this process>-<n>.log`.

        `allow_code`: they may run classes from outside zbench that no entry point names. `devices` gives the GPUs that
        may be used here. Raises ConfigError where there are fewer than trials at once, RecordError where what is stored
        of their ceilings is broken.
        """
        if config.options and type(self) is LocalExecutor:  # one that is built on it may take some
            raise ConfigError("executor.options", config.options, "executor=local takes none")
        self._log_folder, self._allow_code = log_folder, allow_code
        self._share_device = config.share_device
        self._devices = list(devices())
        self._slots = slots_on(config.concurrent_trials, self._devices)
        self.environments = [environment_on(slot.devices).to_dict() for slot in self._slots]
        """See `Executor.environments`: this machine, with the devices of each worker."""
        self._others, self._others_from_s, self._slowed = OthersOnCores(), 0.0, False
        self._waiting: deque[Task] = deque()
        self._started = 0
        self._aborted = False

    @property
    def capacity(self) -> int:
        """See `Executor.capacity`."""
        return len(self._slots)

    def takes_turns(self) -> bool:
        """Its workers do."""
        return True

    def submit(self, task: Task) -> None:
        """See `Executor.submit`."""
        self._waiting.append(task)

    def next_done(self, on_event: OnEvent, should_stop: Callable[[], bool]) -> Done:
        """See `Executor.next_done`. Raises MachineError where no worker can be started."""
        while True:
            stopping = self._aborted or should_stop()
            if stopping and self._waiting:
                task = self._waiting.popleft()
                return Done(task, (Stopped(),) * len(task.settings), None)
            self._begin_waiting()
            self._tell_what_slows(on_event)
            for slot in self._after_a_moment():
                done = self._attend(slot, on_event, stopping)
                if done is not None:
                    return done

    def abort(self) -> None:
        """See `Executor.abort`."""
        self._aborted = True
        for slot in self._slots:
            if slot.client is not None:
                slot.client.kill()

    def close(self) -> None:
        """Let the workers go: one that measures is killed, another if it takes longer than a few seconds."""
        for slot in self._slots:
            if slot.client is not None and slot.running is not None:
                slot.client.kill()
        for slot in self._slots:
            self._let_go(slot)
            if slot.running is not None:
                slot.running.turn.end()

    def __enter__(self) -> "LocalExecutor":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _begin_waiting(self) -> None:
        """Begin what has room now, in the order in which it was submitted."""
        while self._waiting and (slot := self._room_for(self._waiting[0])) is not None:
            task = self._waiting.popleft()
            client = self._client(slot, task)
            slot.running = RunningTask(
                task,
                Patience(_limit_s(task), client),
                self._turn_of(slot, task),
                log_offset=client.log_bytes,
                kills_before=oom_kills(),
            )
            slot.process = task.process
            slot.running.turn.begin()
            self._tell_in_turn(slot)

    def _tell_what_slows(self, on_event: OnEvent) -> None:
        """Say what else keeps cores busy, as long as something does and once it is over."""
        now_s = time.monotonic()
        if now_s - self._others_from_s < OTHERS_S:
            return
        self._others_from_s = now_s
        said, before = self._others.look(now_s), self._slowed
        self._slowed = said is not None
        for slot in self._slots:
            if slot.running is not None and slot.running.begun and (self._slowed or before):
                on_event(slot.running.task, {"event": "slowed", "text": said})

    def _turn_of(self, slot: Slot, task: Task) -> TurnOnDevices:
        """On the devices that the task's worker sees."""
        seen = slot.devices if slot.shown else self._devices
        places = places_of(task.settings[0].trial, seen)
        return TurnOnDevices(places, str(self._log_folder.parent.resolve()), share=self._share_device)

    def _tell_in_turn(self, slot: Slot) -> None:
        """Have the worker run its task, if its turn has come."""
        client, running = slot.client, slot.running
        assert client is not None and running is not None
        if running.begun or not running.turn.is_ours:
            return
        running.begun = True
        running.patience.renew(_limit_s(running.task))
        self._note_neighbours(slot)
        with suppress(WorkerGone):  # `_attend` finds its pipe ended
            client.tell(_run_command(running.task))

    def _room_for(self, task: Task) -> Slot | None:
        """A free slot, one whose worker has loaded what the task needs if there is one."""
        free = [slot for slot in self._slots if slot.running is None]
        running = [slot.running.task for slot in self._slots if slot.running is not None]
        if not free or (running and not all(has_a_device_of_its_own(each) for each in (task, *running))):
            return None
        return min(free, key=lambda slot: (slot.process != task.process, slot.client is not None))

    def _note_neighbours(self, new: Slot) -> None:
        """Who runs beside whom, from now on."""
        assert new.running is not None
        for slot in self._slots:
            if slot is not new and slot.running is not None and slot.running.begun:
                slot.running.beside |= dict.fromkeys(_ids(new.running.task))
                new.running.beside |= dict.fromkeys(_ids(slot.running.task))

    def _client(self, slot: Slot, task: Task) -> WorkerClient:
        """The slot's worker; a fresh one, if there is none that sees the devices that the task needs.

        What process groups and sharding leave in a process is no other topology's: where either uses several devices,
        another one has a worker of its own, as has another pipeline of the same one.
        """
        alone = not has_a_device_of_its_own(task)
        wanted = {} if alone else slot.variables
        for other in self._slots if alone else ():  # what an idle worker holds is not the task's
            if other is not slot:
                self._let_go(other)
        if slot.client is None or slot.shown != wanted or slot.client.has_ended or is_of_another_group(slot, task):
            self._let_go(slot)
            self._started += 1
            log = self._log_folder / f"worker-{os.getpid()}-{self._started}.log"
            slot.client = WorkerClient(log, variables=wanted, allow_code=self._allow_code)
            slot.shown = wanted
        slot.parallel = task.settings[0].trial.parallel
        return slot.client

    def _after_a_moment(self) -> list[Slot]:
        """All slots that run something, once a worker has said something or a moment has passed."""
        running = [(slot, slot.client) for slot in self._slots if slot.running and slot.client]
        waiting = any(slot.running is not None and not slot.running.begun for slot, _ in running)
        if not any(client.has_pending for _, client in running):
            select.select([client for _, client in running], [], [], TURN_POLL_S if waiting else POLL_S)
        return [slot for slot, _ in running]

    def _attend(self, slot: Slot, on_event: OnEvent, stopping: bool) -> Done | None:
        """Look after one running task; what came of it, if it ended."""
        client, running = slot.client, slot.running
        assert client is not None and running is not None
        try:
            self._tell_in_turn(slot)
            _tell_of_turn(client, running, on_event)
            results = self._look(client, running, on_event, stopping)
        except WorkerGone:
            reason = death(self._discard(slot), oom_kills() > running.kills_before, _worker_of(running.task))
            if client.environment is None:  # it never came to say hello, so nothing is known about a trial
                reason = Reason(MACHINE, f"{reason.message} before it could take a trial{_last_words(client, running)}")
            results = _for_all(running.task, Stopped()) if self._aborted else _blamed(running, reason)
        if results is None:
            return None
        slot.running = None
        turn = running.turn.end()
        failed = any(isinstance(result, Failed | Disrupted) for result in results)
        if failed:
            self._discard(slot)
        if running.measured is not None and not all(isinstance(result, Completed) for result in results):
            results = running.measured
        elif failed:
            tail = client.log_tail(running.log_offset)
            results = [_with_log(result, tail) for result in results]
        results = [_with_turn(result, turn) for result in results]
        return Done(running.task, tuple(results), client.environment, tuple(running.beside))

    def _look(
        self, client: WorkerClient, running: RunningTask, on_event: OnEvent, stopping: bool
    ) -> list[TaskResult] | None:
        """What the worker has to say now; the results of the task's settings where it ended.

        What it said counts before what time it is: it may have waited here for longer than the trial took. Raises
        WorkerGone.
        """
        task = running.task
        if stopping and not running.begun:
            return _for_all(task, Stopped())
        if stopping and not running.told_to_stop:
            client.tell({"command": "stop"})
            running.told_to_stop = True
        try:
            event = client.next_event(0.0)
        except OtherProtocol as error:
            return _for_all(task, Failed(Reason(MACHINE, f"{error}; zbench was replaced while it runs")))
        left_s = running.patience.left_s()
        if event is None:
            if client.has_ended:
                raise WorkerGone
            if left_s > 0 or not running.begun:  # where it waits for its turn, nothing is late
                return None
            limit = f"measure.timeout_s={task.measure.timeout_s:g}" + (
                " a trial" if running.turn_of is not None else ""
            )
            limit += " without an answer" if _is_load(task) else ""
            before = client.log_tail(running.log_offset)[-LEADING_LINES:]
            return _blamed(running, Reason("timeout", f"took longer than {limit}", (*before, *client.ask_where())))
        kind = event["event"]
        if kind == "done":
            return [_completed(each) for each in event["measurements"]]
        if kind == "failed":
            running.turn_of = event["trial_id"]
            tail = tuple(event.get("log_tail", ()))
            reason = Reason(event["code"], event["message"], tail, stage=event["stage"], memory=event["memory"])
            return _blamed(running, reason)
        if kind == "stopped":
            return _for_all(task, Stopped())
        if kind == "turn":
            running.hand_over(event["trial_id"], _limit_s(task))
        elif kind == "measured":
            running.measured = [_completed(each) for each in event["measurements"]]
            running.patience = Patience(PROFILE_S, client)
        elif kind != "hello":
            if kind == "round" and _is_load(task):  # how long a load lasts is its own to say
                running.patience.renew(_limit_s(task))
            on_event(task, event)
        return None

    def _let_go(self, slot: Slot) -> None:
        """Ask its worker to leave, and make it leave if it does not."""
        client = slot.forget()
        if client is not None:
            client.quit()

    def _discard(self, slot: Slot) -> int:
        client = slot.forget()
        return 0 if client is None else client.discard()


def _tell_of_turn(client: WorkerClient, running: RunningTask, on_event: OnEvent) -> None:
    """Say for whom the task waits and when that is over, or why it takes no turns; in the worker's log too."""
    said = running.turn.waits_for() or running.turn.problem or ("its turn has come" if running.said else None)
    if said is not None and said != running.said:
        running.said = said
        client.note(said)
        on_event(running.task, {"event": "waiting", "text": said})


def _with_turn(result: TaskResult, turn: DeviceTurn) -> TaskResult:
    """A measurement with the turn that it had."""
    if not isinstance(result, Completed):
        return result
    measured = result.measurement
    return Completed(replace(measured, window=replace(measured.window, turn=turn)))


def _for_all(task: Task, result: TaskResult) -> list[TaskResult]:
    return [result] * len(task.settings)


def _blamed(running: RunningTask, reason: Reason) -> list[TaskResult]:
    """What failed on the trial whose turn it was: the others are to be tried without it. Before any turn it is that of
    the first, for which the pipeline is loaded."""
    ids = _ids(running.task)
    turn_of = running.turn_of or ids[0]
    return [Failed(reason) if i == turn_of else Disrupted() for i in ids]


def _worker_of(task: Task) -> str:
    """What its worker is called: of a task of several ranks, it is the first of them."""
    several = ParallelDims.of(task.settings[0].trial.parallel).devices > 1
    return "rank 0, the worker itself," if several else "the worker"


def _is_load(task: Task) -> bool:
    return task.settings[0].trial.workload.is_load


def _limit_s(task: Task) -> float:
    """How long each trial of a task may take; under load how long it may be without an answer, beside times when none
    is due."""
    return task.measure.timeout_s + longest_gap_s(task.settings[0].trial.workload)


def _ids(task: Task) -> list[str]:
    return [setting.trial.trial_id for setting in task.settings]


def _last_words(client: WorkerClient, running: RunningTask) -> str:
    tail = client.log_tail(running.log_offset)
    return f"; {client.log} ends: {tail[-1]}" if tail else ""


def _with_log(result: TaskResult, tail: tuple[str, ...]) -> TaskResult:
    """With the end of the worker's log, where the reason has no rank's own."""
    if not isinstance(result, Failed) or result.reason.log_tail:
        return result
    return Failed(replace(result.reason, log_tail=tail))


def _completed(measurement: object) -> TaskResult:
    """What a worker measured; FAILED where an engine from elsewhere made it what no record may hold."""
    try:
        return Completed(typed(Measurement, measurement))
    except ValueError as error:
        return Failed(Reason("error", f"the engine's measurement cannot be recorded: {error}"))


def _run_command(task: Task) -> dict[str, Any]:
    return {
        "command": "run",
        "measure": asdict(task.measure),
        "settings": [
            *(_plain(setting) for setting in task.settings),
            *([] if task.companion is None else [_plain(_beside(task, task.companion)) | {"companion": True}]),
        ],
    }


def _beside(task: Task, companion: Trial) -> Setting:
    """A companion as a setting: it keeps no images, so the folder is never made."""
    return Setting(companion, task.settings[0].artifacts, role="baseline", is_beside=True)


def _plain(setting: Setting) -> dict[str, Any]:
    return {
        "companion": False,
        "trial": setting.trial.to_dict(),
        "role": setting.role,
        "artifacts": str(setting.artifacts.resolve()),
        "reference": None if setting.reference is None else str(setting.reference.resolve()),
        "of_other_weights": setting.of_other_weights,
        "is_reference": setting.is_reference,
        "is_beside": setting.is_beside,
    }
