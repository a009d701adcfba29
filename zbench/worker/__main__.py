"""The worker's process: its pipes, its resident engine, and the end of it; what is measured is `measuring`'s business.

A thread reads commands while the main thread works. When the pipe ends, the parent is gone, even by kill -9, and the
process ends at once with everything it started; where that thread cannot run, `lifetime` sees to it.
"""

import gc
import json
import os
import queue
import signal
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from zbench.config import MeasureConfig, ServedEngineConfig
from zbench.engines import Engine, Generation, Grouped, LaunchedInParts, LostRank, describe, process_of, why_not
from zbench.engines.failure import CodedError, failure
from zbench.engines.lifeline import tell_where_when_asked
from zbench.engines.programs.surroundings import changed
from zbench.errors import ZbenchError
from zbench.hardware.detect import present_environment
from zbench.measurement import INVALID_IMAGES, Cold, Role
from zbench.methods.parallel import ParallelDims
from zbench.plugins import ALLOW_CODE, check_targets
from zbench.probes.device import THROTTLED
from zbench.probes.disturbance import RoundWatch
from zbench.quality.judging import judges_for
from zbench.trial import Trial
from zbench.worker import PROTOCOL_VERSION
from zbench.worker.gauges import Gauges
from zbench.worker.job import StopAsked, TrialJob
from zbench.worker.lifetime import end_with_parent
from zbench.worker.loading import LoadingTalk
from zbench.worker.measuring import measure_trials, quiet_collector
from zbench.worker.request import Turn, one_request, spoilt_by
from zbench.worker.warm_up import to_compile
from zbench.workload import Pair, pairs


class Pipes:
    """JSON lines in, by a thread; JSON lines out."""

    def __init__(self, read_fd: int, write_fd: int) -> None:
        for fd in (read_fd, write_fd):
            os.set_inheritable(fd, False)
        self.commands: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self.stop = threading.Event()
        self._read_fd = read_fd
        self._out = os.fdopen(write_fd, "w", encoding="utf-8", buffering=1)
        self._telling = threading.Lock()
        threading.Thread(target=self._read, name="zbench-commands", daemon=True).start()

    def _read(self) -> None:
        with os.fdopen(self._read_fd, encoding="utf-8") as lines:
            for line in lines:
                if not line.endswith("\n"):
                    break  # the parent died while writing
                command = json.loads(line)
                if command["command"] == "stop":
                    self.stop.set()
                self.commands.put(command)
        _die()

    def tell(self, event: dict[str, Any]) -> None:
        """Write one event."""
        line = json.dumps(event, allow_nan=False, ensure_ascii=False) + "\n"
        with self._telling:
            self._write(line)

    def tell_last(self, event: dict[str, Any] | None) -> NoReturn:
        """Write one event, if there is one, and end: nothing is written after it. Any thread may ask for it."""
        with self._telling:
            if event is not None:
                self._write(json.dumps(event, allow_nan=False, ensure_ascii=False) + "\n")
            _die()

    def _write(self, line: str) -> None:
        try:
            self._out.write(line)
        except BrokenPipeError:
            _die()


class _Side(NamedTuple):
    """What one side of a comparison is."""

    trial: Trial
    role: Role
    request: str  # its residency's request level


