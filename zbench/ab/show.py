"""What a comparison says: a line a block on stderr while it runs, and the verdict on stdout when it is over."""

import json
from dataclasses import asdict

from rich.console import Console

from zbench.ab.interleave import Block, SideName
from zbench.ab.run import ABResult
from zbench.ab.side import Side, SideFailed, share_a_pipeline
from zbench.analysis.metrics import REGISTRY
from zbench.errors import Exit
from zbench.gate.judge import Assessment, Finding, Gone
from zbench.gate.limits import Limit
from zbench.report.tables.text_table import markdown_text
from zbench.sanitize import printable
from zbench.stats import Look, Refusal, RefusalReason, Verdict, judge

FORMATS = ("text", "json", "markdown", "junit")


class ABProgress:
    """A `run.Listener` on a console: one line that is rewritten on a terminal, one a look elsewhere."""

    def __init__(self, console: Console, last: int) -> None:
        """`last` is the largest number of blocks that may be measured."""
        self._console, self._last = console, last
        self._status = console.status("starting")
        if console.is_terminal:
            self._status.start()

    def note(self, text: str) -> None:
        """Print a sentence."""
        self._console.print(f"note: {printable(text)}", markup=False, highlight=False, soft_wrap=True)

    def warming(self, side: SideName, latency_s: float) -> None:
        """Show a warm-up round."""
        self._status.update(f"warming up {side}: {latency_s:.3f} s")

    def measured(self, block: Block, so_far: Look) -> None:
        """Show how far it is, and what was seen at the last look."""
        done = block.index + 1
        seconds = sum(r.latency_s for r in (*block.a, *block.b))
        left = f"at most {seconds * (self._last - done):.0f} s left"
        looked = f", {so_far.judgement.verdict} at {so_far.blocks}" if so_far.blocks else ""
        text = f"block {done} of at most {self._last}{looked}, {left}"
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
    return Assessment((Finding(f"{_what(b)} against {_what(a)}", limit, outcome.judgement),), (), ())


def undecided(failure: SideFailed) -> ABResult:
    """Where a round does not count and b is not to blame: nothing can be said."""
    return ABResult(judge(Refusal(RefusalReason.FAILED, str(failure)), 0.0), (), "invalid_round")


def render_failed(failure: SideFailed, a: Side, b: Side, form: str) -> str:
    """That b cannot make images, as Markdown or JSON."""
    if form == "json":
        data = {"verdict": "FAILED", "reason": str(failure), "a": _what(a), "b": _what(b)}
        return json.dumps(data, ensure_ascii=False, allow_nan=False, indent=2)
    return "\n".join(["**FAILED**", "", str(failure), "", f"- a: {_what(a)}", f"- b: {_what(b)}"])


def failed(failure: SideFailed, b: Side) -> Assessment:
    """The same of a new side that cannot make images."""
    return Assessment((), (Gone(_what(b), str(failure)),), ())


def render(outcome: ABResult, a: Side, b: Side, form: str) -> str:
    """The verdict as text, Markdown or JSON."""
    judgement = outcome.judgement
    labels = [f"{side.name}: {_what(side)}" for side in (a, b)]
    shared = share_a_pipeline(a, b)
    labels.append("both on one pipeline" if shared else "each in a worker of its own")
    if form == "json":
        figures = judgement.outcome
        data = {
            "verdict": judgement.verdict,
            "reason": judgement.reason,
            "ratio": None if isinstance(figures, Refusal) else asdict(figures),
            "refused": asdict(figures) if isinstance(figures, Refusal) else None,
            "blocks": len(outcome.blocks),
            "workers": 1 if shared else 2,
            "ended": outcome.ended,
            "a": _what(a),
            "b": _what(b),
        }
        return json.dumps(data, ensure_ascii=False, allow_nan=False, indent=2)
    if form == "markdown":
        listed = [f"- {markdown_text(label)}" for label in labels]
        return "\n".join([f"**{judgement.verdict}**", "", markdown_text(judgement.reason), "", *listed])
    return "\n".join(map(printable, [*labels, f"{judgement.verdict}: {judgement.reason}"]))


def _what(side: Side) -> str:
    revision = f" at {side.revision}" if side.revision else ""
    python = f" by {side.python}" if side.home is None else ""
    return f"{side.trial.pipeline.name} {side.trial.label}, {side.trial.pipeline.steps} steps{revision}{python}"
