"""The fastest trial that satisfies every constraint, the constraint that binds, and the runner-up.

Likeness to the baseline is judged by the worst image: a mean hides the one that was spoilt. Fidelity to the prompts is
judged by the mean: a share of a dozen attributes is too coarse for one image to decide. Trials that do the same
work are ranked by the speed-up the report shows. Refuses to recommend what the report distrusts, and figures that
were not measured on the model asked for, unless that is allowed; then it says so in its head. What is projected
must also fit into the memory of its hardware.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from zbench.analysis.figures import TrialSummary, summarise_trials
from zbench.errors import ConfigError, NothingFeasibleError, RecordError
from zbench.measurement import RANDOM_WEIGHTS
from zbench.recommend.recommendation import Binding, Judged, Recommendation
from zbench.record import Record
from zbench.report.tables.main import table_head
from zbench.report.text import cells
from zbench.store import latest_records

MOST_NAMED = 3  # of the trials left out
FIT_IT = "sweep again with offload=all or offload=group, or onto hardware with more memory"


@dataclass(frozen=True)
class Constraint:
    """A bound on one figure of a trial."""

    flag: str  # as on the command line; of the hardware's memory, the config key
    limit: float
    what: str
    unit: str
    at_least: bool
    read: Callable[[TrialSummary], float | None]
    path: str  # where a measurement says why the figure is missing
    hardware: str | None = None  # title of the hardware whose memory it is

    def applies(self, row: TrialSummary) -> bool:
        """Whether it is asked of the trial at all: the memory of hardware only of what is projected onto that."""
        return self.hardware is None or (row.hardware, row.hardware_memory_gib) == (self.hardware, self.limit)

    def miss(self, row: TrialSummary) -> float | None:
        """By how much the figure misses the limit: 0 if it does not, None if there is no figure."""
        if not self.applies(row):
            return 0.0
        value = self.read(row)
        if value is None:
            return None
        return max(0.0, self.limit - value if self.at_least else value - self.limit)

    def __str__(self) -> str:
        """`--min-ssim 0.95`."""
        return f"{self.flag} {self.limit:g}"


def recommend(
    records: Sequence[Record],
    *,
    max_vram_gib: float | None = None,
    min_ssim: float | None = None,
    min_psnr_db: float | None = None,
    min_prompt_fidelity: float | None = None,
    allow_proxy: bool = False,
) -> Recommendation:
    """Choose among the COMPLETE records that are to be trusted the fastest that is feasible.

    Raises ConfigError for a limit that cannot be meant or that no record can be judged by, RecordError
    where the records do not allow a choice, NothingFeasibleError naming what came nearest.
    """
    constraints = _constraints(max_vram_gib, min_ssim, min_psnr_db, min_prompt_fidelity)
    last = {(record.sweep, record.trial_id): record for record in latest_records(records)}
    rows, left_out = _candidates(summarise_trials(last.values()), allow_proxy)
    for constraint in constraints:
        _refuse_unjudgeable(constraint, rows)
    constraints += _hardware_memory(rows)
    rows = _fastest_first(rows)
    feasible = [row for row in rows if _feasible(row, constraints)]
    if not feasible:
        raise NothingFeasibleError("; ".join([_nothing_feasible(rows, constraints), *left_out]))
    chosen = feasible[0]
    return Recommendation(
        head=table_head([chosen]),
        chosen=chosen,
        trial=last[chosen.sweep, chosen.trial_id].trial,
        judged=tuple(_judge(constraint, chosen) for constraint in constraints if constraint.applies(chosen)),
        binding=tuple(_binding(rows, constraints)),
        runner_up=feasible[1] if len(feasible) > 1 else None,
        notes=(*_notes(chosen, feasible, last), *left_out),
    )


def _constraints(
    max_vram_gib: float | None,
    min_ssim: float | None,
    min_psnr_db: float | None,
    min_prompt_fidelity: float | None,
) -> list[Constraint]:
    made = []
    if max_vram_gib is not None:
        _check_limit("--max-vram-gib", max_vram_gib, 0, math.inf)
        path = "memory.peak_device_bytes"
        made.append(Constraint("--max-vram-gib", max_vram_gib, "peak device memory", " GiB", False, _vram_gib, path))
    if min_ssim is not None:
        _check_limit("--min-ssim", min_ssim, -1, 1)
        made.append(Constraint("--min-ssim", min_ssim, "SSIM of the worst image", "", True, _ssim, "quality"))
    if min_psnr_db is not None:
        _check_limit("--min-psnr-db", min_psnr_db, 0, math.inf)
        made.append(Constraint("--min-psnr-db", min_psnr_db, "PSNR of the worst image", " dB", True, _psnr, "quality"))
    if min_prompt_fidelity is not None:
        flag, what = "--min-prompt-fidelity", "mean share of attributes"
        _check_limit(flag, min_prompt_fidelity, 0, 1)
        made.append(Constraint(flag, min_prompt_fidelity, what, "", True, _prompt_fidelity, "prompt_fidelity"))
    return made


def _hardware_memory(rows: Sequence[TrialSummary]) -> list[Constraint]:
    """The memory of each hardware that something projected does not fit into."""
    what, path = "peak device memory on ", "memory.peak_device_bytes"
    found = dict.fromkeys((row.hardware or "", row.hardware_memory_gib or 0.0) for row in rows if row.misfit)
    return [
        Constraint("hardware.memory_gib", memory_gib, what + title, " GiB", False, _vram_gib, path, title)
        for title, memory_gib in found
    ]


def _check_limit(flag: str, limit: float, low: float, high: float) -> None:
    if not math.isfinite(limit) or not low <= limit <= high:
        wanted = f"within {low} and {high}" if math.isfinite(high) else f"a finite number of at least {low}"
        raise ConfigError(flag, limit, f"must be {wanted}")


def _vram_gib(row: TrialSummary) -> float | None:
    on_device = row.peak_memory_bytes is not None and row.memory_kind != "host RSS"
    return (row.peak_memory_bytes or 0) / 2**30 if on_device else None


def _ssim(row: TrialSummary) -> float | None:
    """A difference that the baseline shows from itself is none."""
    return 1.0 if row.within_noise or (row.ssim_worst is None and row.is_baseline) else row.ssim_worst


def _psnr(row: TrialSummary) -> float | None:
    if row.is_identical or row.within_noise or (row.is_baseline and row.psnr_worst_db is None):
        return math.inf
    return row.psnr_worst_db


def _prompt_fidelity(row: TrialSummary) -> float | None:
    return row.prompt_fidelity_mean


def _candidates(rows: Sequence[TrialSummary], allow_proxy: bool) -> tuple[list[TrialSummary], list[str]]:
    """The trials to choose among, and a sentence for each kind that was left out."""
    complete = [row for row in rows if row.state == "COMPLETE"]
    if not complete:
        raise RecordError("no COMPLETE trial in these records; see zbench report for what failed")
    comparable, left_out = _comparable(complete, allow_proxy)
    trusted = [row for row in comparable if not row.doubts]
    doubted = [row for row in comparable if row.doubts]
    why = "; ".join(f"{row.label}: {' and '.join(row.doubts)}" for row in doubted[:MOST_NAMED])
    more = f"; and {len(doubted) - MOST_NAMED} more, see zbench report" if len(doubted) > MOST_NAMED else ""
    if not trusted:
        raise RecordError(f"none of {cells.trials(len(doubted))} is to be trusted ({why}{more})")
    if doubted:
        were = "was" if len(doubted) == 1 else "were"
        left_out.append(f"{cells.trials(len(doubted))} {were} left out as not to be trusted ({why}{more})")
    return trusted, left_out


def _comparable(complete: Sequence[TrialSummary], allow_proxy: bool) -> tuple[list[TrialSummary], list[str]]:
    """Trials whose latencies are of one kind: the measured ones, or all if `allow_proxy`."""
    if allow_proxy:
        if len({row.latency_source for row in complete}) > 1:
            raise RecordError(
                "these records mix measured and projected latencies, which no ranking can compare; give one run"
            )
        return list(complete), []
    measured = [row for row in complete if row.source == "measured"]
    if not measured:
        raise RecordError(
            "these records are projected or measured on a smaller model, not on the hardware and model asked "
            "for; give --allow-proxy to choose by them nonetheless"
        )
    others = len(complete) - len(measured)
    were = "trial was" if others == 1 else "trials were"
    return measured, [f"{others} projected or proxy {were} left out (--allow-proxy)"] if others else []


def _fastest_first(rows: Sequence[TrialSummary]) -> list[TrialSummary]:
    """By speed-up where all are compared with one baseline, as the report ranks them; else by median latency."""
    compared = all(row.speedup is not None for row in rows)
    if compared and len({(row.sweep, row.baseline_id) for row in rows}) == 1:
        return sorted(rows, key=lambda row: -(row.speedup or 0.0))
    return sorted(rows, key=lambda row: (row.latency_median_s or math.inf) / row.images)


def _refuse_unjudgeable(constraint: Constraint, rows: Sequence[TrialSummary]) -> None:
    judged = [row for row in rows if not row.is_baseline] or list(rows)
    meaningless = any(row.why_missing(constraint.path) == RANDOM_WEIGHTS for row in rows)
    if not meaningless and any(constraint.read(row) is not None for row in judged):
        return
    why = judged[0].why_missing(constraint.path)
    by_cpu = "; measure on a GPU, or project with hardware=<a GPU> and --allow-proxy" if why == "no_gpu" else ""
    raise ConfigError(
        constraint.flag,
        f"{constraint.limit:g}",
        f"no trial here has a figure for {constraint.what} ({why or 'not recorded'}); leave it out{by_cpu}",
    )


def _feasible(row: TrialSummary, constraints: Sequence[Constraint]) -> bool:
    return all(constraint.miss(row) == 0 for constraint in constraints)


def _judge(constraint: Constraint, row: TrialSummary) -> Judged:
    value, miss = constraint.read(row), constraint.miss(row)
    identical = value is not None and math.isinf(value)
    return Judged(
        flag=constraint.flag,
        limit=constraint.limit,
        what=constraint.what,
        unit=constraint.unit,
        value=None if identical else value,
        identical=identical,
        missed_by=miss,
        why_missing=row.why_missing(constraint.path) if value is None else None,
    )


def _binding(rows: Sequence[TrialSummary], constraints: Sequence[Constraint]) -> list[Binding]:
    """Each constraint without which a faster trial would be chosen, the dearest first; if it takes more than
    one to give way, those that the next faster trial misses. `rows` are the fastest first.
    """
    chosen = next(i for i, row in enumerate(rows) if _feasible(row, constraints))
    found = []
    for constraint in constraints:
        others = [c for c in constraints if c is not constraint]
        place = next(i for i, row in enumerate(rows) if _feasible(row, others))
        if place < chosen:
            found.append((place, Binding((_judge(constraint, rows[place]),), rows[place])))
    if not found and chosen > 0:
        row = rows[chosen - 1]
        missed = tuple(_judge(c, row) for c in constraints if c.miss(row) != 0)
        return [Binding(missed, row)]
    return [binding for _, binding in sorted(found, key=lambda pair: pair[0])]


def _nothing_feasible(rows: Sequence[TrialSummary], constraints: Sequence[Constraint]) -> str:
    def distance(row: TrialSummary) -> tuple[bool, float, float]:
        misses = [constraint.miss(row) for constraint in constraints]
        parts = [m / abs(c.limit or 1) for m, c in zip(misses, constraints, strict=True) if m is not None]
        return (None in misses, sum(parts), row.latency_median_s or math.inf)

    nearest = min(rows, key=distance)
    missed = [constraint for constraint in constraints if constraint.miss(nearest) != 0]
    parts = [str(_judge(constraint, nearest)) for constraint in missed]
    if any(constraint.hardware for constraint in missed):
        parts.append(FIT_IT)
    wanted = " and ".join(map(str, constraints))
    speed = f", {nearest.speedup:.2f}× the baseline" if nearest.speedup is not None else ""
    return (
        f"none of {cells.trials(len(rows))} satisfies {wanted}; nearest is {nearest.label} "
        f"({cells.digits(nearest.latency_median_s or 0)} s {cells.for_images(nearest)}{speed}): {'; '.join(parts)}"
    )


def _notes(
    chosen: TrialSummary,
    feasible: Sequence[TrialSummary],
    records: dict[tuple[str, str], Record],
) -> list[str]:
    notes = []
    if len(feasible) > 1:
        second = feasible[1]
        if chosen.latency_high_s and second.latency_low_s and second.latency_low_s <= chosen.latency_high_s:
            notes.append("the 95 % intervals of the first two overlap: their speeds cannot be told apart")
    if chosen.why_missing("quality") == RANDOM_WEIGHTS and not chosen.is_baseline:
        notes.append("weights were random, so nothing is known of its images: look at some before you serve it")
    if chosen.is_baseline:
        notes.append("the baseline itself is the best: nothing that was tried is faster and feasible")
    kinds = {repr([records[r.sweep, r.trial_id].config.get(g) for g in ("pipeline", "workload")]) for r in feasible}
    if len(kinds) > 1:
        notes.append("the trials do different work (pipeline or workload); each was judged against its own baseline")
    return notes