class Worker:
    """Runs commands one after another and keeps the pipeline between them."""

    def __init__(self, pipes: Pipes, *, allow_code: bool) -> None:
        self._allow_code = allow_code
        self._pipes = pipes
        self._gauges = Gauges()
        self._watch = RoundWatch()
        self._engine: Engine | None = None
        self._process: str | None = None  # the residency of what is launched; None: nothing is, or not to the end
        self._launched_for: str | None = None  # the trial that came first
        self._began_s = 0.0  # of a comparison
        self._made = 0  # requests of a comparison
        self._sides: dict[str, _Side] = {}  # those prepared on the resident pipeline
        self._configured: str | None = None  # the request level of what it is configured for
        self._is_watching = False  # the devices, for a comparison
        self._answering = False  # whether a command is being carried out
        self._jobs: list[TrialJob] = []  # of the task

    def serve(self) -> None:
        """Until `quit`."""
        environment = present_environment().to_dict()
        self._pipes.tell(
            {
                "event": "hello",
                "protocol": PROTOCOL_VERSION,
                "pid": os.getpid(),
                "environment": environment,
                "imports": True,
            }
        )
        while True:
            command = self._pipes.commands.get()
            if command["command"] == "quit":
                self._unload()
                return
            answers = {
                "run": self._run,
                "import": self._import,
                "prepare": self._prepare,
                "generate": self._generate,
            }
            answer = answers.get(command["command"])
            if answer is not None:
                self._answering = True
                said = answer(command)
                self._answering = False
                self._pipes.tell(said)
            else:  # a stop that came when its trial was already over
                self._pipes.stop.clear()

    def _lost(self, lost: LostRank) -> None:
        """A process of the engine's is lost, and the main thread may never know: say so for it, and end.

        Where nothing was asked for, the end says enough.
        """
        with suppress(OSError, ValueError):
            print(lost.message, flush=True)
        if not self._answering:
            self._pipes.tell_last(None)
        told = _whose(self._jobs)
        about = {"trial_id": told.trial.trial_id if told else None}
        self._pipes.tell_last({"event": "failed", **lost.told(told.stage if told else "a call"), **about})

    def _import(self, command: dict[str, Any]) -> dict[str, Any]:
        """Only import what the trial will be launched with in this process alone; what is wrong its launch says."""
        with suppress(Exception):
            trial = Trial.from_dict(command["trial"])
            check_targets([trial], allow_code=self._allow_code)
            if not isinstance(trial.engine, ServedEngineConfig) and ParallelDims.of(trial.parallel).devices == 1:
                engine = describe(trial.engine, allow_code=self._allow_code).engine()
                if isinstance(engine, Grouped):
                    engine.call_together(trial)
        return {"event": "imported"}

    def _prepare(self, command: dict[str, Any]) -> dict[str, Any]:
        """Load and configure a trial whose rounds are then asked for one by one."""
        stage = "loading"
        try:
            trial = Trial.from_dict(command["trial"])
            engine, _ = self._load(trial)
            stage = "cache configuration"
            request = describe(trial.engine, allow_code=self._allow_code).residency(trial).request
            side = self._sides[command["side"]] = _Side(trial, command["role"], request)
            self._began_s = command["began_s"]
            self._configure(engine, side)
            stage = "the first image"
            cycle = pairs(trial.workload)
            first, *_ = [_good_images(engine, pair) for pair in (cycle[0], *to_compile(trial, cycle))]
            about = {"effective": asdict(engine.effective()), "pids": engine.watch().pids}
            return {"event": "prepared", "first_latency_s": first.latency_s, **about}
        except Exception as error:
            return _failed(error, stage, self._engine)

    def _generate(self, command: dict[str, Any]) -> dict[str, Any]:
        """One request of what was prepared."""
        stage = "cache configuration"
        try:
            side, index = self._sides.get(command["side"]), command["index"]
            if self._engine is None or side is None:
                raise RuntimeError(f"generate came before prepare of {command['side']}")
            self._configure(self._engine, side)
            stage = "a round"
            cycle = pairs(side.trial.workload)
            self._watch_devices(self._engine, command.get("beside"))
            with quiet_collector():
                self._watch.begin()
                self._gauges.begin_round()
                turn = Turn(self._made, side.trial.trial_id, side.role)
                self._made += 1
                made, _ = one_request(self._engine, cycle[index % len(cycle)], turn, self._began_s)
                disturbed = self._watch.end()
            against = self._gauges.end_round()
            if "beside" not in command:  # an older zbench asks, which does not say who else is its own
                against = [reason for reason in against if reason.startswith(THROTTLED)]
            invalid = made.invalid_reasons + against  # one that does not count, or was suspended, is asked for again
            made = replace(made, disturbances=disturbed, valid=not invalid, invalid_reasons=invalid)
            return {"event": "generated", "request": asdict(made), "sm_clock_mhz": self._gauges.round_clock_mhz()}
        except Exception as error:
            return _failed(error, stage, self._engine)

    def _watch_devices(self, engine: Engine, beside: list[int] | None) -> None:
        """From a comparison's first round on. Processes `beside` are the other side's, and no neighbours."""
        watched = engine.watch()
        if watched.devices and not self._is_watching:
            self._gauges.start(replace(watched, pids=(*watched.pids, *(beside or ()))))
            self._is_watching = True

    def _configure(self, engine: Engine, side: "_Side") -> None:
        """Unless the request level is that already."""
        if side.request == self._configured:
            return
        self._configured = None  # until it is done
        engine.configure(side.trial)
        self._configured = side.request

    def _run(self, command: dict[str, Any]) -> dict[str, Any]:
        """One task; the event that ends it."""
        jobs: list[TrialJob] = []
        self._jobs = jobs
        try:
            jobs = self._jobs = self._jobs_of(command)
            for job in jobs:
                with suppress(OSError):  # where there is no room for the log: what is measured says so better
                    print(f"trial {job.trial.trial_id} {job.trial.label}", flush=True)
            engine, cold = self._load(jobs[0].trial)
            jobs[0].check_stop()
            self._configured = None  # a measurement configures for itself
            measurements = measure_trials(engine, jobs, self._gauges, cold, self._launched_for)
            return {"event": "done", "measurements": [asdict(measured) for measured in measurements]}
        except StopAsked:
            self._pipes.stop.clear()
            return {"event": "stopped"}
        except Exception as error:
            told = _whose(jobs)
            failed = _failed(error, told.stage if told else "reading the task", self._engine)
            return failed | {"trial_id": told.trial.trial_id if told else None}

    def _jobs_of(self, command: dict[str, Any]) -> list[TrialJob]:
        measure = MeasureConfig(**command["measure"])
        judges, settings = judges_for(measure), command["settings"]
        return [
            TrialJob(
                trial=Trial.from_dict(setting["trial"]),
                measure=measure,
                judges=judges,
                artifacts=Path(setting["artifacts"]),
                reference=None if setting["reference"] is None else Path(setting["reference"]),
                of_other_weights=setting["of_other_weights"],
                is_reference=setting["is_reference"],
                role=setting["role"],
                shares=len(settings) > 1,
                companion=setting["companion"],
                is_beside=setting["is_beside"],
                tell=self._pipes.tell,
                stopping=self._pipes.stop.is_set,
            )
            for setting in settings
        ]

    def _load(self, trial: Trial) -> tuple[Engine, Cold | None]:
        """The engine for this trial, and what it took to launch if it was not the resident one.

        Checksums are no part of them, but they leave the files in the system's cache.
        """
        check_targets([trial], allow_code=self._allow_code)
        description = describe(trial.engine, allow_code=self._allow_code)
        problem = why_not(description, trial)
        if problem is not None:
            raise ZbenchError(problem)
        process = process_of(description, trial)
        if self._engine is not None and self._process == process:
            return self._engine, None
        self._unload()
        self._pipes.tell({"event": "loading"})
        began = time.perf_counter()
        engine = self._engine = description.engine()
        if isinstance(engine, Grouped):
            engine.on_lost = self._lost
            engine.call_together(trial)
        imported = time.perf_counter()  # the engine's stack; that is no part of load_s
        talk = LoadingTalk(self._pipes.tell)
        engine.launch(trial, talk)
        load_s = time.perf_counter() - imported - talk.checking_s
        parts_s = engine.launch_parts() if isinstance(engine, LaunchedInParts) else {}
        first_s = parts_s.get("first_request")
        load_s -= first_s or 0.0
        own = {"import": imported - began, "checksums": talk.checking_s}
        cold = Cold(load_s=load_s, first_latency_s=first_s, parts_s=own | parts_s)
        self._process, self._watch = process, RoundWatch(engine.watch().pids)
        self._launched_for = trial.trial_id
        gc.collect()
        gc.freeze()  # what is resident stays out of the collections between rounds
        self._pipes.tell({"event": "loaded", "load_s": load_s})
        return engine, cold

    def _unload(self) -> None:
        engine, self._engine, self._process = self._engine, None, None
        self._sides, self._configured = {}, None
        if self._is_watching:
            self._gauges.stop(self._made)
            self._is_watching = False
        if engine is not None:
            gc.unfreeze()
            engine.close()
            del engine
            gc.collect()


