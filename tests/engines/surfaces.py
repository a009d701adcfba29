"""Known surfaces, and an engine without torch that lies on one: what each setting takes, holds, skips and spoils.

`surface(name, seed)` is a pure model: latency, device memory, likeness and residual differences of any trial, and so
the true answer to any search. `SurfaceEngine` runs it in a worker, where latencies are said and never slept, and images
are painted whose SSIM to the reference's is the surface's. `surfaced.ran` makes the same records without a worker.

    zbench sweep --config-dir tests/conf engine=surface engine.options.surface=cliffs hardware=cpu cache=dbcache
"""

import hashlib
import math
import os
from dataclasses import dataclass, replace
from functools import lru_cache
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zbench.config import CacheConfig, DBCacheConfig, SCMConfig
from zbench.engines import Generation, OnProgress, Residency, residency_by_keys
from zbench.measurement import Effective
from zbench.methods.cache import method_of
from zbench.methods.offload import BY_NAME
from zbench.methods.parallel import ParallelDims
from zbench.probes.watched import Watched
from zbench.trial import Trial

SIDE = 16  # pixels of a painted image; SSIM's window has seven
BLOCKS = 30  # of the transformer that is modelled
GIB = 2**30
WEIGHTS_GIB = {"text_encoder": 8.0, "transformer": 12.0, "vae": 0.2}
ALWAYS_SKIPPED_FROM = 1.0
"""As cache-dit 1.5.3: at such a threshold nothing is compared."""

FASTER = {
    "compile": (0.72, 0.9),
    "graphs": (0.9, 1.0),
    "qkv": (0.95, 1.0),
    "rope": (0.95, 1.0),
    "ffn": (0.95, 1.0),
    "text": (0.98, 1.0),
    "decode": (0.95, 1.0),
    "quantization": (0.68, 0.85),
    "dtype": (1.6, 2.2),
    "attention_backend": (0.85, 1.1),
}
"""Knobs of `compute`, and between which factors a value other than the default changes a step's time."""

SAMPLE_SPREAD = 0.25
"""By how much samples differ in their residual differences and in what skipping does to them, one sigma."""


