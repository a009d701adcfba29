"""One side of a comparison: what it runs, with which zbench and interpreter, and the resident worker that does it.

Sides that one loaded pipeline can serve share it, in one worker: what differs from process to process, and from load to
load, is then the same for both.
"""

import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zbench.ab.interleave import SideName
from zbench.config import Config
from zbench.decode import typed
from zbench.engines import Descriptions
from zbench.errors import ConfigError, HardwareError, ZbenchError
from zbench.executors.client import HOME, OtherProtocol, Patience, WorkerClient, WorkerGone, death
from zbench.executors.places import places_of
from zbench.hardware.detect import describe_present, present_devices
from zbench.hardware.turns import TurnOnDevices
from zbench.measurement import INVALID_IMAGES, SUSPENDED, Effective, Request, Role
from zbench.methods import fast, lora, quantization
from zbench.probes.device import FOREIGN, THROTTLED
from zbench.probes.memory import oom_kills
from zbench.record import MACHINE
from zbench.sanitize import without_folders
from zbench.space import constraint
from zbench.stats import warm_from
from zbench.sweeper.plan import trial_of
from zbench.trial import Trial, geometry_of

STARTUP_S = 120.0
"""How long a worker may take from its start to its first word."""


@dataclass(frozen=True)
class Side:
    """Side a is the base, b the new one."""

    name: SideName
    trial: Trial
    python: str = sys.executable
    home: Path | None = HOME  # whose zbench; None: the one installed for `python`
    revision: str | None = None  # of git, if one was asked for
    allow_code: bool = False  # whether it may run classes from outside zbench that no entry point names

    @property
    def role(self) -> Role:
        """Of its requests."""
        return "baseline" if self.name == "a" else "trial"


def present_trial(flag: str, config: Config, overrides: Sequence[str], engines: Descriptions | None = None) -> Trial:
    """The trial of a configuration, to be measured on this machine.

    `engines` are asked what they can run. Raises HardwareError for a projected one and ConfigError for one that cannot
    work, both naming `flag`.
    """
    devices = present_devices()
    lora.check_used([config.pipeline])
    quantization.check_used([config.compute])
    trial = trial_of(config, devices)
    if trial.hardware is not None:
        raise HardwareError(
            f"{flag}: hardware={trial.hardware.name} is not here ({describe_present(devices)}), and it measures"
        )
    if trial.workload.is_load:
        problem = "ab measures one request after another; leave it out, or hold two loads together with zbench compare"
        raise ConfigError("workload.arrivals", trial.workload.arrivals, problem)
    if trial.workload.mixes:
        problem = "ab compares one size and one number of steps; leave height, width and steps out of the prompts"
        raise ConfigError("workload.prompts", "[…]", problem)
    reason = constraint(trial, geometry_of(trial.pipeline)) or (engines or Descriptions()).supports(trial)
    if reason is not None:
        raise ConfigError(flag, " ".join(overrides), reason)
    return trial


NOT_THE_CODES_FAULT = ("weights", "config", MACHINE)
"""Codes of failures that say nothing about a side's speed or health."""

MOST_AGAIN = 3
"""How often a round is made again in which the GPU was throttled or not ours alone; then it counts, for nothing else is
to be had."""

POLL_S = 0.2
"""Longest wait between two looks at the clock."""


def refuse_other_content(sides: Sequence[Side], effective: Mapping[SideName, Mapping[str, Any]]) -> None:
    """Raise ZbenchError where sides that name the same files were loaded from files of other content.

    Sides that name different ones on purpose are compared for speed. What a side does not say, an older zbench's
    perhaps, says nothing.
    """
    a, b = sides
    if a.trial.pipeline.named_files != b.trial.pipeline.named_files:
        return
    ours, theirs = (Effective.of_content(effective[side.name]) for side in (b, a))
    kind = ours.differs_in_content(theirs)
    if kind is not None:
        digests = [each.content[kind][:12] for each in (theirs, ours)]
        key = "pipeline.lora" if kind == "lora" else "pipeline.weights"
        raise ZbenchError(
            f"--a and --b name the same {kind} and loaded others, {kind}_sha256 {' → '.join(digests)}: they were "
            "replaced while it ran, or a revision has another preset; name those of each side, such as "
            f"--a {key}=OLD --b {key}=NEW, or give both the same"
        )


class SideFailed(ZbenchError):
    """A side cannot make images. `broken`: it could be started and was asked for nothing impossible."""

    def __init__(self, side: SideName, problem: str, *, broken: bool) -> None:
        """`problem` says what happened, with the worker's last words."""
        super().__init__(f"--{side}: {without_folders(problem)}")
        self.side, self.broken = side, broken


