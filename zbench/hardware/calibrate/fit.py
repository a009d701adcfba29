"""Shares and spreads from what was measured: each share from the rows that show it, each spread from what is left.

Rates of matrix products, attention and memory are the ceilings' where those are known. Of a forward, what they do not
explain is split into bytes moved, time that goes with tokens and time that goes with neither, by least squares without
negative terms over resolutions, batches and cards. Rows of one setting count once, with their median.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import median

import numpy as np

from zbench.config import EfficiencyConfig, SpreadConfig
from zbench.hardware import traffic
from zbench.hardware.calibrate.observed import Ceiling, Observation
from zbench.hardware.calibrate.projecting import Shares, cost_of, datasheet, forward_parts, geometry
from zbench.hardware.cost import TEXT_LAYERS, figure_of, is_text_captured
from zbench.hardware.host import BLOCKS, HostCosts, StartCosts, counts
from zbench.methods import attention, fast, offload, quantization

NINE_IN_TEN = 0.9
LEAST = SpreadConfig(
    gemm=0.03, attention=0.05, activations=0.1, gap=0.5, text=0.3, decode=0.1, exchange=0.4, host=0.5, copy=0.15,
    overhead=1.0, fp8=0.05, model=0.04, memory=0.05,
)  # fmt: skip
"""No spread is below these: a handful of machines were measured."""
UNKNOWN = SpreadConfig()
FORWARDS = ("", "eager_", "fast_")
"""Ways to run a forward, by what their shares begin with: compiled, eager, compiled with real rotations."""
ASSUMED = EfficiencyConfig(
    gemm=0.69, attention=0.53, bandwidth=0.89, interconnect=0.6, host_link=0.85, host_link_pageable=0.1, vae=0.115,
    activation_passes=32, step_gap_s=0, eager_activation_passes=80, eager_step_gap_s=0.01, image_overhead_s=0.02,
    text_gap_s=0.04, source="assumed",
)  # fmt: skip
"""Where a share is to be fitted and no row shows it, as when those rows are left out."""
ASSUMED_HOST = HostCosts(
    StartCosts(0.06, 3e-4, 1.5e-3, 0.06), StartCosts(0.03, 2e-4, 2e-4, 0.06), "assumed where no row shows it"
)


@dataclass(frozen=True)
class Rows:
    """Observations by what they show."""

    every: tuple[Observation, ...]

    def one_device(self) -> list[Observation]:
        """Whole forwards of one device, whose weights are there."""
        kept = [o for o in self.every if o.dims.ranks == 1 and not offload.BY_NAME[o.trial.offload.mode].by_layers]
        return [o for o in kept if o.forward_s is not None and o.modelled]

    def whole(self) -> list[Observation]:
        """Images whose stages were timed and whose weights are there."""
        here = [o for o in self.every if not offload.BY_NAME[o.trial.offload.mode].waiting]
        return [o for o in here if o.stages_s and o.modelled]

    def held(self) -> list[Observation]:
        """Trials whose weights are there, or wait by components as they do now."""
        kept = [o for o in self.every if not offload.BY_NAME[o.trial.offload.mode].by_layers and not o.came_whole]
        return [o for o in kept if o.modelled]

    def graphs(self) -> list[Observation]:
        """Sharded forwards that the host does not hold up."""
        return [o for o in self.every if o.dims.ranks > 1 and o.trial.graphs == "all" and o.forward_s]

    def started(self, compiled: bool) -> list[Observation]:
        """Sharded forwards that the host starts kernel by kernel."""
        sharded = [o for o in self.every if o.dims.ranks > 1 and o.trial.graphs != "all" and o.forward_s]
        return [o for o in sharded if o.trial.compute.compile == compiled]

    def copied(self, mode: str | None = None) -> list[Observation]:
        """What waits in host memory by components, or by layers in `mode`."""
        of = [o for o in self.every if offload.BY_NAME[o.trial.offload.mode].waiting and o.dims.ranks == 1]
        if mode is not None:
            return [o for o in of if o.trial.offload.mode == mode and o.forward_s]
        return [o for o in of if not offload.BY_NAME[o.trial.offload.mode].by_layers and o.stages_s]


def fit(seen: Iterable[Observation], ceilings: Sequence[Ceiling], source: str) -> Shares:
    """All shares and spreads that these rows show; what none shows is ASSUMED, with the widest spread."""
    rows = Rows(tuple(seen))
    shares = Shares(replace(ASSUMED, source=source), ASSUMED_HOST)
    shares = _set(shares, **_rates(ceilings))
    for name in FORWARDS:
        shares = _set(shares, **_forward(rows, shares, name))
    shares = _set(shares, **_fp8(rows, shares))
    shares = _set(shares, **_text(rows, shares))
    shares = _set(shares, **_decode(rows, shares))
    shares = _set(shares, **_rest(rows))
    shares = _set(shares, **_links(rows, shares))
    shares = _set(shares, interconnect=_interconnect(rows, shares))
    host = HostCosts(_starts(rows, False), _starts(rows, True), source)
    shares = shares._replace(host=host)
    shares = _set(shares, swap_s=_swap_s(rows, shares))
    return _set(shares, spread=_spread(rows, shares, ceilings))


def _set(shares: Shares, **fields: object) -> Shares:
    return shares._replace(efficiency=replace(shares.efficiency, **fields))  # type: ignore[arg-type]


def _rates(ceilings: Sequence[Ceiling]) -> dict[str, float]:
    if not ceilings:
        return {}
    sheets = [datasheet(ceiling.hardware, ASSUMED) for ceiling in ceilings]
    pairs = list(zip(ceilings, sheets, strict=True))
    return {
        "gemm": _mean(c.gemm / (s.peak_bf16_tflops or math.nan) for c, s in pairs),
        "attention": _mean(c.attention / (s.peak_bf16_tflops or math.nan) for c, s in pairs),
        "bandwidth": _mean(c.copy / (s.memory_bandwidth_gb_s or math.nan) for c, s in pairs),
    }


def _forward(rows: Rows, shares: Shares, name: str) -> dict[str, float]:
    """Passes, token time and gap of one stack, from forwards that compute nothing in FP8."""
    terms = [f"{name}activation_passes", f"{name}token_s", f"{name}step_gap_s"]
    of = _settings([o for o in rows.one_device() if _stack(o) == name and not _in_fp8(o)])
    if not of:
        return {}
    nothing = _set(shares, **dict.fromkeys(terms, 0.0))
    columns = [[_total(o, _set(nothing, **{term: 1.0})) - _total(o, nothing) for term in terms] for o, _ in of]
    left = [measured - _total(o, nothing) for o, measured in of]
    weights = [1 / measured for _, measured in of]
    return dict(zip(terms, _least_squares(columns, left, weights), strict=True))


def _stack(seen: Observation) -> str:
    """What the shares of its forward begin with: a key of FORWARDS."""
    compute = seen.trial.compute
    return "fast_" if fast.joins_rotations(compute) else "" if compute.compile else "eager_"


def _in_fp8(seen: Observation) -> tuple[str, ...]:
    """The shares that its forward shows of FP8: matrix products, attention."""
    compute = seen.trial.compute
    products = ("fp8_gemm",) if compute.quantization == quantization.FP8 else ()
    return (*products, *(("fp8_attention",) if compute.attention_backend == attention.CUDNN_FP8 else ()))


def _fp8(rows: Rows, shares: Shares) -> dict[str, float]:
    """Shares of the FP8 rate: of matrix products, then of attention where products are in FP8 too."""
    found: dict[str, float] = {}
    for of in (("fp8_gemm",), ("fp8_gemm", "fp8_attention")):
        key, so_far = of[-1], _set(shares, **found)
        least, unit = (_set(so_far, **{key: share}) for share in (math.inf, 1.0))
        each = [
            (_total(o, unit) - _total(o, least)) / left_s
            for o, measured in _settings([o for o in rows.one_device() if _in_fp8(o) == of])
            if (left_s := measured - _total(o, least)) > 0
        ]
        if each:
            found[key] = median(each)
    return found


def _text(rows: Rows, shares: Shares) -> dict[str, float]:
    """What of reading the prompts neither arithmetic nor memory explains, by its way and whether it is one graph."""
    keys = {(name, graph): f"{name}text_{graph}gap_s" for name in ("", "fast_") for graph in ("", "graph_")}
    nothing = _set(shares, **dict.fromkeys(keys.values(), 0.0))
    found: dict[str, float] = {}
    for (name, graph), key in keys.items():
        gaps = [
            o.stages_s["text_encode"] - cost_of(o, nothing).text_encode().total_s
            for o in rows.whole()
            if o.trial.compute.text == ("compiled" if name else "padded")
            and is_text_captured(o.trial) == bool(graph)
            and o.stages_s.get("text_encode")
        ]
        if gaps:
            found[key] = max(0.0, median(gaps)) * TEXT_LAYERS / geometry().text_encoder.n_layers
    return found


def _decode(rows: Rows, shares: Shares) -> dict[str, float]:
    """Shares of the matmul rate in a decode: eager, shared among devices, compiled."""
    found: dict[str, float] = {}
    unit = _set(shares, vae=1.0, vae_split=1.0, fast_vae=1.0)
    for key in ("vae", "vae_split", "fast_vae"):
        shown = [o for o in rows.whole() if _decoded_by(o) == key and o.stages_s.get("decode")]
        if key == "vae_split":  # kernel by kernel the host holds a shared decode up
            shown = [o for o in shown if o.trial.graphs != "none"] or shown
        if shown:
            found[key] = median(cost_of(o, unit).decode().total_s / o.stages_s["decode"] for o in shown)
    return found


def _decoded_by(seen: Observation) -> str | None:
    """The share that its decode shows; None where it is of several."""
    split, way = seen.trial.parallel.vae == "split", seen.trial.compute.decode
    return {(False, "eager"): "vae", (True, "eager"): "vae_split", (False, "compiled"): "fast_vae"}.get((split, way))


def _rest(rows: Rows) -> dict[str, float]:
    """What of an image belongs to no stage."""
    found: dict[str, float] = {}
    for key, real in (("image_overhead_s", False), ("fast_overhead_s", True)):
        of = [o for o in rows.whole() if fast.reads_real_tokens(o.trial.compute) == real]
        rest = [o.latency_s - sum(o.stages_s.values()) for o in of if o.latency_s and o.trial.pipeline.images == 1]
        if rest:
            found[key] = max(0.0, median(rest))
    return found


def _links(rows: Rows, shares: Shares) -> dict[str, float]:
    """Shares of the host link, from what stages take longer where their weights wait in host memory.

    A text encoder whose layers come one ahead shows it where its copies take longer than its arithmetic, which they
    hide: then its stage is as long as they are.
    """
    found: dict[str, list[float]] = {}
    for o in rows.copied():
        ahead = offload.BY_NAME[o.trial.offload.mode].streams_text and not o.came_whole
        if ahead or o.moved_bytes is None:
            continue
        cost = cost_of(o, shares)
        denoise = cost.step(cost.geometry.transformer.n_layers) * (o.trial.pipeline.steps - o.cached_steps)
        busy = cost.text_encode().total_s + cost.decode().total_s + denoise.total_s
        steps_s = o.forward_s * (o.trial.pipeline.steps - o.cached_steps) if o.forward_s else denoise.total_s
        extra_s = sum(o.stages_s.values()) - (busy - denoise.total_s + steps_s)
        if o.moved_bytes > 1e9 and extra_s > 0 and o.cached_steps == 0:
            key = "host_link" if o.trial.offload.pin_memory else "host_link_pageable"
            found.setdefault(key, []).append(min(1.0, o.moved_bytes / extra_s / _link(o)))
    shares_of = {key: [median(each)] for key, each in found.items()}
    for each in (_ahead(rows, shares), _layers(rows, shares)):
        if each:
            shares_of.setdefault("host_link", []).append(median(each))
    return {key: _mean(each) for key, each in shares_of.items()}


def _link(seen: Observation) -> float:
    """Of the host link, bytes/s as the datasheet has it."""
    return figure_of(datasheet(seen.hardware, ASSUMED), "host_link_gb_s") * 1e9


def _ahead(rows: Rows, shares: Shares) -> list[float]:
    """Shares of the host link in text stages that are as long as the copies of their layers."""
    found = []
    for o in rows.copied():
        of = o.trial.offload
        if o.came_whole or not o.moved_bytes or not of.pin_memory or of.mode != "text_encoder":
            continue
        text_s = o.stages_s.get("text_encode", 0.0)
        if cost_of(o, shares).text_encode().total_s < text_s / 1.1:
            found.append(min(1.0, o.moved_bytes / text_s / _link(o)))
    return found


def _layers(rows: Rows, shares: Shares) -> list[float]:
    """Shares of the host link in forwards that are as long as the copies of their layers."""
    return [share for o in rows.copied("group") if (share := _by_layers(o, shares)) is not None]


def _by_layers(seen: Observation, shares: Shares) -> float | None:
    """The share of the host link in a forward that is as long as its copies; None where it is not."""
    cost = cost_of(seen, shares)
    blocks = cost.geometry.transformer.n_layers
    copied = traffic.step_transfer_bytes(seen.trial.offload, cost.weights.step(blocks, blocks))
    measured_s = seen.forward_s or 0.0
    if not seen.trial.offload.pin_memory or cost.compute(blocks).total_s > measured_s / 1.1 or not copied:
        return None
    return min(1.0, copied / measured_s / _link(seen))


def _interconnect(rows: Rows, shares: Shares) -> float:
    of = _settings(rows.graphs())
    if not of:
        return shares.efficiency.interconnect

    def off(share: float) -> float:
        tried = _set(shares, interconnect=share)
        return sum(math.log(_total(o, tried) / measured) ** 2 for o, measured in of)

    return min((step / 100 for step in range(10, 101)), key=off)


def _starts(rows: Rows, compiled: bool) -> StartCosts:
    """Of one way of running it; a cost that no row shows is assumed."""
    assumed = ASSUMED_HOST.compiled if compiled else ASSUMED_HOST.eager
    of = _settings(rows.started(compiled))
    if not of:
        return assumed
    columns = [list(counts(o.dims)) for o, _ in of]
    shown = [i for i in range(4) if any(row[i] for row in columns)]
    taken = [[row[i] for i in shown] for row in columns]
    measured = [seconds for _, seconds in of]
    costs = list(vars(assumed).values())
    for i, cost in zip(shown, _least_squares(taken, measured, [1 / s for s in measured]), strict=True):
        costs[i] = cost
    return StartCosts(*costs)


def _swap_s(rows: Rows, shares: Shares) -> float:
    of = _settings(rows.copied("sequential"))
    without = _set(shares, swap_s=0.0)
    each = [max(0.0, measured - _total(o, without)) / BLOCKS for o, measured in of]
    return _mean(each) if each and all(each) else 0.0


def _spread(rows: Rows, shares: Shares, ceilings: Sequence[Ceiling]) -> SpreadConfig:
    """From what is left of each kind of row, but no less than LEAST; UNKNOWN where no row shows it."""
    e, one, graphs = shares.efficiency, _settings(rows.one_device()), _settings(rows.graphs())
    started = [pair for compiled in (False, True) for pair in _settings(rows.started(compiled))]
    here = rows.whole()

    def staged(name: str, projected: Callable[[Observation], float]) -> list[float]:
        return [o.stages_s[name] / projected(o) for o in here if o.stages_s.get(name)]

    exchanged = [
        1 + abs(measured - parts.total_s) / parts.seconds["exchange"]
        for o, measured in graphs
        if (parts := forward_parts(o, shares)).seconds.get("exchange")
    ]
    peaks = [o.peak_bytes / cost_of(o, shares).peak_bytes() for o in rows.held() if o.peak_bytes]
    fp8 = [
        1 + abs(o.forward_s - parts.total_s) / parts.seconds["fp8"]
        for o in rows.one_device()
        if _in_fp8(o) and o.forward_s and (parts := forward_parts(o, shares)).seconds.get("fp8")
    ]
    swaps = [measured / _total(o, shares) for o, measured in _settings(rows.copied("sequential"))]
    of: dict[str, list[float]] = {
        "fp8": fp8,
        "model": [measured / _total(o, shares) for o, measured in one if not _in_fp8(o)],
        "text": staged("text_encode", lambda o: cost_of(o, shares).text_encode().total_s),
        "decode": staged("decode", lambda o: cost_of(o, shares).decode().total_s),
        "exchange": exchanged,
        "memory": peaks,
        "host": [measured / _total(o, shares) for o, measured in started] + swaps,
    }
    spread = {name: max(getattr(LEAST, name), _off(ratios)) for name, ratios in of.items() if ratios}
    if len(ceilings) > 1:  # of one card alone, nothing tells bytes from tokens, nor one card's rate from the next's
        spread |= {name: getattr(LEAST, name) for name in ("gemm", "attention", "activations")}
    elif ceilings:
        spread |= {"gemm": 0.06, "attention": 0.1, "activations": 0.25}
    spread |= {"gap": LEAST.gap} if one else {}
    copies = [share / e.host_link for share in (*_layers(rows, shares), *_ahead(rows, shares))]
    spread |= {"copy": max(LEAST.copy, _off(copies))} if copies else {"copy": 0.25} if rows.copied() else {}
    return replace(UNKNOWN, **spread)


def _off(ratios: Sequence[float]) -> float:
    """By how much these are off, but for one in ten."""
    sizes = sorted(math.exp(abs(math.log(ratio))) - 1 for ratio in ratios)
    return round(sizes[max(0, math.ceil(NINE_IN_TEN * len(sizes)) - 1)], 3)


def _total(seen: Observation, shares: Shares) -> float:
    return forward_parts(seen, shares).total_s


def _settings(seen: Iterable[Observation]) -> list[tuple[Observation, float]]:
    """One observation of each setting whose forwards are projected alike, and the median of the measured ones.

    What else waits in host memory changes no forward but one whose own weights come by layers.
    """
    groups: dict[object, list[Observation]] = {}
    for o in seen:
        p, by_layers = o.trial.pipeline, offload.BY_NAME[o.trial.offload.mode].by_layers
        where = (o.hardware, o.topology, o.offload if by_layers else "")
        key = (*where, p.width, p.height, p.samples, _stack(o), o.trial.graphs == "all", _in_fp8(o))
        groups.setdefault(key, []).append(o)
    return [(group[0], median(o.forward_s for o in group if o.forward_s)) for group in groups.values()]


def _mean(values: Iterable[float]) -> float:
    """Geometric."""
    return math.exp(float(np.mean([math.log(value) for value in values])))


def _least_squares(columns: list[list[float]], left: list[float], weights: list[float]) -> list[float]:
    """The terms, none below 0, whose weighted sum is nearest to `left`; of equal ones those with fewer terms."""
    matrix, target = np.array(columns) * np.array(weights)[:, None], np.array(left) * np.array(weights)
    best, best_off = [0.0] * matrix.shape[1], float(np.sum(target**2))
    for size in range(1, matrix.shape[1] + 1):
        for terms in itertools.combinations(range(matrix.shape[1]), size):
            part = matrix[:, list(terms)]
            found, _, rank, _ = np.linalg.lstsq(part, target, rcond=None)
            off = float(np.sum((part @ found - target) ** 2))
            if rank == size and (found >= 0).all() and off < 0.99 * best_off - 1e-12:
                best = [0.0] * matrix.shape[1]
                for term, value in zip(terms, found, strict=True):
                    best[term] = float(value)
                best_off = off
    return best
