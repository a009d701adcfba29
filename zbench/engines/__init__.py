"""Engines: what turns a prompt into an image. This module has their protocols and finds them by name; it imports none.

A new engine is one folder with a class that fits `EngineDescription`, and one file in `conf/engine/` that names it as
`target: module:Class`. The description imports nothing heavy: plans ask it. What it makes fits `Engine`.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from zbench.config import CacheConfig, EngineConfig
from zbench.errors import ConfigError
from zbench.measurement import Communication, Effective, RankView
from zbench.plugins import check_permitted, load_object
from zbench.probes.watched import Watched
from zbench.trial import Trial

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


OnProgress = Callable[[str, int, int], None]
"""Told of the stage (checking or loading), of bytes done, and of bytes in all."""


@dataclass(frozen=True)
class Generation:
    """One call of the pipeline, its first image and how it came about. Times are seconds."""

    image: NDArray[np.uint8]  # height × width × 3, RGB
    latents: NDArray[np.float32] | None  # as the last denoising step left them; None where an engine hides them
    latency_s: float  # wall clock of the whole call, device synchronised at both ends
    stages_s: dict[str, float]  # text_encode, denoise, decode; what is left of latency_s belongs to none
    steps_s: list[float]  # one transformer forward each, in order
    cached_steps: list[int] = field(default_factory=list)  # indices of steps whose middle blocks were skipped
    residual_diffs: dict[str, float] = field(default_factory=dict)  # step index to residual difference
    images: int = 1  # made by the call; `image` is the first
    text_tokens: list[int] = field(default_factory=list)  # prompt tokens of each sample in a transformer forward
    device_s: float | None = None  # the call on the device's own clock (CUDA events); None on a host
    compiled: bool = False  # whether something was compiled during the call, so that its time says nothing
    compile_s: float | None = None  # seconds of the call in which code was compiled or captured; None: nobody says
    invalid_reasons: list[str] = field(default_factory=list)  # what only it can see, of `measurement.SPOILS_IMAGES`
    ranks: list[RankView] = field(default_factory=list)  # of several devices, by rank; `latency_s` is the slowest's
    served: bool = False  # by a server, which alone knows when it began; `latency_s` is what its client saw
    server_s: float | None = None  # what a server says that it took; None: it does not say
    server_peak_bytes: int | None = None  # what it says that it held of its device at most


class StageError(Exception):
    """A generation failed; `__cause__` is why."""

    def __init__(self, stage: str) -> None:
        """`stage` is text_encode, denoise or decode."""
        super().__init__(stage)
        self.stage = stage


@dataclass(frozen=True)
class Residency:
    """What a trial shares with others, on two levels."""

    process: str
    """Trials with equal ones are served by one process and one loaded pipeline. It holds the engine and its options,
    weights, topology, compute, offload, memory cap and size."""
    request: str
    """What may change from request to request: cache settings, steps, prompts, seeds."""


class EngineDescription(Protocol):
    """What an engine says of itself before any of its stack is imported. Made with `engine.options`,
    and with `engine.base_url` where its config has one."""

    def supports(self, trial: Trial) -> str | None:
        """Why this engine cannot run `trial`, naming key and value, or None. Asked of trials to be measured alone."""
        ...

    def residency(self, trial: Trial) -> Residency:
        """Which trials one process and one loaded pipeline serve."""
        ...

    def engine(self) -> Engine:
        """Make one that holds nothing yet. Its stack is imported here, or when it is called together (`Grouped`)."""
        ...


@dataclass(frozen=True)
class LostRank:
    """One process of an engine of several that fails its trial, and why."""

    rank: int
    code: str  # rank_lost, rank_hung, ranks_disagree, or what the rank's own failure is called
    message: str  # one line that names the rank
    log_tail: tuple[str, ...] = ()  # its last words; empty: they are in the worker's own log
    stage: str | None = None
    memory: dict[str, int] | None = None

    def told(self, stage: str) -> dict[str, Any]:
        """As fields of a worker's `failed` event; `stage` is where the worker itself was."""
        return {
            "code": self.code,
            "message": self.message,
            "stage": self.stage or stage,
            "memory": self.memory,
            "log_tail": list(self.log_tail),
        }


@runtime_checkable
class Grouped(Protocol):
    """An engine of several processes. One may be lost while the thread that waits for it cannot be told."""

    on_lost: Callable[[LostRank], None]
    """Called by another thread than the engine's caller's, where no call has raised the loss within seconds. The engine
    is of no use then: who is told ends the process and all that it started."""

    def call_together(self, trial: Trial) -> None:
        """Start the trial's other processes, and import the stack in all at the same time; `launch` comes next.

        It is no part of loading's time. Raises what an import does.
        """
        ...