class ImagesInvalid(SideFailed):
    """A call of a side made images that are none."""

    def __init__(self, side: SideName, faults: str, index: int = 0) -> None:
        """`faults` says what they are, `index` is the workload's pair, in turn."""
        lead = "images are not valid" if side == "a" else "images are no longer valid, those of --a are"
        super().__init__(side, f"{lead}: {faults}", broken=True)
        self.index = index


class RoundCompiled(SideFailed):
    """A round of a side compiled something, which says nothing for or against its code."""

    def __init__(self, side: SideName) -> None:
        super().__init__(side, "a round is not valid: compiled", broken=False)


def share_a_pipeline(a: Side, b: Side) -> bool:
    """Whether one loaded pipeline serves both: of one zbench and interpreter, they differ at most in what their engine
    takes up per request.

    Where blocks are compiled, going from one setting to the other might compile them again.
    """
    if (a.python, a.home) != (b.python, b.home) or fast.compiled(a.trial.compute):
        return False
    engines = Descriptions(allow_code=a.allow_code)
    return engines.process(a.trial) == engines.process(b.trial)


def turn_of(sides: Sequence[Side], run: str, *, share: bool = False) -> TurnOnDevices:
    """The turn of all sides' devices that a measurement of them is to have, as a whole; `run` is what others hear."""
    devices = present_devices()
    places = [place for side in sides for place in places_of(side.trial, devices)]
    return TurnOnDevices(places, run, share=share)


