"""Trials on other machines from their parent's side: which worker has which task, and what is done where one is lost.

A worker has a machine's GPUs for itself, as many as its trials need, and stays while such trials come; one that has
loaded what a task needs is preferred. Where a worker is lost, by its machine, its network or somebody's kill, its task
is tried once more elsewhere. The second loss is the trial's failure, with the code `node_lost`, which the next run
tries again by itself. The parent alone writes into the run folder: images come as bytes.
"""

import itertools
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from zbench.config import ExecutorConfig, MeasureConfig
from zbench.errors import MachineError, StoreError, one_line
from zbench.executors import Completed, Done, Failed, OnEvent, Recovered, Setting, Task, TaskResult
from zbench.executors.remote import Heard, Lost, Outliving, Queueing, Transport, freight, wire
from zbench.executors.remote.members import HeldTask, RemoteWorker
from zbench.executors.remote.unheard import UnheardResults
from zbench.record import MACHINE, NODE_LOST, Reason

POLL_S = 0.2
"""Longest wait between two looks at `should_stop`."""

LEAVE_S = 8.0
"""How long a worker may take to leave when asked."""

SHORT_S = 5.0
"""After so long without the devices that it asked for a worker gets those of idle ones of another size (in a queue:
of those that no task is for); and a task that has no worker yet is said to wait."""

TRIES = 2
"""How often a task may lose its worker, until that is the trial's failure."""

MOST_REQUEUES = 20
"""How often a task's worker may be queued anew, by preemption say, which says nothing of the trial."""

NONE_CAME = 3
"""So many workers in a row that never came: no other will."""


