"""What several devices bought, in sentences computed from figures; refuses any sentence that no figure backs."""

from collections.abc import Sequence

from zbench.analysis.scaling import DeviceScaling
from zbench.analysis.sharded import ImagesSideBySide, PrunedTopologies, SameDevices, ShardedTrial
from zbench.report.text import cells

MOST_GROUPS = 6
"""Settings and numbers of devices of which something is said; the table has all."""
WORDS = {"text_encode": "text encode", "decode": "decode", "offload_transfer": "offload transfer", "other": "the rest"}


def scaling_sentences(groups: Sequence[SameDevices]) -> list[str]:
    """For each setting and number of devices: the best for one image, what stops it, and the best for images/s."""
    said = [" ".join(sentences) for group in groups[:MOST_GROUPS] if (sentences := _of(group))]
    more = len(groups) - MOST_GROUPS
    return said + ([f"{more} more settings are in the table."] if more > 0 else [])


def pruned_lines(pruned: Sequence[PrunedTopologies]) -> list[str]:
    """`tp3 and tp6: …`, a line for each reason why topologies were left out."""
    return [f"{cells.listed(each.topologies, most=8)}: {each.reason}" for each in pruned]


def _of(group: SameDevices) -> list[str]:
    compared = [
        (t, t.scaling) for t in group.trials if t.scaling is not None and t.scaling.request and t.row.is_trusted
    ]
    sentences = []
    sharding = [(t, s) for t, s in compared if not t.is_data_parallel]
    if sharding:
        best, scaling = max(sharding, key=lambda pair: pair[1].request.speedup if pair[1].request else 0.0)
        sentences = [*_for_one_image(group, best, scaling), *_what_stops(group, best, scaling)]
    return sentences + _for_rate(group)


def _for_one_image(group: SameDevices, best: ShardedTrial, scaling: DeviceScaling) -> list[str]:
    request = scaling.request
    assert request is not None
    doubt = "; that one is not to be trusted" if group.one is not None and group.one.caveats else ""
    told = f"{cells.seconds(request.own_s, best.row.latency_source)} s against {cells.digits(request.one_s)} s"
    if round(request.speedup, 2) <= 1:
        return [
            f"No topology of {group.devices} devices makes an image faster than one device does{doubt}: the best is "
            f"{best.row.label}, {told}."
        ]
    return [
        f"Of {group.devices} devices {best.row.label} makes one image fastest: {told} on one device, "
        f"{request.speedup:.2f}× (efficiency {cells.percent(request.efficiency)}){doubt}."
    ]


def _what_stops(group: SameDevices, best: ShardedTrial, scaling: DeviceScaling) -> list[str]:
    amdahl, sentences = scaling.amdahl, []
    serial_s = {} if amdahl is None else {name: s for name, s in amdahl.serial_s.items() if s >= 0.0005}
    if amdahl is not None and serial_s:
        parts = cells.listed([f"{WORDS[name]} {_ms(s)}" for name, s in serial_s.items()])
        sentences.append(
            f"{_ms(sum(serial_s.values()))} of one device's request do not scale ({parts}): with them "
            f"{amdahl.ranks} devices give at most {amdahl.bound_here:.2f}×, and any number {amdahl.bound:.2f}×."
        )
    if scaling.forward is not None:
        forward = scaling.forward
        sentences.append(
            f"A forward takes {_ms(forward.own_s)} instead of {_ms(forward.one_s)}, "
            f"{forward.speedup:.2f}×{_exposed(best)}."
        )
    return sentences


def _ms(seconds: float) -> str:
    return f"{cells.digits(1e3 * seconds)} ms"


def _exposed(best: ShardedTrial) -> str:
    share = best.row.exposed_communication
    return "" if share is None else f"; {cells.percent(share, 1)} of it is exposed communication"


def _for_rate(group: SameDevices) -> list[str]:
    """Whether one image a device makes more images a second than sharding does."""
    other = group.side_by_side
    sharding = [t.row for t in group.trials if not t.is_data_parallel and t.row.images_per_s and t.row.is_trusted]
    if other is None or (not sharding and not other.is_measured and other.row.caveats):
        return []  # a projection of what is not to be trusted, beside nothing
    name = other.row.label if other.is_measured else "one image a device"
    rate = f"{cells.digits(other.images_per_s)} images/s"
    if not other.is_measured:
        rate += f", a projection ({group.devices} times one device's{_why_projected(group, other)})"
    if not sharding:
        return [f"On {group.devices} devices {name} makes {rate}."]
    best = max(sharding, key=lambda row: row.images_per_s or 0.0)
    theirs = f"{cells.digits(best.images_per_s or 0.0)} images/s"
    if (best.images_per_s or 0.0) > other.images_per_s:
        return [f"For images/s {best.label} is best too: {theirs}, where {name} makes {rate}."]
    return [f"For images/s {name} is best: {rate}, where {best.label} makes {theirs}."]


def _why_projected(group: SameDevices, other: ImagesSideBySide) -> str:
    doubt = ", which is not to be trusted" if other.row.caveats else ""
    tried = any(trial.is_data_parallel for trial in group.trials)
    return f"{doubt}; data parallelism {'has no trusted measurement' if tried else 'was not measured'}"
