"""SGLang as an engine: a resident `sglang serve`, asked as a trial says, and held to what it was asked for.

Its requests are timed by their client. What a server says of its own steps is asked for by untimed requests, before
the timed ones, for asking makes it wait for its GPU.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from zbench.config import Prompt
from zbench.engines import Generation, OnProgress, StageError
from zbench.engines.formats import other_format
from zbench.engines.images_client import ImagesReply
from zbench.engines.openai_images.listening import watched_at
from zbench.engines.openai_images.served import OWN_WEIGHTS
from zbench.engines.sglang.options import SGLangOptions
from zbench.engines.sglang.perf import PerfDump, cached_steps, read_dump
from zbench.engines.sglang.server import ServerFailure, SGLangServer
from zbench.engines.sglang.settled import changed_arguments, logged_arguments
from zbench.engines.sglang.versions import Accepted
from zbench.engines.sglang.words import body_of, caches_per_request, server_words
from zbench.engines.weights import WeightsPlace, resolve_weights
from zbench.hardware.detect import present_devices
from zbench.measurement import Effective, ServerView
from zbench.methods.cache import CacheMethod, method_of
from zbench.methods.parallel import ParallelDims
from zbench.probes.watched import Watched
from zbench.trial import Trial, geometry_of

MOST_PROBED = 16
"""Prompts and seeds of a trial of which an untimed request is made. Of more, cached steps are not told."""

GRAPHS_WIN = "Cache-DiT was requested but is disabled"
"""In SGLang's log where its CUDA graph turned the cache off."""

MASKED_CERTAINLY = 2
"""Steps that every mask of cache-dit's computes at the beginning, at least."""


@dataclass
class _Seen:
    """What a trial's untimed requests told."""

    cached_steps: dict[tuple[object, ...], list[int]] = field(default_factory=dict)  # by image
    dump: PerfDump | None = None  # of its first image
    is_whole: bool = False  # whether the cached steps of all images are known
    differs: dict[str, None] = field(default_factory=dict)  # sentences, each once


