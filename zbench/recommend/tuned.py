"""What `tune` says besides its recommendation: the path, what was not tried, how sure it is, what to try next."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from zbench.report.text import cells
from zbench.sanitize import printable
from zbench.search.budget import Budget, Spent
from zbench.search.tune import WorkStory
from zbench.search.tune_decide import QUESTIONS, Decision

MOST_REASONS = 6
"""Reasons why something was not tried that the text names; JSON has all."""


def path_text(stories: Sequence[WorkStory], spent: Spent, budget: Budget, *, ran_out: bool) -> str:
    """For people; plain text without a line feed at its end."""
    parts = []
    for story in stories:
        head = [] if len(stories) == 1 else [f"== {story.work} =="]
        parts.append("\n".join(map(printable, [*head, *_of_work(story)])))
    return "\n\n".join([*parts, printable(spent_line(spent, budget, ran_out=ran_out))])


def path_dict(stories: Sequence[WorkStory], spent: Spent, budget: Budget, *, ran_out: bool) -> dict[str, Any]:
    """The same for programs; JSON-ready."""
    works = [
        {
            "work": story.work,
            "path": [_decision_dict(decision) for decision in story.decider.decisions],
            "undecided": story.decider.undecided(),
            "not_tried": dict(story.decider.not_tried),
        }
        for story in stories
    ]
    used = {"trials": spent.trials, "seconds": round(spent.seconds, 3), "budget": str(budget), "ran_out": ran_out}
    return {"works": works, "spent": used}


def spent_line(spent: Spent, budget: Budget, *, ran_out: bool) -> str:
    """`Budget: 118 of 120 s, 9 trials; it ended the search.`."""
    trials = f"{spent.trials} trial{'' if spent.trials == 1 else 's'}"
    seconds = f"{cells.digits(spent.seconds)} s"
    if budget.trials is not None:
        used = f"{spent.trials} of {budget}, {seconds}"
    elif budget.seconds is not None:
        used = f"{cells.digits(spent.seconds)} of {budget}, {trials}"
    else:
        used = f"{trials}, {seconds}, no limit"
    if not ran_out:
        return f"Budget: {used}; the search came to its end."
    left = f", as one more would take about {cells.digits(spent.typical_s)} s" if budget.seconds else ""
    return f"Budget: {used}; it ended the search{left}."


def _of_work(story: WorkStory) -> list[str]:
    decider = story.decider
    lines = ["Path, what each decision bought:"]
    lines += [f"  {_decided(decision)}" for decision in decider.decisions]
    why = "as nothing that was asked for can run" if story.ended else "the search ended before"
    lines += [f"  {QUESTIONS[question]}: not decided, {why}" for question in decider.undecided()]
    if (whole := _whole(story)) is not None:
        lines.append(f"  together: {whole}")
    lines += _not_tried(story)
    lines += [f"How sure: {said}." for said in _sureness(story)]
    return [*lines, f"Next: {_next(story)}."]


def _decided(decision: Decision) -> str:
    trials = f" ({decision.trials} trial{'' if decision.trials == 1 else 's'})" if decision.trials else ""
    bought = ""
    if decision.factor is not None and decision.before is not decision.after:
        bought = f" {decision.factor}"
    elif decision.trials and decision.before is not None:
        bought = " 1.00×, as it was"
    return f"{QUESTIONS[decision.question]}:{bought}{trials} {decision.said}"


def _whole(story: WorkStory) -> str | None:
    decider = story.decider
    baseline, best = decider.baseline, decider.best
    factor = None if baseline is None or best is None else decider.judge.factor(baseline, best, baseline)
    if factor is None or baseline is None or best is None or baseline is best:
        return None
    return f"{factor} over {baseline.row.label} ({decider.judge.objective})"


def _not_tried(story: WorkStory) -> list[str]:
    """By reason, those that leave most out first."""
    reasons = Counter(story.decider.not_tried.values())
    if not reasons:
        return []
    named: dict[str, str] = {}
    for label, why in story.decider.not_tried.items():
        named.setdefault(why, label)
    lines = ["Not tried:"]
    for why, count in reasons.most_common(MOST_REASONS):
        more = f" and {count - 1} more" if count > 1 else ""
        lines.append(f"  {named[why]}{more}: {why}")
    left = len(reasons) - MOST_REASONS
    return lines if left <= 0 else [*lines, f"  and for {left} more reason{'s' if left > 1 else ''}, see --format json"]


def _sureness(story: WorkStory) -> list[str]:
    decider = story.decider
    best = decider.best
    if best is None:
        return ["nothing that was tried keeps the limits, so nothing is known of how fast it could be"]
    pairs = len(best.trial.workload.prompts) * len(best.trial.workload.seeds)
    pair = "pair" if pairs == 1 else f"{pairs} pairs"
    said = [
        f"brackets are 95 % intervals; it was chosen and judged on the same {pair} of prompt and seed, none held out"
    ]
    standing = [t for t in decider.told.values() if t is not best and decider.judge.satisfies(t)]
    close = [t for t in standing if t.row.may_equal(best.row)]
    if close:
        named = ", ".join(t.row.label for t in close[:3])
        said.append(f"{named}{' and others' if len(close) > 3 else ''} cannot be told apart from it by speed")
    elif standing:
        said.append("no other that keeps the limits overlaps it")
    return said


def _next(story: WorkStory) -> str:
    decider = story.decider
    if not story.ended:
        undecided = " and ".join(QUESTIONS[question] for question in decider.undecided())
        left = f"decides {undecided}" if undecided else "tries other ways to compute with skipping"
        return f"a larger --budget {left}"
    best = decider.best
    pairs = 0 if best is None else len(best.trial.workload.prompts) * len(best.trial.workload.seeds)
    if best is None:
        return "looser limits, or choices of your own, such as offload= or cache="
    if pairs < 8:
        return "your own prompts and more seeds (workload.seeds=0,1,2,3), for quality may differ there"
    return "measure=thorough for narrower intervals; of these choices nothing is left that can win"


def _decision_dict(decision: Decision) -> dict[str, Any]:
    factor = decision.factor
    bought = None if factor is None else {"ratio": factor.ratio, "low": factor.low, "high": factor.high}
    return {
        "question": decision.question,
        "said": decision.said,
        "trials": decision.trials,
        "bought": bought,
        "before": None if decision.before is None else decision.before.row.trial_id,
        "after": None if decision.after is None else decision.after.row.trial_id,
    }