class RemotePool:
    """See `Executor`; what carries its messages is handed in."""

    def __init__(
        self,
        transport: Transport,
        config: ExecutorConfig,
        log_folder: Path,
        *,
        allow_code: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Workers' output is appended to `log_folder/worker-<pid of this process>-<n>.log`, after each task."""
        self._transport, self._log_folder, self._clock = transport, log_folder, clock
        told = {"run": log_folder.parent.name, "share_device": config.share_device, "allow_code": allow_code}
        self._begin = wire.packed({"say": "begin", **told})
        self._called = config.name
        self._numbers = itertools.count(1)
        self._workers: dict[str, RemoteWorker] = {}
        self._waiting: deque[HeldTask] = deque()
        self._ended: deque[Done] = deque()
        self._unheard: UnheardResults | None = None  # nobody asked yet
        self._none_came = 0
        self._stopping = self._aborted = False

    @property
    def capacity(self) -> int:
        """See `Executor.capacity`."""
        return self._transport.capacity

    @property
    def environments(self) -> list[dict[str, Any]]:
        """See `Executor.environments`."""
        return self._transport.environments

    def takes_turns(self) -> bool:
        """Its nodes' workers do."""
        return True

    def recovered(self, setting: Setting, measure: MeasureConfig) -> Recovered | None:
        """See `Recovering`."""
        if self._unheard is None:
            transport = self._transport
            self._unheard = UnheardResults(transport.unheard() if isinstance(transport, Outliving) else ())
        return self._unheard.take(setting, measure)

    def forget(self) -> None:
        """See `Recovering`."""
        self._unheard = UnheardResults(())
        if isinstance(self._transport, Outliving):
            self._transport.forget()

    def submit(self, task: Task) -> None:
        """See `Executor.submit`."""
        self._waiting.append(HeldTask(task, self._clock()))

    def next_done(self, on_event: OnEvent, should_stop: Callable[[], bool]) -> Done:
        """See `Executor.next_done`. Raises MachineError where no worker comes, or the cluster is out of reach."""
        while True:
            if self._aborted or should_stop():
                self._stop()
            if self._ended:
                return self._ended.popleft()
            self._place()
            self._tell_who_waits(on_event)
            for word in self._transport.poll(POLL_S):
                self._take(word, on_event)
            self._see_off()

    def abort(self) -> None:
        """See `Executor.abort`: `next_done` does it."""
        self._aborted = True

    def close(self) -> None:
        """Let the workers go: one that measures is ended now, another if it takes longer than a few seconds."""
        try:
            for worker in list(self._workers.values()):
                if worker.is_idle:
                    self._ask_to_leave(worker)
                elif worker.leaves_s is None:
                    self._end(worker)
            while self._workers:
                for word in self._transport.poll(POLL_S):
                    self._take(word, lambda *_: None)
                self._see_off()
        except MachineError:  # it is gone already
            self._workers.clear()
        finally:
            self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Who runs what

    def _place(self) -> None:
        """Give tasks to workers that are idle, in the order in which they came, and ask for as many as are lacking."""
        short = self._short_of()
        lacking: Counter[int] = Counter()
        for held in list(self._waiting):
            if short is not None and held.devices not in (0, short):
                continue  # the devices that it would take are waited for
            worker = self._idle_for(held)
            if worker is None:
                lacking[held.devices] += 1
                continue
            self._waiting.remove(held)
            self._give(worker, held)
        for devices, count in lacking.items():
            coming = sum(w.devices == devices and not w.is_here for w in self._workers.values())
            for _ in range(count - coming):
                if not self._has_room(devices):
                    break
                self._start(devices)

    def _idle_for(self, held: HeldTask) -> RemoteWorker | None:
        """One of its size; not where it was lost before, if there is another, and with its pipeline loaded."""
        idle = [w for w in self._workers.values() if w.is_idle and w.devices == held.devices]
        process = held.task.process
        return min(
            idle,
            key=lambda w: (w.node in held.avoid, w.process != process, w.process is not None),
            default=None,
        )

    def _short_of(self) -> int | None:
        """How many GPUs a worker waits for that other workers hold; they are let go as they become idle.

        In a queue it is usual to wait, and nobody here knows who holds them: there no other task is kept waiting,
        and only workers that no task is for are let go.
        """
        now_s = self._clock()
        late = [w for w in self._workers.values() if not w.is_here and w.devices and now_s - w.asked_s > SHORT_S]
        if not late:
            return None
        devices = min(late, key=lambda w: w.asked_s).devices
        in_queue = isinstance(self._transport, Queueing)
        kept = {0, devices, *(held.devices for held in self._waiting if in_queue)}
        holding = [w for w in self._workers.values() if w.is_here and w.devices not in kept]
        for worker in holding:
            if worker.is_idle:
                self._ask_to_leave(worker)
        return devices if holding and not in_queue else None

    def _has_room(self, devices: int) -> bool:
        """Whether one more worker may be asked for; an idle one of another size makes room."""
        if sum(w.leaves_s is None for w in self._workers.values()) < self.capacity:
            return True
        other = next((w for w in self._workers.values() if w.is_idle and w.devices != devices), None)
        if other is not None:
            self._ask_to_leave(other)
        return other is not None

    def _start(self, devices: int) -> None:
        worker = RemoteWorker(f"worker-{os.getpid()}-{next(self._numbers)}", devices, self._clock())
        self._workers[worker.name] = worker
        avoid = [node for held in self._waiting for node in held.avoid if held.devices == devices]
        self._transport.start(worker.name, devices, self._begin, avoid)

    def _give(self, worker: RemoteWorker, held: HeldTask) -> None:
        """Have a worker run a task, with the images of its references that it does not have yet."""
        folders = {s.reference for s in held.task.settings if s.reference is not None}
        names = {folder: freight.content_key(folder) for folder in folders}
        new = {folder: name for folder, name in names.items() if name not in worker.references}
        files = {
            f"{name}/{file}": data for folder, name in new.items() for file, data in freight.collected(folder).items()
        }
        worker.references |= set(new.values())
        worker.held, worker.process, worker.told_to_stop = held, held.task.process, False
        self._note_neighbours(worker, held)
        self._transport.send(worker.name, wire.packed({"say": "run", "task": wire.task_out(held.task, names)}, files))

    def _note_neighbours(self, new: RemoteWorker, held: HeldTask) -> None:
        """Who runs beside whom on one machine from now on. Those on its CPU take turns, so they do not."""
        for other in self._workers.values():
            if other is not new and other.held is not None and other.node == new.node and new.devices and other.devices:
                other.held.beside |= dict.fromkeys(held.ids)
                held.beside |= dict.fromkeys(other.held.ids)

    def _tell_who_waits(self, on_event: OnEvent) -> None:
        """Say of a task that no worker has come for it yet, and again where there is another reason."""
        for held in self._waiting:
            if self._clock() - held.submitted_s <= SHORT_S:
                continue
            of_size = "a CPU" if not held.devices else f"{held.devices} GPU{'s' * (held.devices > 1)}"
            why = self._transport.in_queue(held.devices) if isinstance(self._transport, Queueing) else ""
            text = f"waits for a worker with {of_size}" + (f" ({why})" if why else "")
            if text != held.waits:
                held.waits = text
                on_event(held.task, {"event": "waiting", "text": text})

    # What was said

    def _take(self, word: Heard | Lost, on_event: OnEvent) -> None:
        """What came of one worker; nothing where that was given up."""
        worker = self._workers.get(word.worker)
        if worker is None:
            return
        if isinstance(word, Lost):
            self._lose(worker, Reason(NODE_LOST, self._lost_words(worker, word.why)), requeued=word.requeued)
            return
        try:
            head, files = wire.unpacked(word.message)
            self._heed(worker, head, files, on_event)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            said = f"what {worker.name} on {worker.node or 'its node'} said cannot be read: {one_line(error)}"
            self._lose(worker, Reason(MACHINE, f"{said}; see that zbench is of one version everywhere"))

    def _heed(
        self, worker: RemoteWorker, head: dict[str, Any], files: dict[str, memoryview], on_event: OnEvent
    ) -> None:
        kind, held = head["say"], worker.held
        if kind == "hello":
            self._welcome(worker, head)
        elif kind == "event" and held is not None:
            held.turn_of = head["event"].get("trial_id", held.turn_of)
            on_event(held.task, {**head["event"], "node": worker.node})
        elif kind == "done" and held is not None:
            self._finish(worker, held, head, files)
        elif kind == "broken":
            self._lose(worker, Reason(MACHINE, f"{worker.node or worker.name}: {head['why']}"))
        elif kind == "bye" and held is not None:
            self._lose(worker, Reason(NODE_LOST, f"{worker.node} left while it measured"))
        elif kind == "bye":
            self._end(worker)

    def _welcome(self, worker: RemoteWorker, head: dict[str, Any]) -> None:
        """One that came."""
        if head["wire"] != wire.VERSION:
            raise ValueError(f"it speaks version {head['wire']}, this zbench {wire.VERSION}")
        worker.environment, worker.node = wire.environment_in(head["environment"]), str(head["node"])
        worker.is_here, self._none_came = True, 0

    def _finish(self, worker: RemoteWorker, held: HeldTask, head: dict[str, Any], files: dict[str, memoryview]) -> None:
        """A task that ended: its images go to the run folder, what was printed to the worker's log."""
        results = wire.results_in(head["results"])
        environment = wire.environment_in(head["environment"]) if head["environment"] is not None else None
        if len(results) != len(held.task.settings):
            raise ValueError(f"{len(results)} results for {len(held.task.settings)} trials")
        self._log(worker, str(head["log"]))
        fault = next((r.reason for r in results if isinstance(r, Failed) and r.reason.code == MACHINE), None)
        if fault is not None:
            self._lose(worker, replace(fault, message=f"{worker.node}: {fault.message}"))
            return
        try:
            self._keep_images(held.task, results, files)
        except StoreError as error:  # this machine's own fault
            results = held.blamed(Reason(MACHINE, str(error)))
        worker.held = None
        self._ended.append(Done(held.task, results, environment or worker.environment, tuple(held.beside)))

    def _keep_images(self, task: Task, results: Sequence[TaskResult], files: dict[str, memoryview]) -> None:
        for number, (setting, result) in enumerate(zip(task.settings, results, strict=True)):
            own = freight.under(str(number), files)
            if own and isinstance(result, Completed):
                freight.unloaded(own, setting.artifacts)

    def _log(self, worker: RemoteWorker, text: str) -> None:
        """Keep what its processes printed, if there is room."""
        with suppress(OSError):
            self._log_folder.mkdir(parents=True, exist_ok=True)
            with (self._log_folder / f"{worker.name}.log").open("a", encoding="utf-8") as log:
                log.write(text)

    # Who is gone

    def _lost_words(self, worker: RemoteWorker, why: str) -> str:
        if not worker.is_here:
            return why
        return f"{worker.node} was lost while it measured: {why}" if worker.held else f"{worker.node} was lost: {why}"

    def _lose(self, worker: RemoteWorker, reason: Reason, *, requeued: bool = False) -> None:
        """Go on without a worker. Raises MachineError where none came lately, and this one did not either."""
        held, environment = worker.held, worker.environment
        self._log(worker, f"{reason.message}\n")
        self._end(worker)
        if not worker.is_here and worker.leaves_s is None and not requeued:
            self._none_came += 1
            if self._none_came >= NONE_CAME:
                raise MachineError(f"executor={self._called}: no worker comes up: {reason.message}")
        if held is None:
            return
        if requeued:
            held.requeued += 1
        else:
            held.lost, held.avoid = held.lost + 1, (*held.avoid, worker.node)
        if self._stopping:
            self._ended.append(Done(held.task, held.stopped, environment))
        elif held.lost < TRIES and held.requeued < MOST_REQUEUES:
            held.submitted_s = self._clock()
            self._waiting.appendleft(held)
        else:
            times = held.lost + held.requeued
            in_vain = replace(reason, message=f"{reason.message}; it was tried {times} times")
            self._ended.append(Done(held.task, held.blamed(in_vain), environment, tuple(held.beside)))

    def _end(self, worker: RemoteWorker) -> None:
        """Have it ended now, and forget it."""
        worker.held = None
        self._workers.pop(worker.name, None)
        self._transport.kill(worker.name)

    def _ask_to_leave(self, worker: RemoteWorker) -> None:
        worker.leaves_s = self._clock()
        self._transport.send(worker.name, wire.packed({"say": "leave"}))

    def _see_off(self) -> None:
        """End those that were asked to leave and do not."""
        for worker in list(self._workers.values()):
            if worker.leaves_s is not None and self._clock() - worker.leaves_s > LEAVE_S:
                self._end(worker)

    def _stop(self) -> None:
        """What waits is stopped, and what runs is told to; where it is aborted, that is ended."""
        self._stopping = True
        while self._waiting:
            held = self._waiting.popleft()
            self._ended.append(Done(held.task, held.stopped, None))
        for worker in list(self._workers.values()):
            if worker.held is None or (worker.told_to_stop and not self._aborted):
                continue
            if self._aborted:
                self._ended.append(Done(worker.held.task, worker.held.stopped, worker.environment))
                self._end(worker)
            else:
                worker.told_to_stop = True
                self._transport.send(worker.name, wire.packed({"say": "stop"}))