class Engine(Protocol):
    """One resident pipeline. In this order: launch, then configure and generate as often as wanted, then close."""

    def launch(self, trial: Trial, on_progress: OnProgress | None = None) -> None:
        """Bring up what `Residency.process` of the trial names. Raises ZbenchError for what the user can mend.

        `on_progress` is told how far it is, from the thread of this call; an engine that cannot say leaves it alone.
        """
        ...

    def configure(self, trial: Trial) -> None:
        """Take up what `Residency.request` of the trial names, for the generations that follow, without launching anew.

        Nothing of the former setting stays. The trial's `Residency.process` is that of the one launched.
        """
        ...

    def generate(self, prompt_text: str, seed: int, negative_prompt: str = "") -> Generation:
        """Make `pipeline.batch_size` times `pipeline.images_per_prompt` images in one call, the first from `seed`.

        `negative_prompt` is given only where the workload has one; an engine that knows none may leave it out.
        Raises StageError from whatever stopped it.
        """
        ...

    def effective(self) -> Effective:
        """What took effect; an engine says what it knows."""
        ...

    def watch(self) -> Watched:
        """What gauges are to watch. It is asked after a launch, also after one that failed: what was held then."""
        ...

    def close(self) -> None:
        """Let go of the pipeline and of the memory it holds; also after a launch that failed."""
        ...


@runtime_checkable
class Profiled(Protocol):
    """What an `Engine` that can profile itself has besides."""

    def communication(self, prompt_text: str, seed: int, negative_prompt: str = "") -> list[Communication]:
        """Make the images of `generate` once more, untimed, and say what of each rank's forwards is communication.

        By rank; empty where no profiler is to be had. It is asked as configured, of several ranks on CUDA alone.
        """
        ...


FAILURES_OF_ONE_REQUEST = frozenset(
    {"http_status", "timeout", "unreachable", "broken_reply", "closed_early", "refused"}
)
"""Codes of what befalls one request of a load and not its trial: it is counted, unless nothing but such came back."""


@runtime_checkable
class Concurrent(Protocol):
    """What an `Engine` has besides whose `generate` may be called by several threads at the same time.

    A request that failed raises a `CodedError` of FAILURES_OF_ONE_REQUEST, alone or as the cause of a StageError. What
    ends the trial, such as a server that is gone, has another code.
    """

    def at_once(self) -> int | None:
        """How many calls it takes at one time, each from a thread of its own; None: it has no bound.

        An engine without this is called by one thread, the one that launched it, and other requests wait in the worker.
        """
        ...

    def generate_for(self, trial: Trial, prompt_text: str, seed: int, negative_prompt: str = "") -> Generation:
        """As `generate`, for the trial that it is configured for, at another size or with other steps.

        Nobody can configure it between calls of several threads. It is asked only where its description resizes.
        """
        ...


@runtime_checkable
class LaunchedInParts(Protocol):
    """What an `Engine` has besides whose launch makes a first image of its own."""

    def launch_parts(self) -> dict[str, float]:
        """Seconds of the latest launch by what it was: `first_request`, and what came before."""
        ...


@runtime_checkable
class Plain(Protocol):
    """A description that knows which trials are equal before any of them has run."""

    def plainest(self, trial: Trial) -> tuple[Trial, str]:
        """The plainest trial that makes the same images by the same steps, and why; itself where none is known."""
        ...


@runtime_checkable
class ServingUncached(Protocol):
    """A description whose loaded pipeline may depend on whether a trial has a cache at all."""

    def uncached(self, trial: Trial) -> Trial:
        """The trial without a cache that the pipeline loaded for `trial` serves; itself where it has none."""
        ...


@runtime_checkable
class Launching(Protocol):
    """What an `EngineDescription` has besides whose launches take so long that a plan counts them."""

    def launch_s(self, trial: Trial) -> float:
        """Seconds that a launch for the trial is expected to take, before any was measured."""
        ...


@runtime_checkable
class Resizing(Protocol):
    """What an `EngineDescription` has besides whose pipelines can be configured for another size and other steps while
    they are loaded. Prompts may then have their own in one window.

    A size is of `Residency.process` all the same: what a larger image left behind would count as the next trial's.
    """

    def resizes(self, trial: Trial) -> bool:
        """Whether the pipeline that is launched for `trial` makes other sizes once it is configured for them."""
        ...


@runtime_checkable
class Batching(Protocol):
    """What an `EngineDescription` has besides whose engines may make images of several requests in one call."""

    def batching_problem(self, trial: Trial) -> str | None:
        """Why the pipeline that is launched for `trial` makes one request's at a time, naming key and value, or None.

        Where it is None, the engine is a `Batched` one.
        """
        ...


@runtime_checkable
class Batched(Protocol):
    """What an `Engine` has besides that makes images of several requests in one call."""

    def generate_batch(self, calls: Sequence[tuple[str, int, str]]) -> list[Generation]:
        """One image for each prompt, seed and negative prompt, in their order and as configured.

        Each is what `generate` makes of it, up to what summing in another order rounds. What is said of the call, its
        latency and its steps, is said of each. Raises StageError from whatever stopped it; then there are none.
        """
        ...


