"""A window of rounds, one after another: whose turn it is, and when there is enough; it judges no image.

Several trials take turns: A B C D, D C B A, and so on, so that what drifts befalls all alike. A is their companion, the
uncached trial: it is measured for the others' sake alone, and each of them keeps its requests. Or it has a record of
its own, and keeps them too. Where rounds are short a turn is several of them, as the first after another's turn is
slower. A trial that has had enough has no more turns, but for A while another has not.
"""

import gc
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial

from zbench.measurement import INVALID_IMAGES, QUALITY_ONLY, SUSPENDED, Measurement, Request, Window
from zbench.measurement.neighbours import side_by_side_s
from zbench.probes.disturbance import RoundWatch
from zbench.quality.artifacts import Artifact
from zbench.stats.estimate import relative_half_width
from zbench.stats.paired import speedup_by_turns
from zbench.worker.calls import Calls
from zbench.worker.cross_checks import clock_check
from zbench.worker.gauges import Gauges
from zbench.worker.job import TrialJob
from zbench.worker.profiling import PROFILE_FAILED, Profile, profile_of, why_not_profiled
from zbench.worker.request import Turn, one_request
from zbench.worker.share import Share
from zbench.workload import LEAST_OF_A_PAIR, Pair, whole_cycles

TURN_S = 0.3
"""How long a turn should last."""
LEAST_TURNS = 4
"""Of each trial in a window, so that what befalls one of them is one among several."""


class RoundsWindow:
    """The requests of one trial, or of several that take turns."""

    def __init__(self, calls: Calls, shares: Sequence[Share], cycle: Sequence[Pair], gauges: Gauges) -> None:
        """The turn of the uncached trial, with which the others take turns, is the first."""
        self._calls, self._cycle, self._gauges = calls, cycle, gauges
        self._shares = sorted(shares, key=lambda share: not share.job.is_beside)
        self._watch = RoundWatch(calls.engine.watch().pids)
        self._began_s = 0.0
        self._turns = 0
        self.requests: list[Request] = []

    @property
    def _measured(self) -> list[Share]:
        return [share for share in self._shares if not share.job.companion]

    @property
    def _beside(self) -> Share | None:
        """The uncached trial, unless its images are none."""
        return next((share for share in self._shares if share.job.is_beside and not share.is_spoilt), None)

    def run(self) -> Window:
        """Lap after lap, until every trial has had enough."""
        started_at = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._began_s = time.perf_counter()
        gc.freeze()  # what warm-up left, compiled code above all, stays out of the collections between rounds
        try:
            while any(not share.stop_reason for share in self._measured):
                self._lap()
                gc.collect()
                for share in self._measured:
                    beside = None if share.job.is_beside else self._beside
                    enough = stop_reason(share, len(self._cycle), self._spent_s(share), beside)
                    share.stop_reason = share.stop_reason or enough
        finally:
            gc.unfreeze()
        reason = self._measured[0].stop_reason
        return Window(self.requests, reason, started_at=started_at, wall_s=self.requests[-1].done_s)

    def _spent_s(self, share: Share) -> float:
        """Of a trial that has the window to itself, all of it."""
        return share.turns_s if len(self._shares) > 1 else time.perf_counter() - self._began_s

    def _lap(self) -> None:
        """Every prompt and seed equally often, of every trial that has not had enough."""
        beside = self._beside
        active = [share for share in self._shares if not share.stop_reason or share is beside]
        measured = [share for share in active if not share.job.companion]
        cycles, rounds = 1, 1
        if len(self._shares) > 1:
            least, _ = bounds(measured[0].job, len(self._cycle))
            cycles, rounds = turns_of(len(self._cycle), least, [share.shortest_s for share in active])
        left = max(bounds(share.job, len(self._cycle))[1] - len(share.requests) for share in measured)
        lap = (list(self._cycle) * cycles)[:left]
        for first in range(0, len(lap), rounds):
            order = active[::-1] if self._turns % 2 else active
            self._turns += 1
            for share in order:
                self._turn(share, lap[first : first + rounds])

    def _turn(self, share: Share, some: Sequence[Pair]) -> None:
        """One trial's turn. Its memory and energy are what gauges see in its turns."""
        with share.job.during("timed rounds"):
            self._calls.prepare(share.job.trial, some[0])
            began_s, alone = time.perf_counter(), len(self._shares) == 1
            if not alone:
                self._gauges.begin_turn()
            for pair in some:
                self._round(share, pair)
            if not alone:
                self._gauges.end_turn(share.job.trial.trial_id)
            share.turns_s += time.perf_counter() - began_s
            if not alone and not share.warm.latencies_s and len(share.requests) <= len(some):
                self._calls.configure(share.job.trial)
                share.effective = self._calls.engine.effective()  # with what the first requests moved

    def _round(self, share: Share, pair: Pair) -> None:
        """One request; one that gauges speak against is kept and does not count. One during which the process was
        stopped, or the machine slept, is not the trial's doing at all: it is kept too, and made again."""
        self._calls.prepare(share.job.trial, pair)
        while SUSPENDED in self._request(share, pair).disturbances:
            share.was_suspended = True

    def _request(self, share: Share, pair: Pair) -> Request:
        job, n_pairs = share.job, len(self._cycle)
        job.check_stop()
        self._watch.begin()
        self._gauges.begin_round()
        turn = Turn(len(self.requests), job.trial.trial_id, "baseline" if job.is_beside else job.role)
        made_by = partial(self._calls.make, job.trial)
        timed, made = one_request(self._calls.engine, pair, turn, self._began_s, made_by)
        disturbed = self._watch.end()
        suspended = [cause for cause in disturbed if cause == SUSPENDED]
        untimed = [QUALITY_ONLY] if job.measure.quality_only else []
        against = self._gauges.end_round()
        invalid = timed.invalid_reasons + suspended + (untimed or against)
        timed = replace(timed, disturbances=disturbed, valid=not invalid, invalid_reasons=invalid)
        self.requests.append(timed)
        if suspended:
            return timed
        count = len(share.requests)
        share.requests.append(timed)
        if count == 0:
            share.clock = clock_check(made)
        if job.companion:
            return timed
        if count < n_pairs:
            share.first_cycle.append(Artifact(pair.prompt_id, pair.seed, made.image, made.latents))
        elif count < 2 * n_pairs and job.is_reference:
            share.second_cycle.append(Artifact(pair.prompt_id, pair.seed, made.image, made.latents))
        least, most = bounds(job, n_pairs)
        job.tell_round("timed", count, timed.latency_s, least, most)
        return timed

    def profiled(self, made: list[Measurement]) -> list[Measurement]:
        """With what of each trial's forwards is communication: by one call more, where there may be any.

        The measurements are told before: a profile that fails takes nothing of them along.
        """
        shares = self._measured
        reasons = [
            INVALID_IMAGES if share.is_spoilt else why_not_profiled(share.job.trial, share.effective)
            for share in shares
        ]
        if None in reasons:
            kept = [
                Profile(reason=reason or PROFILE_FAILED).within(each)
                for reason, each in zip(reasons, made, strict=True)
            ]
            shares[0].job.tell({"event": "measured", "measurements": [asdict(each) for each in kept]})
        profiles = [
            self._profile(share) if reason is None else Profile(reason=reason)
            for share, reason in zip(shares, reasons, strict=True)
        ]
        return [profile.within(each) for profile, each in zip(profiles, made, strict=True)]

    def _profile(self, share: Share) -> Profile:
        with share.job.during("profiling communication"):
            self._calls.configure(share.job.trial)
            return profile_of(self._calls.engine, self._cycle[0])


