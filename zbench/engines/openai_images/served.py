"""An engine that is a server's client: a call is one request. It starts no server and ends none.

What the server tells of itself is kept: its own time, its memory, and with `zbench serve` steps, cache and stages.
`effective` says where that is not what was asked for. The first request after a change is made in `configure`, untimed.
"""

import time
from typing import Any

from zbench.engines import Generation, OnProgress
from zbench.engines.formats import EXACT, other_format
from zbench.engines.images_client import ImagesClient, ImagesReply, ImagesServerError
from zbench.engines.openai_images.account import ServerAccount, account_in, shown
from zbench.engines.openai_images.dialects import Dialect
from zbench.engines.openai_images.listening import watched_at
from zbench.measurement import Effective
from zbench.methods.cache import method_of
from zbench.probes.watched import Watched
from zbench.trial import Trial
from zbench.workload import pairs

NOT_YET_S = 0.5
"""Seconds between two tries at a server that does not answer yet."""

STARTING = ("unreachable", "closed_early", "refused")
SERVICE_UNAVAILABLE = 503

OWN_WEIGHTS = "the server's own, which it does not name; images are judged against its own without a cache"
"""What a reader should know of the weights."""

MOST_MODELS = 10
"""Names of a server's models that are kept."""


class ServedImages:
    """See `zbench.engines.Engine`; any number of threads may call `generate` at once."""

    def __init__(
        self, client: ImagesClient, dialect: Dialect, *, model: str | None, fields: dict[str, Any], ready_s: float
    ) -> None:
        """`fields` go into every request; of one that is None nothing is sent."""
        self._client, self._dialect, self._ready_s = client, dialect, ready_s
        self._fields = ({} if model is None else {"model": model}) | fields
        self._models: list[str] = []
        self._trial: Trial | None = None
        self._told = ServerAccount()  # of the latest answer
        self._seeds_differ = False
        self._came: str | None = None  # the format of the latest picture

    def launch(self, trial: Trial, on_progress: OnProgress | None = None) -> None:
        """Wait until the server answers a first request. Raises ImagesServerError where it does not in time."""
        self._answered_first(trial)
        self._trial = trial
        try:
            self._models = [shown(name) for name in self._client.models()[:MOST_MODELS]]
        except ImagesServerError:
            self._models = []  # not every server lists them

    def configure(self, trial: Trial) -> None:
        """With one request that is no sample: what a cache held for the former setting is gone after it."""
        changed = self._trial is None or self._setting(trial) != self._setting(self._trial)
        self._trial, self._told, self._seeds_differ = trial, ServerAccount(), False
        if changed:
            self._first_call(trial)

    def generate(self, prompt_text: str, seed: int, negative_prompt: str = "") -> Generation:
        """One request. Raises ImagesServerError, also for images of another number or size than were asked for."""
        assert self._trial is not None
        return self.generate_for(self._trial, prompt_text, seed, negative_prompt)

    def generate_for(self, trial: Trial, prompt_text: str, seed: int, negative_prompt: str = "") -> Generation:
        """The same for a trial of another size or other steps."""
        reply = self._call(trial, prompt_text, seed, negative_prompt)
        self._told = told = account_in(reply.fields)
        self._came = reply.image_format
        self._seeds_differ = self._seeds_differ or told.seed not in (None, seed)
        return Generation(
            image=reply.images[0],
            latents=None,
            latency_s=reply.latency_s,
            stages_s=told.stages_s,
            steps_s=[],
            cached_steps=told.cached_steps or [],
            images=reply.count,
            compiled=told.compiled,
            served=True,
            server_s=reply.server_s,
            server_peak_bytes=reply.peak_memory_bytes,
        )

    def at_once(self) -> int | None:
        """As many as are wanted: the server has its own queue."""
        return None

    def effective(self) -> Effective:
        """What the server told; of its weights, kernels and precision it says nothing."""
        trial, told = self._trial, self._told
        assert trial is not None
        return Effective(
            weights="random" if trial.pipeline.weights == "random" else None,
            weights_note=None if trial.pipeline.weights == "random" else OWN_WEIGHTS,
            steps=None if trial.workload.mixes else told.steps,
            tells_cached_steps=told.cached_steps is not None,
            doubts=self._doubts(trial),
            other={
                "server": self._client.url,
                "dialect": self._dialect.name,
                "models": self._models,
                **({} if told.cache is None else {"cache": told.cache}),
                **({} if self._came is None else {"image_format": self._came}),
            },
        )

    def watch(self) -> Watched:
        """The processes of this machine that listen at the server's address."""
        return watched_at(self._client.url)

    def close(self) -> None:
        """Connections alone: the server is not this engine's."""
        self._client.close()

    def _doubts(self, trial: Trial) -> list[str]:
        told, label = self._told, method_of(trial.cache).label
        steps = trial.pipeline.steps if not trial.workload.mixes else told.steps  # its latest prompt's own
        asked = (("steps", steps, told.steps), ("cache", label, told.cache))
        differ = [
            f"asked for {key} {wanted}, the server says {said}"
            for key, wanted, said in asked
            if said not in (None, wanted)
        ]
        sent = "workload.seeds" in self._dialect.carries
        differ += ["the server says that it took other seeds"] if sent and self._seeds_differ else []
        usual = EXACT if "output_format" in self._setting(trial) else None
        differ += other_format(trial, self._came, usual)
        return differ + ([] if self._dialect.left_open is None else [self._dialect.left_open])

    def _answered_first(self, trial: Trial) -> None:
        """A server may be alive and not ready: it loads, or another is put in its place."""
        until = time.monotonic() + self._ready_s
        while True:
            try:
                self._first_call(trial)
                return
            except ImagesServerError as error:
                waits = error.code in STARTING or error.status == SERVICE_UNAVAILABLE
                if not waits or time.monotonic() >= until:
                    raise
            time.sleep(NOT_YET_S)

    def _first_call(self, trial: Trial) -> None:
        first = pairs(trial.workload)[0]
        self._call(trial, first.prompt_text, first.seed, first.negative_prompt)

    def _setting(self, trial: Trial) -> dict[str, Any]:
        """All of a request but what is painted."""
        return self._dialect.body(trial, "", 0, "")

    def _call(self, trial: Trial, prompt: str, seed: int, negative: str) -> ImagesReply:
        body = self._dialect.body(trial, prompt, seed, negative) | self._fields
        reply = self._client.generate({key: value for key, value in body.items() if value is not None})
        pipeline = trial.pipeline
        height, width = reply.images[0].shape[:2]
        if reply.count != pipeline.images:
            raise _other_work(self._client.url, f"n={pipeline.images}", f"{reply.count} images")
        if (width, height) != (pipeline.width, pipeline.height):
            asked = f"pipeline.width={pipeline.width} pipeline.height={pipeline.height}"
            raise _other_work(self._client.url, asked, f"an image of {width}x{height}")
        return reply


def _other_work(url: str, asked: str, got: str) -> ImagesServerError:
    way = "ask for what it makes, or start it otherwise"
    return ImagesServerError("other_work", f"{url}: asked for {asked} and answered with {got}; {way}")