def describe(config: EngineConfig, *, allow_code: bool = False) -> EngineDescription:
    """The description that `engine.target` names, made with `engine.options`, and `engine.base_url` where there is one.

    Raises ConfigError as `plugins.load_object` does, and for options that it does not take.
    """

    def make(found: type[EngineDescription]) -> EngineDescription:
        try:
            return found(**config.arguments)
        except TypeError as error:
            takes = ", ".join(inspect.signature(found).parameters) or "none"
            problem = f"{found.__name__} does not take these ({error}); its options: {takes}"
            names = ", ".join(f"{name!r}: …" for name in config.options)  # what they hold may be a key
            raise ConfigError("engine.options", f"{{{names}}}", problem) from error

    made: EngineDescription = load_object(
        "engine",
        "engine.target",
        config.target,
        EngineDescription,
        make,
        optional=(Resizing, Batching),
        allow_code=allow_code,
    )
    return made


def residency_by_keys(trial: Trial, per_request: Iterable[str]) -> Residency:
    """A residency from what an engine takes up per request: groups (`cache`) or keys of them (`pipeline.steps`).

    All others are of the process, as are those of groups that a later zbench may have.
    """
    process, request = trial.to_dict(), {}
    for path in per_request:
        group, _, key = path.partition(".")
        request[path] = process[group].pop(key, None) if key else process.pop(group, None)
    return Residency(json.dumps(process, sort_keys=True), json.dumps(request, sort_keys=True))


def why_not(description: EngineDescription, trial: Trial) -> str | None:
    """Why an engine cannot run `trial`, sizes and steps of single prompts included, or None.

    Raises ConfigError as `EngineDescription.supports` does.
    """
    problem = description.supports(trial)
    mixing = [prompt for prompt in trial.workload.prompts if prompt.own]
    if problem is not None or not mixing:
        return problem
    first = mixing[0]
    asked = " ".join(f"{key}={value}" for key, value in first.own.items())
    if not isinstance(description, Resizing) or not description.resizes(trial):
        way = "leave it out, or sweep pipeline.height, pipeline.width and pipeline.steps"
        return f"workload.prompts: {first.id} has {asked}, and engine={trial.engine.name} makes all alike here; {way}"
    told = ((prompt.id, description.supports(trial.with_own(prompt.own))) for prompt in mixing)
    return next((f"workload.prompts: {prompt_id}: {reason}" for prompt_id, reason in told if reason), None)


def process_of(description: EngineDescription, trial: Trial) -> str:
    """What must be equal for one process to serve two trials: the engine, its arguments, and what it says itself."""
    process = description.residency(trial).process
    return json.dumps([trial.engine.target, trial.engine.arguments, process], sort_keys=True)


class Descriptions:
    """What the engines of trials say of them; each is described once."""

    def __init__(self, *, outside: bool = True, allow_code: bool = False) -> None:
        """Without `outside` no code from outside zbench is imported, and its engines are not asked."""
        self._outside, self._allow_code = outside, allow_code
        self._made: dict[str, EngineDescription | None] = {}

    def supports(self, trial: Trial) -> str | None:
        """Why the engine of `trial` cannot run it, or None. Raises ConfigError as `describe` does.

        A projected trial is not asked of its engine: what runs in its place is another trial.
        """
        asked = None if trial.hardware is not None else self._of(trial.engine)
        return None if asked is None else why_not(asked, trial)

    def process(self, trial: Trial) -> str:
        """`process_of` it; where its engine is not asked, one serves what differs in cache and workload alone."""
        asked = None if trial.hardware is not None else self._of(trial.engine)
        if asked is None:
            return residency_by_keys(trial, ("cache", "workload", "hardware")).process
        return process_of(asked, trial)

    def plainest(self, trial: Trial) -> tuple[Trial, str]:
        """See `Plain`; of an engine that is no such, or that is not asked, each trial is its own."""
        asked = self._of(trial.engine)
        return asked.plainest(trial) if isinstance(asked, Plain) else (trial, "")

    def uncached(self, trial: Trial) -> Trial:
        """See `ServingUncached`; of an engine that is no such, or that is not asked, the trial with `cache=none`."""
        asked = None if trial.hardware is not None else self._of(trial.engine)
        if isinstance(asked, ServingUncached):
            return asked.uncached(trial)
        return replace(trial, cache=CacheConfig())

    def launch_s(self, trial: Trial) -> float:
        """Seconds that a launch for it should take; 0 of an engine that does not count them, or is not asked."""
        asked = None if trial.hardware is not None else self._of(trial.engine)
        return asked.launch_s(trial) if isinstance(asked, Launching) else 0.0

    def _of(self, config: EngineConfig) -> EngineDescription | None:
        """None of one that is not asked. Whether it is permitted is found out once, in the metadata of all packages."""
        key = json.dumps([config.target, config.arguments], sort_keys=True)
        if key not in self._made:
            place = check_permitted("engine", "engine.target", config.target, allow_code=self._allow_code)
            is_asked = self._outside or place.is_own
            self._made[key] = describe(config, allow_code=self._allow_code) if is_asked else None
        return self._made[key]
