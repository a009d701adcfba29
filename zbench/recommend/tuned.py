"""What `tune` says besides its recommendation: the path, what was not tried, how sure it is, what to try next."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from zbench.report.text import cells
from zbench.sanitize import printable
from zbench.search.tune.decide import QUESTIONS, Decider, Decision, PutOff, Question
from zbench.search.tune.search import TuneSearch, WorkStory
from zbench.search.tune.validate import Validated, needs_validation, validation_of, validations
from zbench.workload import pairs

MOST_REASONS = 6
"""Reasons why something was not tried that the text names; JSON has all."""

MOST_NAMED = 3
"""Of the trials that the budget had no room for."""


def path_text(search: TuneSearch) -> str:
    """For people; plain text without a line feed at its end."""
    parts, stories = [], search.stories
    for story in stories:
        head = [] if len(stories) == 1 else [f"== {story.work} =="]
        parts.append("\n".join(map(printable, [*head, *_of_work(story)])))
    return "\n\n".join([*parts, printable(spent_line(search))])


def path_dict(search: TuneSearch) -> dict[str, Any]:
    """The same for programs; JSON-ready."""
    works = [
        {
            "work": story.work,
            "path": [_decision_dict(decision) for decision in story.decider.decisions],
            "undecided": story.decider.undecided(),
            "held_out": [_validation_dict(each) for each in validations(story.decider)],
            "not_tried": dict(story.decider.not_tried),
            "put_off": [{"question": each.question, "label": each.trial.label} for each in story.decider.left],
        }
        for story in search.stories
    ]
    spent = search.spent
    used = {"trials": spent.trials, "seconds": round(spent.seconds, 3), "budget": str(search.budget)}
    return {"works": works, "spent": {**used, "ran_out": search.ran_out}}


def spent_line(search: TuneSearch) -> str:
    """`Budget: 118 of 120 s, 9 trials; it ended the search.`."""
    spent, budget = search.spent, search.budget
    trials = f"{spent.trials} trial{'' if spent.trials == 1 else 's'}"
    seconds = f"{cells.digits(spent.seconds)} s"
    if budget.trials is not None:
        used = f"{spent.trials} of {budget}, {seconds}"
    elif budget.seconds is not None:
        used = f"{cells.digits(spent.seconds)} of {budget}, {trials}"
    else:
        used = f"{trials}, {seconds}, no limit"
    if not search.ran_out:
        return f"Budget: {used}; the search came to its end."
    least_s = search.least_left_s
    known = budget.seconds is not None and least_s is not None
    left = f", as the shortest trial left would take about {cells.digits(least_s or 0.0)} s" if known else ""
    return f"Budget: {used}; it ended the search{left}."


def _of_work(story: WorkStory) -> list[str]:
    decider = story.decider
    lines = ["Path, what each decision bought:"]
    lines += [f"  {_decided(decision)}{_ended(decider.cut(decision.question))}" for decision in decider.decisions]
    lines += [
        f"  {QUESTIONS[question]}: not decided{_why_undecided(story, question)}" for question in decider.undecided()
    ]
    decided = {decision.question for decision in decider.decisions}
    if "second look" not in decided and (cut := decider.cut("second look")):
        lines.append(f"  {QUESTIONS['second look']}: not tried{_ended(cut)}")
    if (whole := _whole(story)) is not None:
        lines.append(f"  together: {whole}")
    lines += _held_out(decider)
    lines += _not_tried(story)
    lines += [f"How sure: {said}." for said in _sureness(story)]
    return [*lines, f"Next: {_next(story)}."]


def _ended(cut: Sequence[PutOff]) -> str:
    """That the budget ended a decision, and what came to nothing by that."""
    return f"; the budget ended it before {_named(cut)}" if cut else ""


def _named(cut: Sequence[PutOff]) -> str:
    named = ", ".join(each.trial.label for each in cut[:MOST_NAMED])
    return f"{named} and {len(cut) - MOST_NAMED} more" if len(cut) > MOST_NAMED else named


def _why_undecided(story: WorkStory, question: Question) -> str:
    cut = story.decider.cut(question)
    if cut:
        return _ended(cut)
    return ", as nothing that was asked for can run" if story.ended else "; the budget ended before it"


def _held_out(decider: Decider) -> list[str]:
    """What samples say that nothing was chosen on."""
    found = validations(decider)
    if not found:
        return []
    count = found[0].samples[1]
    pair = f"{count} pair{'s' if count > 1 else ''} of prompt and seed"
    lines = [f"On samples held out, {pair} that nothing was chosen on:"]
    missed = [each for each in found if each.holds is False]
    for each in [*missed[:MOST_NAMED], *(each for each in found if each.holds is not False)]:
        verdict = {True: "keeps the limits there", None: "cannot be judged there"}.get(
            each.holds, "misses a limit there, so it is not the answer"
        )
        lines.append(f"  {each.chosen.row.label} {verdict}: {each}")
    left = len(missed) - MOST_NAMED
    lines += [f"  and {left} more, see --format json, that miss one there"] if left > 0 else []
    return lines


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
    said = [f"brackets are 95 % intervals; {_of_samples(decider)}"]
    standing = [t for t in decider.told.values() if t is not best and decider.judge.satisfies(t)]
    close = [t for t in standing if t.row.may_equal(best.row)]
    if close:
        named = ", ".join(t.row.label for t in close[:3])
        said.append(f"{named}{' and others' if len(close) > 3 else ''} cannot be told apart from it by speed")
    elif standing:
        said.append("no other that keeps the limits overlaps it")
    return said


def _of_samples(decider: Decider) -> str:
    """On what the best was chosen, and on what it was validated."""
    best = decider.best
    assert best is not None, "_sureness asked it before"
    count = len(pairs(best.trial.workload))
    chosen = f"it was chosen on {count} pair{'s' if count > 1 else ''} of prompt and seed"
    if not needs_validation(best):
        return f"{chosen}, and its images there are the reference's but for noise"
    if not decider.judge.limits_images:
        return f"{chosen}; without a limit on images nothing was chosen by them, and none are held out"
    found = validation_of(decider, best)
    if found is not None:
        others = f"{found.samples[1]} other{'s' if found.samples[1] > 1 else ''}"
        return f"{chosen}, and validated on {others}" if found.holds else f"{chosen}; {others} say nothing of it"
    if decider.held_out is None:
        return f"{chosen} and judged on the same, none held out"
    return f"{chosen} and not validated on others: the budget ended before that"


def _next(story: WorkStory) -> str:
    decider = story.decider
    best, left = decider.best, decider.left
    if left:
        return f"a larger --budget tries {_named(left)}"
    if best is None:
        return "looser limits, or choices of your own, such as offload= or cache="
    if decider.broken:
        missed = f"{len(decider.broken)} that suited these alone missed a limit on others"
        return f"more prompts and seeds to choose on (workload.seeds=0,1,2,3), for {missed}"
    if len(pairs(best.trial.workload)) < 8:
        return "your own prompts and more seeds (workload.seeds=0,1,2,3), for quality may differ there"
    return "measure=thorough for narrower intervals; of these choices nothing is left that can win"


def _validation_dict(found: Validated) -> dict[str, Any]:
    return {
        "trial_id": found.chosen.row.trial_id,
        "label": found.chosen.row.label,
        "holds": found.holds,
        "samples": {"chosen_on": found.samples[0], "held_out": found.samples[1]},
        "limits": [
            {"flag": chosen.flag, "limit": chosen.limit, "chosen_on": chosen.value, "held_out": held_out.value}
            for chosen, held_out in found.limits
        ],
    }


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
