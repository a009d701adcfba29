"""The doctor's findings as a table or JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from zbench.hardware.doctor import DoctorFinding
from zbench.report.tables.text_table import LEFT, TextTable, to_text
from zbench.sanitize import json_text


def render_findings(findings: Sequence[DoctorFinding], form: str) -> str:
    """`form` is table or json."""
    if form == "json":
        data = [asdict(finding) for finding in findings]
        return json_text(json.dumps(data, ensure_ascii=False, indent=2, allow_nan=False))
    rows = tuple((f.status, f.name, f.detail, f.way_out or "") for f in findings)
    return to_text(TextTable((), ("status", "what", "found", "way out"), (LEFT,) * 4, rows, ()))