@dataclass(frozen=True)
class Surface:
    """What every setting comes to. Times are seconds, sizes bytes, likeness is SSIM."""

    name: str
    seed: int
    noise: float = 0.0  # relative spread of latencies, one sigma
    wobble: float = 0.0  # the same of residual differences from call to call, as on a GPU
    cliff: float | None = None  # a loss of likeness from which an image falls apart
    steep_memory: bool = False  # whether compiled graphs hold a second copy of what they compute on
    inert: frozenset[str] = frozenset()  # knobs of `compute` that change nothing, and `Bn`
    device_gib: float | None = None  # more than that is out of memory
    step_s: float = 0.1

    # What a call does

    def skipping(self, trial: Trial, sample: tuple[str, int], call: int = 0) -> tuple[list[int], dict[str, float]]:
        """Steps that a sample skips, and the residual differences that are compared on the way, as DBCache does it."""
        cache, steps = trial.cache, trial.pipeline.steps
        if not isinstance(cache, DBCacheConfig) or self._is_whole(cache):
            return [], {}
        may = masked(steps, cache) if isinstance(cache, SCMConfig) else frozenset(range(steps))
        if isinstance(cache, SCMConfig) and cache.scm_policy == "static":
            return sorted(may), {}
        limit, longest, first = (
            cache.residual_diff_threshold,
            cache.max_continuous_cached_steps,
            0 if isinstance(cache, SCMConfig) else cache.max_warmup_steps,
        )
        skipped: list[int] = []
        diffs: dict[str, float] = {}
        in_a_row = 0
        for step in range(steps):
            if step < max(first, 1) or step not in may or 0 <= longest <= in_a_row or limit <= 0:
                in_a_row = 0
                continue
            if limit < ALWAYS_SKIPPED_FROM:
                diffs[str(step)] = self.difference(trial, sample, step, tuple(skipped), call)
            if limit >= ALWAYS_SKIPPED_FROM or diffs[str(step)] < limit:
                skipped.append(step)
                in_a_row += 1
            else:
                in_a_row = 0
        return skipped, diffs

    def difference(
        self, trial: Trial, sample: tuple[str, int], step: int, skipped: tuple[int, ...], call: int = 0
    ) -> float:
        """The residual difference at a step after `skipped`. It falls with the steps, and grows with each in a row."""
        cache = trial.cache
        assert isinstance(cache, DBCacheConfig)
        in_a_row = next((n for n in range(step) if step - 1 - n not in skipped), step)
        base = 0.62 / (1 + step) ** 0.6 * (1 + 0.35 * in_a_row) * (1 + 0.03 * (cache.Fn_compute_blocks - 1))
        own = self._normal(SAMPLE_SPREAD, "difference", sample, step)
        way = (cache.enable_taylorseer and cache.taylorseer_order, trial.compute.dtype, trial.compute.quantization)
        history = self._normal(0.1, "history", sample, step, skipped, self._blocks(cache), *(way if skipped else ()))
        wobble = self._normal(self.wobble, "wobble", sample, step, call) if self.wobble else 0.0
        return base * math.exp(own + history) * (1 + wobble)

    def ssim(self, trial: Trial, sample: tuple[str, int], skipped: list[int]) -> float:
        """Likeness of a sample's image to its reference's, which skips nothing and computes natively."""
        loss = self.loss(trial, sample, skipped)
        fallen = self.cliff is not None and loss > self.cliff
        return math.exp(-loss) * (0.55 if fallen else 1.0)

    def loss(self, trial: Trial, sample: tuple[str, int], skipped: list[int]) -> float:
        """The more steps are skipped, the earlier and the more in a row, the larger."""
        cache, compute = trial.cache, trial.compute
        factor = math.exp(self._normal(SAMPLE_SPREAD, "loss", sample))
        if isinstance(cache, DBCacheConfig):
            factor *= 0.7 if cache.enable_taylorseer else 1.0
            factor *= 1 - 0.6 * sum(self._blocks(cache)) / BLOCKS
        total = 0.0
        for step in skipped:
            in_a_row = next(n for n in range(step + 2) if step - n not in skipped)
            total += 0.05 * factor * (1 + 0.3 * (in_a_row - 1)) / (1 + step) ** 0.4
        return total + (0.02 if compute.quantization != "none" else 0.0)

    def share_right(self, trial: Trial, sample: tuple[str, int], skipped: list[int]) -> float:
        """Of a dozen attributes that a prompt asks for, those that are right."""
        return max(0, 12 - round(max(0.0, self.loss(trial, sample, skipped) - 0.08) * 20)) / 12

    def latency_s(self, trial: Trial, skipped: int, call: int = 0) -> float:
        """Of a call that skips so many steps."""
        compute, dims = trial.compute, ParallelDims.of(trial.parallel)
        factor = math.prod(self.factor(knob, getattr(compute, knob)) for knob in FASTER)
        kept = method_of(trial.cache).cached_blocks(BLOCKS) or 0
        left = self._sharded(dims.devices // dims.dp)
        moved_s, mode = 0.0, BY_NAME[trial.offload.mode]
        if mode.waiting:
            waiting_gib = sum(WEIGHTS_GIB[part] for part in mode.waiting)
            moved_s = waiting_gib / (24 if trial.offload.pin_memory else 8)
            moved_s *= 1 + (trial.pipeline.steps if mode.by_layers else 0)
        steps = trial.pipeline.steps - skipped + skipped * (0.04 + 0.96 * kept / BLOCKS)
        seconds = self.step_s * (steps * factor * left + 0.5) + moved_s
        noise = self._normal(self.noise, "noise", trial.trial_id, call) if self.noise else 0.0
        return seconds * max(0.5, 1 + noise)

    def memory_bytes(self, trial: Trial) -> int:
        """The fullest device's peak."""
        mode, compute = BY_NAME[trial.offload.mode], trial.compute
        share = 1 / trial.parallel.tp_size
        own_gib = {part: gib * (share if part == "transformer" else 1.0) for part, gib in WEIGHTS_GIB.items()}
        own_gib["transformer"] *= 0.55 if compute.quantization != "none" else 1.0
        staying = sum(gib for part, gib in own_gib.items() if part not in mode.waiting)
        coming = max((own_gib[part] for part in mode.waiting), default=0.0) * (0.1 if mode.by_layers else 1.0)
        works = 3.0 / (ParallelDims.of(trial.parallel).devices // trial.parallel.dp_size)
        works += 0.1 * method_of(trial.cache).kept_tensors + (0.6 if compute.compile else 0.0)
        works += 2.5 if compute.graphs != "none" and self.steep_memory else 0.0
        return int((staying + coming + works) * GIB)

    def fits(self, trial: Trial) -> bool:
        return self.device_gib is None or self.memory_bytes(trial) <= self.device_gib * GIB

    def factor(self, knob: str, value: Any) -> float:
        """By how much a value of `compute` changes a step's time."""
        plain = {"compile": False, "graphs": "none", "dtype": ("auto", "bfloat16"), "attention_backend": "native"}
        default = plain.get(knob, {"qkv": "split", "rope": "complex", "ffn": "split", "text": "padded"}.get(knob))
        default = {"decode": "eager", "quantization": "none"}.get(knob, default)
        if value == default or (isinstance(default, tuple) and value in default) or knob in self.inert:
            return 1.0
        if knob == "dtype" and value == "float32":  # native on a CPU
            return 1.0
        least, most = FASTER[knob]
        return least + (most - least) * self._uniform("factor", knob, str(value))

    # What it rests on

    def _sharded(self, devices: int) -> float:
        """Share of a step's time that is left on so many devices that make one image together."""
        lost = 0.04 + 0.11 * self._uniform("lost")
        return 1 / devices + lost * (1 - 1 / devices)

    def _blocks(self, cache: DBCacheConfig) -> tuple[int, int]:
        return cache.Fn_compute_blocks, 0 if "Bn" in self.inert else cache.Bn_compute_blocks

    def _is_whole(self, cache: DBCacheConfig) -> bool:
        return cache.Fn_compute_blocks + cache.Bn_compute_blocks >= BLOCKS

    def _uniform(self, *of: object) -> float:
        """Above 0 and below 1; the same for the same words, in any process."""
        digest = hashlib.blake2b(repr((self.name, self.seed, of)).encode(), digest_size=6).digest()
        return (int.from_bytes(digest) + 0.5) / 2**48

    def _normal(self, sigma: float, *of: object) -> float:
        """The same, around 0."""
        return sigma * NORMAL.inv_cdf(self._uniform(*of))


NORMAL = NormalDist()

SURFACES = {
    "smooth": Surface("smooth", 0),
    "noisy": Surface("noisy", 0, noise=0.02),
    "cliffs": Surface("cliffs", 0, cliff=0.12, steep_memory=True, device_gib=25.0),
    "inert": Surface("inert", 0, inert=frozenset({"qkv", "rope", "ffn", "text", "graphs", "Bn"})),
    "rugged": Surface(
        "rugged", 0, noise=0.03, cliff=0.1, steep_memory=True, inert=frozenset({"rope", "ffn", "Bn"}), device_gib=26.0
    ),
    "wobbling": Surface("wobbling", 0, noise=0.01, wobble=1e-4),
}


def surface(name: str, seed: int = 0) -> Surface:
    """One of SURFACES; another seed is another landscape of the same kind."""
    return replace(SURFACES[name], seed=seed)


def masked(steps: int, cache: SCMConfig) -> frozenset[int]:
    """Steps that a mask lets be skipped: its own, or of cache-dit's kind as many as its preset says, spread over what
    follows the first ones."""
    if cache.steps_mask is not None:
        return frozenset(step for step, digit in enumerate(cache.steps_mask) if digit == "0")
    many = method_of(replace(cache, scm_policy="static")).forced_skips(steps)
    return frozenset(steps - 1 - round(n * (steps - 2) / max(many, 1)) for n in range(many))


class SurfaceEngine:
    """Describes `SurfacePainter`."""

    def __init__(self, surface: str = "smooth", seed: int = 0) -> None:
        """`surface` is one of SURFACES."""
        self._surface = replace(SURFACES[surface], seed=seed)

    def supports(self, trial: Trial) -> str | None:
        return None

    def residency(self, trial: Trial) -> Residency:
        return residency_by_keys(trial, ("cache", "workload", "pipeline.steps"))

    def batching_problem(self, trial: Trial) -> str | None:
        return None

    def engine(self) -> "SurfacePainter":
        return SurfacePainter(self._surface)


class SurfacePainter:
    """Says what its surface says, and paints images that are as like their reference's as that says."""

    def __init__(self, surface: Surface) -> None:
        self._surface, self._calls, self._memory = surface, 0, SaidMemory()
        self._trial: Trial | None = None

    def launch(self, trial: Trial, on_progress: OnProgress | None = None) -> None:
        self.configure(trial)

    def configure(self, trial: Trial) -> None:
        self._trial = trial
        self._memory.hold(self._surface.memory_bytes(trial))

    def generate(self, prompt_text: str, seed: int) -> Generation:
        trial, sample = self._trial, (prompt_text, seed)
        assert trial is not None
        if not self._surface.fits(trial):
            raise MemoryError(f"{self._surface.memory_bytes(trial) / GIB:.1f} GiB of {self._surface.device_gib:g} GiB")
        call, self._calls = self._calls, self._calls + 1
        skipped, diffs = self._surface.skipping(trial, sample, call)
        latency_s = self._surface.latency_s(trial, len(skipped), call)
        ssim = self._surface.ssim(trial, sample, skipped)
        latents = np.random.default_rng([seed, *prompt_text.encode()]).standard_normal((16, 2, 2)).astype(np.float32)
        return Generation(
            image=painted(prompt_text, seed, ssim),
            latents=latents * np.float32(2 - ssim),
            latency_s=latency_s,
            stages_s={"text_encode": latency_s / 50, "denoise": latency_s * 0.9, "decode": latency_s / 20},
            steps_s=[latency_s * 0.9 / trial.pipeline.steps] * trial.pipeline.steps,
            cached_steps=skipped,
            residual_diffs=diffs,
        )

    def effective(self) -> Effective:
        return Effective(device="cpu", dtype="float32", weights="synthetic", n_blocks=BLOCKS, threads=1)

    def watch(self) -> Watched:
        return Watched((os.getpid(),), allocator=self._memory)

    def close(self) -> None:
        """Nothing is held."""


class SaidMemory:
    """An allocator that holds what a surface says."""

    def __init__(self) -> None:
        self._held = self._peak = 0

    def hold(self, size_bytes: int) -> None:
        self._held, self._peak = size_bytes, max(self._peak, size_bytes)

    def reset_peaks(self) -> None:
        self._peak = self._held

    def peak_allocated_bytes(self) -> int:
        return self._peak

    def peak_reserved_bytes(self) -> int:
        return self._peak

    def now(self) -> dict[str, int]:
        return {"allocated": self._held, "reserved": self._held}


def painted(prompt_text: str, seed: int, ssim: float) -> NDArray[np.uint8]:
    """The image of a sample whose SSIM to that with `ssim=1` is `ssim`, to about 0.002."""
    if ssim >= 1:
        return _sketch(prompt_text, seed)[0].round().astype(np.uint8)
    likeness, shares = _scale(prompt_text, seed)
    return _blend(prompt_text, seed, float(np.interp(ssim, likeness, shares)))


def _blend(prompt_text: str, seed: int, share: float) -> NDArray[np.uint8]:
    own, other = _sketch(prompt_text, seed)
    return (own + share * (other - own)).round().astype(np.uint8)


@lru_cache(maxsize=256)
def _sketch(prompt_text: str, seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two pictures that have nothing in common."""
    rng = np.random.default_rng([seed, *prompt_text.encode()])
    return rng.uniform(30, 225, (SIDE, SIDE, 3)), rng.uniform(30, 225, (SIDE, SIDE, 3))


@lru_cache(maxsize=256)
def _scale(prompt_text: str, seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Likeness, rising, and the share of the other picture that gives it."""
    from skimage.metrics import structural_similarity

    shares = np.linspace(0, 1, 49) ** 1.5
    own = _blend(prompt_text, seed, 0.0).astype(np.float32)
    images = [_blend(prompt_text, seed, share).astype(np.float32) for share in shares]
    likeness = [structural_similarity(own, i, channel_axis=-1, data_range=255.0) for i in images]
    return np.minimum.accumulate(likeness)[::-1], shares[::-1]


def unskipped(trial: Trial) -> Trial:
    """The same without a cache."""
    return replace(trial, cache=CacheConfig())
