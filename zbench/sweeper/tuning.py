"""What `zbench tune` chooses from: the choices of each group that decides, beside the first of the others.

Example: of `zbench tune` on a GPU there are a hundred jobs or so, one for each offload mode, each way to compute, each
split over devices and each cache setting. Their combinations are thousands; `search.tune` makes those it needs.
"""

from collections.abc import Sequence
from dataclasses import replace

from zbench.composition import FillGrid, Job, Jobs, ResolveAuto, expand
from zbench.config import Config
from zbench.errors import OverrideError

GROUPS = ("offload", "compute", "parallel", "cache")

OFFLOADS = "offload=none,vae,text_encoder,dit,all,group,sequential"
COMPUTES = "compute=eager,compiled,fast,graph,fp8"
SPLITS = "parallel=all"
THRESHOLDS = "cache.residual_diff_threshold=0.04,0.08,0.12,0.16,0.2,0.24,0.3,0.4,0.6,0.8"
CACHES = (
    ("cache=none",),
    ("cache=dbcache", "cache.max_warmup_steps=1,2,4", "cache.max_continuous_cached_steps=3,-1", THRESHOLDS),
    ("cache=taylorseer", "cache.max_warmup_steps=2,4", "cache.taylorseer_order=1,2", THRESHOLDS),
    ("cache=forced",),
)


def tuning_jobs(
    overrides: Sequence[str], resolve_auto: ResolveAuto, fill_grid: FillGrid, devices_here: int, config_dir: str | None
) -> Jobs:
    """A job for each choice of each group, in every piece of work that `overrides` ask for.

    A group that is typed has the choices typed, and the axes of its own; any other has all that may win. Raises as
    `expand` does, and OverrideError for what leaves nothing to choose from.
    """
    own = {group: [o for o in overrides if group_of(o) == group] for group in GROUPS}
    others = [o for o in overrides if group_of(o) not in GROUPS]

    def jobs(*more: str) -> Jobs:
        return expand([*others, *more], resolve_auto, config_dir=config_dir, fill_grid=fill_grid)

    first = jobs().jobs[0].config
    arms = {group: _arms(group, own[group], first, devices_here) for group in GROUPS}
    composed = {group: [jobs(*arm) for arm in arms[group]] for group in GROUPS}
    firsts = {group: composed[group][0].jobs[0].config for group in GROUPS}
    made: list[Job] = []
    for group in GROUPS:
        rest = {other: getattr(firsts[other], other) for other in GROUPS if other != group}
        made += [replace(job, config=replace(job.config, **rest)) for each in composed[group] for job in each.jobs]
    if not made:
        raise OverrideError("nothing to choose from; leave out what leaves no choice")
    notes = dict.fromkeys(note for group in GROUPS for each in composed[group] for note in each.notes)
    named = next((o for o in others if group_of(o) == "experiment"), None)
    said = [] if named is None else [f"{named}: tune has its own choices of {', '.join(GROUPS)} where none is typed"]
    return Jobs(made, [*notes, *said])


def group_of(override: str) -> str:
    """`cache` of `cache.max_warmup_steps=2`."""
    return override.lstrip("+~").partition("=")[0].partition("@")[0].partition(".")[0]


def _arms(group: str, typed: Sequence[str], first: Config, devices_here: int) -> list[tuple[str, ...]]:
    """The overrides of a group, in one or more compositions."""
    if any(o.lstrip("+~").partition("=")[0] == group for o in typed):
        return [tuple(typed)]
    if group == "cache":
        return [arm if arm == CACHES[0] else _with(arm, typed) for arm in CACHES]
    on_gpu = first.hardware.nvml_name is not None and first.compute.device != "cpu"
    there = first.hardware.num_devices or devices_here
    default = {
        "offload": OFFLOADS if on_gpu else "offload=none",
        "compute": COMPUTES,
        "parallel": SPLITS if there > 1 else "parallel=single",
    }
    return [_with((default[group],), typed)]


def _with(arm: Sequence[str], typed: Sequence[str]) -> tuple[str, ...]:
    """An axis that is typed takes the place of ours."""
    keys = {o.lstrip("+~").partition("=")[0] for o in typed}
    return (*(o for o in arm if o.partition("=")[0] not in keys), *typed)