def _whose(jobs: list[TrialJob]) -> TrialJob | None:
    """The one whose turn it is; of a task that could not be read, nobody."""
    return next((job for job in jobs if job.busy), jobs[0] if jobs else None)


class _ImagesInvalid(CodedError):
    """A call outside any window made images that are none."""

    code = INVALID_IMAGES


def _good_images(engine: Engine, pair: Pair) -> Generation:
    """One call. Raises _ImagesInvalid, and what the engine raises."""
    made = engine.generate(*pair.call)
    if faults := spoilt_by(made):
        raise _ImagesInvalid(f"{', '.join(faults)} of {pair.prompt_id} with seed {pair.seed}")
    return made


def _failed(error: Exception, stage: str, engine: Engine | None) -> dict[str, Any]:
    """The event that says so."""
    return {"event": "failed", **failure(error, stage, engine)}


def _die() -> NoReturn:
    """End now, with every process that this one started: the worker leads its own process group."""
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpgrp(), signal.SIGKILL)
    os._exit(1)


def main() -> None:
    """`python -m zbench.worker READ_FD WRITE_FD [--allow-code]`."""
    tell_where_when_asked()
    end_with_parent()
    os.environ.update(changed(os.environ, {"CACHE_DIT_LOG_LEVEL": "error"}))
    pipes = Pipes(int(sys.argv[1]), int(sys.argv[2]))
    Worker(pipes, allow_code=ALLOW_CODE in sys.argv[3:]).serve()
    sys.stdout.flush()
    os._exit(0)  # threads of libraries must not keep the process


if __name__ == "__main__":
    main()