def turns_of(n_pairs: int, least: int, rounds_s: Sequence[float | None]) -> tuple[int, int]:
    """How many cycles a lap is, and how many rounds a turn: 1, or as many as fill TURN_S where the shortest round of
    each trial took so long (None: nobody knows). A trial of the fewest rounds has LEAST_TURNS all the same."""
    known = [round_s for round_s in rounds_s if round_s is not None and round_s > 0]
    wanted = min(math.ceil(TURN_S / min(known)), max(least // LEAST_TURNS, 1)) if known else 1
    cycles = -(-wanted // n_pairs)
    return cycles, max(n for n in range(1, wanted + 1) if cycles * n_pairs % n == 0)


def bounds(job: TrialJob, n_pairs: int) -> tuple[int, int]:
    """The fewest and the most requests; a quality reference makes its images twice, so that its noise is known. Trials
    that take turns make each image LEAST_OF_A_PAIR times: of three a median leaves out one that was disturbed. Where
    images alone are asked for, each is made once."""
    if job.measure.quality_only:
        return n_pairs, n_pairs
    most = whole_cycles(job.measure.max_rounds, n_pairs)
    cycles = LEAST_OF_A_PAIR if job.shares else 2 if job.is_reference else 1
    return min(max(whole_cycles(job.measure.min_rounds, n_pairs), cycles * n_pairs), most), most


def stop_reason(share: Share, n_pairs: int, spent_s: float, beside: Share | None = None) -> str:
    """Why a trial has enough: interval (of valid requests alone, and of the speed-up over the companion `beside` it),
    max_rounds, budget, quality_only or that its images are none; empty while it has not."""
    measure, (least, most) = share.job.measure, bounds(share.job, n_pairs)
    if len(share.requests) < least:
        return ""
    if share.is_spoilt:
        return INVALID_IMAGES
    if measure.quality_only:
        return QUALITY_ONLY
    valid = [r.latency_s for r in share.requests if r.valid]
    width = relative_half_width(valid) if len(valid) >= least else None
    if width is not None and width <= measure.target_rel_ci and _is_speedup_tight(share, beside):
        return "interval"
    if len(share.requests) >= most:
        return "max_rounds"
    return "budget" if spent_s >= measure.budget_s and len(valid) >= least else ""


def _is_speedup_tight(share: Share, beside: Share | None) -> bool:
    if beside is None:
        return True
    speedup = speedup_by_turns(side_by_side_s(share.requests, beside.requests))
    if speedup is None or speedup.interval is None:
        return False
    return math.log(speedup.interval[1] / speedup.ratio) <= share.job.measure.target_speedup_ci