class SGLang:
    """See `zbench.engines.Engine`."""

    def __init__(self, options: SGLangOptions, takes: Accepted) -> None:
        self._options, self._takes = options, takes
        self._server = SGLangServer(options)
        self._trial: Trial | None = None
        self._place: WeightsPlace | None = None  # where the server's weights lie; None: not here, or random
        self._content: dict[str, Any] = {}
        self._per_request = False
        self._asked: tuple[object, ...] | None = None  # cache and steps of the last request
        self._seen: dict[str, _Seen] = {}  # by trial id
        self._now = _Seen()
        self._dumps = 0
        self._came: str | None = None  # the format of the latest picture

    def launch(self, trial: Trial, on_progress: OnProgress | None = None) -> None:
        """Start the server, or find the one that is there; it has made an image then. Raises ServerFailure."""
        self._trial, self._place, self._content = trial, None, {}
        if trial.engine.loads_here and trial.pipeline.weights != "random":
            self._know_content(trial, on_progress or (lambda stage, done, total: None))
        self._per_request = caches_per_request(trial, self._options, self._takes)
        first = trial.workload.prompts[0]
        body = body_of(trial, first, trial.workload.seeds[0], per_request=self._per_request)
        self._server.start(partial(server_words, trial, self._options, self._takes), body, on_progress)
        self._asked = _setting(trial)

    def launch_parts(self) -> dict[str, float]:
        """Seconds of the launch: until it gave a sign of life, and of its first request."""
        return self._server.parts_s

    def at_once(self) -> int | None:
        """It has a queue of its own."""
        return None

    def configure(self, trial: Trial) -> None:
        """After a change one request is made that is nobody's, and where the trial is new, each of its images once,
        untimed, for what that tells of steps. Raises StageError."""
        self._trial = trial
        pairs = [(trial.with_own(p.own), p, seed) for p in trial.workload.prompts for seed in trial.workload.seeds]
        if _setting(trial) != self._asked:
            self._reply(*pairs[0])
            self._asked = _setting(trial)
        if trial.trial_id in self._seen:  # it takes turns with another
            self._now = self._seen[trial.trial_id]
            return
        self._now = now = _Seen()
        told = self._options.perf_dumps and not self._options.attaches  # whose files would be elsewhere
        if told and trial.workload.warm_up:
            for pair in pairs[:MOST_PROBED]:
                self._probe(*pair)
        now.is_whole = len(now.cached_steps) == len(pairs)
        self._compare()
        self._seen[trial.trial_id] = now

    def generate(self, prompt_text: str, seed: int, negative_prompt: str = "") -> Generation:
        """One request. Any number of threads may ask. Raises StageError."""
        return self.generate_for(self._own_trial, prompt_text, seed, negative_prompt)

    def generate_for(self, trial: Trial, prompt_text: str, seed: int, negative_prompt: str = "") -> Generation:
        """The same at another size, or with other steps."""
        prompt = Prompt(id="prompt", text=prompt_text, negative_prompt=negative_prompt)
        made = self._reply(trial, prompt, seed)
        return Generation(
            image=made.images[0],
            latents=None,
            latency_s=made.latency_s,
            stages_s={},
            steps_s=[],
            cached_steps=self._now.cached_steps.get(_image(trial, prompt_text, seed), []),
            images=made.count,
            served=True,
            server_s=made.server_s,
            server_peak_bytes=made.peak_memory_bytes,
        )

    def effective(self) -> Effective:
        """What was asked for where SGLang says nothing, and what it said."""
        trial, options, server = self._own_trial, self._options, self._server
        pipeline, place, dump = trial.pipeline, self._place, self._now.dump
        here = not options.attaches  # how another was started is not known
        devices = present_devices() if here and trial.compute.device != "cpu" else []
        at_random = pipeline.weights == "random"
        return Effective(
            device=trial.compute.device,
            device_name=devices[0].name if devices else None,
            weights="random" if at_random else None if place is None else place.source,
            weights_note=place.note if place is not None else None if here or at_random else OWN_WEIGHTS,
            **self._content,
            n_blocks=geometry_of(pipeline).transformer.n_layers,
            steps=len(dump.steps_s) if dump is not None and dump.steps_s else None,
            compile=trial.compute.compile if here else None,
            graphs=trial.graphs if here else None,
            offload=trial.offload.mode if here else None,
            pin_memory=trial.offload.pin_memory if here else None,
            server=ServerView(
                version=self._takes.version or None,
                command=list(server.command),
                log=None if server.log is None else server.log.name,
                per_request_cache=self._per_request,
                stages_s={} if dump is None else dump.stages_s,
                steps_s=[] if dump is None else dump.steps_s,
                probed=len(self._now.cached_steps),
            ),
            tells_cached_steps=self._now.is_whole,
            doubts=[*self._now.differs, *other_format(trial, self._came)],
            other={} if self._came is None else {"image_format": self._came},
        )

    def watch(self) -> Watched:
        """The server's processes, and the first devices that it may see."""
        if self._options.base_url is not None:
            return watched_at(self._options.base_url)
        pids = self._server.pids
        if self._trial is None or self._trial.compute.device == "cpu":
            return Watched(pids)
        wanted = ParallelDims.of(self._trial.parallel).devices
        return Watched(pids, tuple(device.index for device in present_devices()[:wanted]))

    def close(self) -> None:
        """End the server and all that it started; one that somebody else started goes on."""
        self._server.close()

    @property
    def _own_trial(self) -> Trial:
        assert self._trial is not None, "configure comes first"
        return self._trial

    def _know_content(self, trial: Trial, on_progress: OnProgress) -> None:
        """What the files hold that the server is to load. Raises WeightsUnavailableError where they are not here."""
        on_progress("checking", 0, 0)
        self._place = resolve_weights(trial.pipeline)
        content = self._place.content()
        self._content = {} if content is None else content._asdict()

    def _reply(self, trial: Trial, prompt: Prompt, seed: int, **more: Any) -> ImagesReply:
        """One answer that is what was asked for in number and size. Raises StageError."""
        body = body_of(trial, prompt, seed, per_request=self._per_request) | more
        try:
            made = self._server.generate(body)
            height, width, *_ = made.images[0].shape
            got, asked = (f"{made.count} of {width}x{height}", f"{body['n']} of {body['size']}")
            if got != asked:
                raise ServerFailure("other_work", f"sglang serve made other images: {got}, not {asked}")
        except ServerFailure as error:
            raise StageError("a request") from error
        self._came = made.image_format
        return made

    def _probe(self, trial: Trial, prompt: Prompt, seed: int) -> None:
        """One request more, for what it tells of its steps."""
        path, method, steps = self._dump_path(), method_of(trial.cache), trial.pipeline.steps
        self._reply(trial, prompt, seed, perf_dump_path=str(path))
        dump = read_dump(path)
        path.unlink(missing_ok=True)
        if dump is None:
            self._now.differs["it wrote no performance dump, so that nothing is known of its steps"] = None
            return
        self._now.dump = self._now.dump or dump
        blocks = geometry_of(trial.pipeline).transformer.n_layers
        share = (method.cached_blocks(blocks) or 0) / blocks
        certain = max(1, int(method.parameters.get("max_warmup_steps", 1)) if method.decider else MASKED_CERTAINLY)
        cached = cached_steps(dump.steps_s, share, certain) if method.skips else []
        self._now.cached_steps[_image(trial, prompt.text, seed)] = cached
        if dump.steps_s and len(dump.steps_s) != steps:
            self._now.differs[f"it made {len(dump.steps_s)} steps, not pipeline.steps={steps}"] = None

    def _dump_path(self) -> Path:
        assert self._server.scratch is not None, "a server that is attached to writes none"
        self._dumps += 1
        return self._server.scratch / f"{self._dumps}.json"

    def _compare(self) -> None:
        """What was asked for, and what the server told."""
        trial, method = self._own_trial, method_of(self._own_trial.cache)
        found, log = self._now.differs, self._server.said()
        found |= dict.fromkeys(changed_arguments(self._server.command, logged_arguments(log)))
        if method.skips and GRAPHS_WIN in log:
            found["its CUDA graph turned step skipping off, as its log says"] = None
        elif method.skips and self._now.cached_steps and not any(self._now.cached_steps.values()):
            ignored = "the cache was off"
            if self._per_request:
                ignored = "it ignored enable_cache_dit (engine.options.per_request_cache=false has a launch say it)"
            found[f"no step was skipped with {method.label}: {ignored}, or no change lay below its threshold"] = None
        elif method.skips:
            found |= dict.fromkeys(_unheld(method, trial.pipeline.steps, self._now.cached_steps.values()))
        if trial.pipeline.guidance_scale > 0 and "cfg_normalization" not in (self._takes.request or ()):
            found[
                "cfg_normalization is off in zbench's requests, and SGLang takes it from none: for the base model its "
                "own default is on"
            ] = None


def _unheld(method: CacheMethod, steps: int, cached: Iterable[list[int]]) -> list[str]:
    """What a forced mask was to skip, where a server skipped another number of steps."""
    forced = method.forced_skips(steps)
    others = sorted({len(each) for each in cached} - {forced}) if forced else []
    return [f"{method.label} skips {forced} of {steps} steps, and the server skipped {n}" for n in others]


def _image(trial: Trial, prompt_text: str, seed: int) -> tuple[object, ...]:
    """What tells one image of a trial from its others."""
    pipeline = trial.pipeline
    return prompt_text, seed, pipeline.steps, pipeline.width, pipeline.height


def _setting(trial: Trial) -> tuple[object, ...]:
    """What a server prepares itself for."""
    return method_of(trial.cache).label, trial.pipeline.steps
