"""What a comparison says: a line a block on stderr while it runs, and the verdict on stdout when it is over."""

import json
import math
from dataclasses import asdict, replace

from rich.console import Console

from zbench.ab.interleave import TURNS, SideName
from zbench.ab.run import ABResult
from zbench.ab.schedule import ABSchedule
from zbench.ab.side import Side, SideFailed, share_a_pipeline
from zbench.analysis.caveats import levels_told
from zbench.analysis.metrics import REGISTRY
from zbench.errors import Exit
from zbench.gate.judge import Assessment, Finding, Gone
from zbench.gate.limits import Limit
from zbench.report.tables.text_table import markdown_text
from zbench.sanitize import json_text, printable
from zbench.stats import Look, Refusal, RefusalReason, Verdict, deciding_margin, judge, two_modes

SIDES: tuple[SideName, ...] = ("a", "b")
FORMATS = ("text", "json", "markdown", "junit")


class ABProgress:
    """An `ABListener` on a console: one line that is rewritten on a terminal, one a look elsewhere."""

    def __init__(self, console: Console) -> None:
        """Where to tell it."""
        self._console = console
        self._status = console.status("starting")
        if console.is_terminal:
            self._status.start()

    def note(self, text: str) -> None:
        """Print a sentence."""
        self._console.print(f"note: {printable(text)}", markup=False, highlight=False, soft_wrap=True)

    def launching(self, launch: int) -> None:
        """Show that workers are started."""
        self._status.update(f"starting launch {launch + 1}" if launch else "starting")

    def warming(self, side: SideName, latency_s: float) -> None:
        """Show a warm-up round."""
        self._status.update(f"warming up {side}: {latency_s:.3f} s")

    def measured(self, done: int, schedule: ABSchedule, left_s: float, so_far: Look) -> None:
        """Show how far it is, and what was seen at the last look."""
        looked = f", {so_far.judgement.verdict} at {so_far.blocks}" if so_far.blocks else ""
        text = f"{schedule.unit} {done} of at most {schedule.looks.looks[-1]}{looked}, at most {left_s:.0f} s left"
        self._status.update(text)
        if not self._console.is_terminal and so_far.blocks == done:
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Leave the terminal clean."""
        self._status.stop()


def exit_code(outcome: ABResult) -> Exit:
    """1 for a regression and nothing else, 3 where nothing can be said."""
    verdict = outcome.judgement.verdict
    if verdict is Verdict.SLOWER:
        return Exit.REGRESSION
    return Exit.DONE if verdict.passes else Exit.INCONCLUSIVE


def assessed(outcome: ABResult, a: Side, b: Side, margin: float) -> Assessment:
    """As the gate has it, for JUnit and GitHub."""
    limit = Limit(REGISTRY["latency.median"], margin, relative=True)
    judgement = replace(outcome.judgement, reason=_reason(outcome))
    finding = Finding(f"{_what(b)} against {_what(a)}", limit, judgement)
    return Assessment((finding,), (), (), tuple(f"{name}: {said}" for name, said in levels(outcome).items()))


def levels(outcome: ABResult) -> dict[SideName, str]:
    """Of each side whose latencies have two modes, or shifted once, a sentence that says so.

    Of a turn of several rounds the first is left out: it is slower after the other side's.
    """
    told: dict[SideName, str] = {}
    for name in SIDES:
        samples = []
        for rounds in (block.a if name == "a" else block.b for block in outcome.blocks):
            size = len(rounds) // TURNS
            kept = [r for place, r in enumerate(rounds) if size == 1 or place % size]
            samples += [((r.prompt_id, r.seed), r.latency_s) for r in kept if r.valid]
        modes = two_modes(samples)
        if modes is not None:
            told[name] = levels_told(modes)
    return told


def undecided(failure: SideFailed) -> ABResult:
    """Where a round does not count and b is not to blame: nothing can be said."""
    return ABResult(judge(Refusal(RefusalReason.FAILED, str(failure)), 0.0), (), "invalid_round")


def render_failed(failure: SideFailed, a: Side, b: Side, form: str) -> str:
    """That b cannot make images, as Markdown or JSON."""
    if form == "json":
        data = {"verdict": "FAILED", "reason": str(failure), "a": _what(a), "b": _what(b)}
        return json_text(json.dumps(data, ensure_ascii=False, allow_nan=False, indent=2))
    sides = [f"- {side.name}: {markdown_text(_what(side))}" for side in (a, b)]
    return "\n".join(["**FAILED**", "", markdown_text(str(failure)), "", *sides])


def failed(failure: SideFailed, b: Side) -> Assessment:
    """The same of a new side that cannot make images."""
    return Assessment((), (Gone(_what(b), str(failure)),), ())


def render(outcome: ABResult, a: Side, b: Side, form: str) -> str:
    """The verdict as text, Markdown or JSON."""
    judgement, reason = outcome.judgement, _reason(outcome)
    labels = [f"{side.name}: {_what(side)}" for side in (a, b)]
    shared, told = share_a_pipeline(a, b), levels(outcome)
    remarks = [f"{name}: {said}" for name, said in told.items()]
    labels.append("both on one pipeline" if shared else "each in a worker of its own")
    if form == "json":
        figures = judgement.outcome
        data = {
            "verdict": judgement.verdict,
            "reason": reason,
            "ratio": None if isinstance(figures, Refusal) else asdict(figures),
            "refused": asdict(figures) if isinstance(figures, Refusal) else None,
            "blocks": len(outcome.blocks),
            "workers": 1 if shared else 2,
            "launches": outcome.launches,
            "ended": outcome.ended,
            "deciding_margin": deciding_margin(figures),
            "levels": told,
            "a": _what(a),
            "b": _what(b),
        }
        return json_text(json.dumps(data, ensure_ascii=False, allow_nan=False, indent=2))
    if form == "markdown":
        listed = [f"- {markdown_text(label)}" for label in (*labels, *remarks)]
        return "\n".join([f"**{judgement.verdict}**", "", markdown_text(reason), "", *listed])
    return "\n".join(map(printable, [*labels, f"{judgement.verdict}: {reason}", *remarks]))


ENDED = {
    "budget": "The budget of time ended it: a larger --budget measures more.",
    "no_narrower": "More blocks made the interval no narrower: what slows rounds here lasts longer than a block.",
}


def _reason(outcome: ABResult) -> str:
    """Why, and where nothing was decided, what would have been."""
    judgement = outcome.judgement
    if judgement.verdict is not Verdict.INCONCLUSIVE:
        return judgement.reason
    said, margin = [judgement.reason, *filter(None, [ENDED.get(outcome.ended)])], deciding_margin(judgement.outcome)
    if margin is not None:
        per_cent = math.ceil(1000 * margin - 1e-6) / 10
        said.append(f"A margin of {per_cent:g} % would have been decided: no slower than that.")
    return " ".join(said)


def _what(side: Side) -> str:
    revision = f" at {side.revision}" if side.revision else ""
    python = f" by {side.python}" if side.home is None else ""
    return f"{side.trial.pipeline.name} {side.trial.label}, {side.trial.pipeline.steps} steps{revision}{python}"