class SideWorker:
    """A resident worker: of one side, or of two that share a pipeline."""

    def __init__(self, sides: Sequence[Side], log: Path, timeout_s: float) -> None:
        """Start the worker; it loads nothing yet."""
        self._sides = sides
        self._asked = sides[0]  # whose answer is waited for
        self._timeout_s = timeout_s
        self.effective: dict[SideName, dict[str, Any]] = {}
        """What took effect on each side that is prepared, in the words of its own zbench."""
        self.against = Counter[str]()
        """Rounds that the GPU's state speaks against, by the reason: throttled, or a foreign process computed there."""
        self._pids: list[int] = []  # of what works for it besides, such as a server that was there before
        self._beside: list[int] = []  # the other side's, which are no neighbours
        self.load_s: float | None = None
        """What it took to load, for the side that was prepared first."""
        self.first_latency_s: dict[SideName, float] = {}
        """The first image of each side that is prepared, which it may have compiled for."""
        self.clocks_mhz: dict[SideName, list[float]] = {}
        """Mean GPU clock of each valid round, where NVML says it."""
        self._imports: bool | None = None  # whether it is importing; None: it said nothing yet
        self._log_offset = log.stat().st_size if log.exists() else 0  # an earlier comparison's words lie before it
        self._kills_before = oom_kills()
        self._client = WorkerClient(log, python=sides[0].python, home=sides[0].home, allow_code=sides[0].allow_code)

    @property
    def environment(self) -> dict[str, Any] | None:
        """Where the worker is, as it said itself; None before it spoke."""
        return self._client.environment

    def start_importing(self) -> None:
        """Await its first words, and have it import what it will load with. One of an older zbench does that later.

        Raises as `prepare` does.
        """
        self._imports = self._await("hello", STARTUP_S, "the worker's start").get("imports", False)
        if self._imports:
            self._tell({"command": "import", "trial": self._sides[0].trial.to_dict()})

    def finish_importing(self) -> None:
        """Await the end of that. Raises as `prepare` does."""
        if self._imports is None:
            self.start_importing()
        if self._imports:
            self._await("imported", self._timeout_s, "measure.timeout_s")
            self._imports = False

    def prepare(self, began_s: float) -> None:
        """Load, and for each side configure and make a first image.

        `began_s` is when the comparison began, by `time.perf_counter`, which all processes of a machine share.
        Raises ZbenchError if the worker speaks another protocol, SideFailed if it fails.
        """
        self.finish_importing()
        for side in self._sides:
            self._asked = side
            about = {"side": side.name, "role": side.role, "trial": side.trial.to_dict(), "began_s": began_s}
            self._tell({"command": "prepare", **about})
            said = self._await("prepared", self._timeout_s, "measure.timeout_s")
            self.effective[side.name] = said.get("effective", {})
            self.first_latency_s[side.name] = said["first_latency_s"]
            self._pids += said.get("pids", [])  # which an older zbench does not say

    @property
    def pids(self) -> list[int]:
        """All that work for it, as far as that was said; what they started is not named."""
        return [self._client.process.pid, *self._pids]

    def knows_beside(self, others: Iterable["SideWorker"]) -> None:
        """From its first round on these are no neighbours to be blamed. To be called once all are prepared."""
        self._beside = [pid for other in others if other is not self for pid in other.pids]

    def generate(self, name: SideName, index: int) -> Request:
        """One request of a side, of the workload's pair `index`, in turn.

        It is made again where its process was stopped meanwhile, or the machine slept, and where the GPU was throttled
        or not ours alone, but not without end. Raises SideFailed; ImagesInvalid and RoundCompiled where it was made and
        does not count.
        """
        for _ in range(1 + MOST_AGAIN):
            while SUSPENDED in (made := self._request(name, index)).disturbances:
                pass
            slowed = [reason for reason in made.invalid_reasons if reason.startswith((THROTTLED, FOREIGN))]
            self.against.update(slowed)
            if not slowed:
                break
        if slowed == made.invalid_reasons:
            return made
        if made.invalid_reasons == ["compiled"]:
            raise RoundCompiled(name)
        if not made.valid:
            faults = ", ".join(made.invalid_reasons)
            raise ImagesInvalid(name, f"{faults} of {made.prompt_id} with seed {made.seed}", index)
        return made

    def _request(self, name: SideName, index: int) -> Request:
        ask = {"command": "generate", "side": name, "index": index, "beside": self._beside}
        self._tell(ask)  # who is gone by now died of the last turn
        self._asked = next(side for side in self._sides if side.name == name)
        said = self._await("generated", self._timeout_s, "measure.timeout_s")
        try:
            made = typed(Request, said["request"], ignore_unknown=True)
            clock_mhz = None if (clock := said.get("sm_clock_mhz")) is None else typed(float, clock)
        except ValueError as error:
            raise SideFailed(name, f"what its worker measured cannot be used: {error}", broken=True) from error
        if clock_mhz is not None and made.valid:
            self.clocks_mhz.setdefault(name, []).append(clock_mhz)
        return made

    def close(self) -> None:
        """Let the worker go."""
        self._client.quit()

    def _tell(self, command: dict[str, Any]) -> None:
        try:
            self._client.tell(command)
        except WorkerGone:
            raise self._gone() from None

    def _await(self, wanted: str, within_s: float, limit: str) -> dict[str, Any]:
        patience, left_s = Patience(within_s, self._client), within_s
        while True:
            try:
                event = self._client.next_event(min(left_s, POLL_S))
            except WorkerGone:
                raise self._gone() from None
            except OtherProtocol as error:
                raise ZbenchError(f"--{self._asked.name}: {error}; compare revisions that speak the same") from None
            left_s = patience.left_s()
            if event is None and left_s <= 0:  # what it said counts before what time it is
                break
            if event is None:
                continue
            if event["event"] == "failed":
                if event["code"] == INVALID_IMAGES:
                    raise ImagesInvalid(self._asked.name, event["message"])
                broken = event["code"] not in NOT_THE_CODES_FAULT
                raise SideFailed(self._asked.name, f"{event['code']}: {event['message']}", broken=broken)
            if event["event"] == "loaded":
                self.load_s = event["load_s"]
            if event["event"] == wanted:
                return event
        broken = self.environment is not None
        raise SideFailed(self._asked.name, f"no answer within {within_s:g} s ({limit})", broken=broken)

    def _gone(self) -> SideFailed:
        self._client.kill()
        code = self._client.process.wait()
        reason = death(code, oom_kills() > self._kills_before)
        tail = self._client.log_tail(self._log_offset)
        last_words = f"; its log ends: {tail[-1]}" if tail else ""
        from_outside = reason.is_of_the_machine and code != -signal.SIGKILL  # which is how memory's killers kill, too
        broken = self.environment is not None and not from_outside
        return SideFailed(self._asked.name, f"{reason.message}{last_words}", broken=broken)


def warm_up(
    workers: Mapping[SideName, SideWorker], bound: int, show: Callable[[SideName, float], None]
) -> dict[SideName, list[float]]:
    """Seconds of each side's warm-up rounds, by turns until those of all have settled or are `bound`, at least 1.

    All are of the first pair, so that only time can change them.
    """
    bound = max(bound, 1)
    series: dict[SideName, list[float]] = {name: [] for name in workers}
    while any(warm_from(latencies, bound=bound) is None for latencies in series.values()):
        for name, worker in workers.items():
            series[name].append(worker.generate(name, 0).latency_s)
            show(name, series[name][-1])
    return series
