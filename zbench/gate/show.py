"""An assessment as a table, Markdown, JSON, JUnit XML, and as GitHub's annotations; decides nothing."""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from xml.etree import ElementTree

from zbench.gate.judge import Assessment, Finding
from zbench.report.tables.text_table import LEFT, TextTable, to_markdown, to_text
from zbench.sanitize import json_text, printable, printable_lines
from zbench.stats import EXACT, ONE_SAMPLE, Refusal, Scale, Verdict
from zbench.streams import talk

HEADERS = ("trial", "metric", "new against base", "interval", "verdict")
SUMMARY = "GITHUB_STEP_SUMMARY"
FEW = 3
"""So many trials are named where the same is said of them; of more, how many they are."""


def render(assessment: Assessment, form: str) -> str:
    """In one of FORMS; no line feed at its end."""
    return FORMS[form](assessment).rstrip("\n")


def annotations(assessment: Assessment) -> list[str]:
    """GitHub's workflow commands, one a finding that is no pass."""
    lines = [f"::error title={_property(f'zbench: {gone.label}')}::{_escaped(gone.why)}" for gone in assessment.gone]
    for finding in assessment.findings:
        verdict = finding.judgement.verdict
        if not verdict.passes:
            level = "error" if verdict is Verdict.SLOWER else "warning"
            title = _property(f"zbench: {finding.label} {finding.limit.metric.name}")
            lines.append(f"::{level} title={title}::{verdict}: {_escaped(finding.judgement.reason)}")
    return [*lines, *(f"::warning title=zbench::{_escaped(remark)}" for remark in assessment.remarks)]


def publish(assessment: Assessment) -> None:
    """Tell GitHub Actions: annotations on stderr, and the step summary."""
    write_step_summary(assessment)
    for line in annotations(assessment):
        print(line, file=sys.stderr)  # escaped as GitHub asks


def write_step_summary(assessment: Assessment) -> None:
    """Append the Markdown table to the file that GitHub Actions names in GITHUB_STEP_SUMMARY; nothing elsewhere.

    A file that cannot be written is a warning: the verdict is what counts.
    """
    path = os.environ.get(SUMMARY)
    if not path:
        return
    try:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(f"### zbench: {_headline(assessment)}\n\n{render(assessment, 'markdown')}\n")
    except OSError as error:
        talk(f"warning: cannot append to {SUMMARY}={path}: {error.strerror}; the verdict stands")


def _table(assessment: Assessment) -> TextTable:
    rows: list[tuple[str, ...]] = [(gone.label, "", "", "", "REGRESSED") for gone in assessment.gone]
    rows += [_row(finding) for finding in assessment.findings]
    legend = [_headline(assessment), *(f"{gone.label}: {gone.why}." for gone in assessment.gone)]
    labels_of: dict[str, list[str]] = {}
    for f in assessment.findings:
        if not f.judgement.verdict.passes:
            labels_of.setdefault(f"{f.limit.metric.name}: {f.judgement.reason}", []).append(f.label)
    legend += [
        f"{', '.join(labels) if len(labels) <= FEW else f'{len(labels)} trials'} {told}"
        for told, labels in labels_of.items()
    ]
    legend += [f"{remark}." for remark in assessment.remarks]
    if assessment.only_new:
        legend.append(f"The base has no figures of these, so they are not judged: {', '.join(assessment.only_new)}.")
    return TextTable((), HEADERS, (LEFT,) * len(HEADERS), tuple(rows), tuple(legend))


def _row(finding: Finding) -> tuple[str, ...]:
    outcome = finding.judgement.outcome
    if isinstance(outcome, Refusal):
        return finding.label, str(finding.limit), "–", "–", finding.judgement.verdict
    figures = [outcome.estimate, outcome.low, outcome.high]
    if outcome.scale is Scale.RATIO:
        change, low, high = (f"{100 * (figure - 1):+.2f} %" for figure in figures)
    else:
        unit = finding.limit.metric.unit
        change, low, high = (f"{figure:+.4g} {unit}".rstrip() for figure in figures)
    interval = outcome.method if outcome.method in (EXACT, ONE_SAMPLE) else f"{low} to {high}"
    return finding.label, str(finding.limit), change, interval, finding.judgement.verdict


def _headline(assessment: Assessment) -> str:
    verdicts = [finding.judgement.verdict for finding in assessment.findings]
    slower = verdicts.count(Verdict.SLOWER) + len(assessment.gone)
    if slower:
        return f"{slower} of {len(verdicts) + len(assessment.gone)} regressed"
    unclear = verdicts.count(Verdict.INCONCLUSIVE)
    return f"{unclear} of {len(verdicts)} inconclusive" if unclear else f"none of {len(verdicts)} regressed"


def _json(assessment: Assessment) -> str:
    findings = [
        {
            "trial": finding.label,
            "metric": str(finding.limit),
            "verdict": finding.judgement.verdict,
            "reason": finding.judgement.reason,
            "outcome": asdict(finding.judgement.outcome),
        }
        for finding in assessment.findings
    ]
    data = {
        "exit_code": int(assessment.exit_code),
        "findings": findings,
        "gone": [asdict(gone) for gone in assessment.gone],
        "only_new": list(assessment.only_new),
        "remarks": list(assessment.remarks),
    }
    return json_text(json.dumps(data, ensure_ascii=False, allow_nan=False, indent=2))


def _junit(assessment: Assessment) -> str:
    """One test case a finding: SLOWER fails it, INCONCLUSIVE is an error, as neither is a pass.

    XML has no place for control characters, so texts are `printable`; other characters are written as ASCII, for stdout
    may have any encoding.
    """
    verdicts = [finding.judgement.verdict for finding in assessment.findings]
    suite = ElementTree.Element(
        "testsuite",
        name="zbench",
        tests=str(len(verdicts) + len(assessment.gone)),
        failures=str(verdicts.count(Verdict.SLOWER) + len(assessment.gone)),
        errors=str(verdicts.count(Verdict.INCONCLUSIVE)),
    )
    for gone in assessment.gone:
        case = ElementTree.SubElement(suite, "testcase", classname=printable(gone.label), name="trial")
        ElementTree.SubElement(case, "failure", message=printable(gone.why))
    for finding in assessment.findings:
        case = ElementTree.SubElement(suite, "testcase", classname=printable(finding.label), name=str(finding.limit))
        reason = printable(finding.judgement.reason)
        if finding.judgement.verdict is Verdict.SLOWER:
            ElementTree.SubElement(case, "failure", message=reason)
        elif finding.judgement.verdict is Verdict.INCONCLUSIVE:
            ElementTree.SubElement(case, "error", message=reason)
        else:
            ElementTree.SubElement(case, "system-out").text = reason
    if assessment.remarks:
        ElementTree.SubElement(suite, "system-out").text = "\n".join(map(printable, assessment.remarks))
    xml: bytes = ElementTree.tostring(suite, encoding="us-ascii", xml_declaration=True)
    return xml.decode()


def _escaped(text: str) -> str:
    """As GitHub asks of a workflow command's data."""
    return printable_lines(text).replace("%", "%25").replace("\n", "%0A")


def _property(text: str) -> str:
    """As GitHub asks of a workflow command's property, in which colons and commas mean something."""
    return _escaped(text).replace(":", "%3A").replace(",", "%2C")


FORMS: dict[str, Callable[[Assessment], str]] = {
    "table": lambda assessment: to_text(_table(assessment)),
    "markdown": lambda assessment: to_markdown(_table(assessment)),
    "json": _json,
    "junit": _junit,
}
