"""A recommendation and how it reads, as text or JSON; it decides nothing."""

import json
from dataclasses import asdict, dataclass
from typing import Any

from zbench.analysis.figures import TrialSummary
from zbench.recommend.overrides import zbench_command, zbench_overrides
from zbench.recommend.sglang import sglang_launch
from zbench.report.text import cells
from zbench.trial import Trial


@dataclass(frozen=True)
class Judged:
    """One constraint and how a trial stands to it."""

    flag: str
    limit: float
    what: str
    unit: str
    value: float | None  # None if there is no figure, or if the images are identical
    identical: bool
    missed_by: float | None  # 0: satisfied; None: there is no figure
    why_missing: str | None

    def __str__(self) -> str:
        """`SSIM of the worst image is 0.801, 0.149 short of --min-ssim 0.95`."""
        bound = f"{self.flag} {self.limit:g}"
        if self.identical:
            return f"{self.what} is that of identical images, within {bound}"
        if self.value is None or self.missed_by is None:
            return f"{self.what} is unknown ({self.why_missing or 'not recorded'}), so {bound} cannot be judged"
        says = f"{self.what} is {_figure(self.value)}{self.unit}"
        if self.missed_by == 0:
            return f"{says}, within {bound}"
        way = "above" if self.value > self.limit else "short of"
        return f"{says}, {_figure(self.missed_by)}{self.unit} {way} {bound}"


@dataclass(frozen=True)
class Binding:
    """What gives way for a faster trial: the constraints it misses, and the trial."""

    missed: tuple[Judged, ...]
    faster: TrialSummary


@dataclass(frozen=True)
class Recommendation:
    """The chosen trial, why, and the lines that launch it."""

    head: tuple[str, ...]
    chosen: TrialSummary
    trial: Trial
    judged: tuple[Judged, ...]
    binding: tuple[Binding, ...]
    runner_up: TrialSummary | None
    notes: tuple[str, ...]

    def to_text(self) -> str:
        """For people; plain text without a line feed at its end."""
        launch = sglang_launch(self.trial)
        lines = [*self.head, *([""] if self.head else [])]
        lines += [f"{cells.label(self.chosen)}: {_speed(self.chosen)}"]
        lines += [f"  {text}" for text in _figures(self.chosen)]
        lines += [f"  {judged}" for judged in self.judged]
        lines += ["", *self._binding_lines(), self._runner_up_line()]
        lines += [f"Note: {note}." for note in self.notes]
        lines += ["", "Run it again:", zbench_command(zbench_overrides(self.trial))]
        lines += ["", "Serve it with SGLang:", launch.command, "", "Ask it for an image:", launch.request_command]
        return "\n".join([*lines, "", *(f"# {note}" for note in launch.notes)])

    def to_json(self) -> str:
        """For programs; JSON without NaN."""
        launch, overrides = sglang_launch(self.trial), zbench_overrides(self.trial)
        data: dict[str, Any] = {
            "head": list(self.head),
            "chosen": _plain(self.chosen),
            "constraints": [asdict(judged) for judged in self.judged],
            "binding": [{"missed": [asdict(j) for j in b.missed], "faster": _plain(b.faster)} for b in self.binding],
            "runner_up": None if self.runner_up is None else _plain(self.runner_up),
            "notes": list(self.notes),
            "zbench": {"overrides": overrides, "command": zbench_command(overrides)},
            "sglang": {
                "environment": launch.environment,
                "arguments": list(launch.arguments),
                "command": launch.command,
                "request": launch.request,
                "request_command": launch.request_command,
                "notes": list(launch.notes),
            },
        }
        return json.dumps(data, ensure_ascii=False, allow_nan=False, indent=2)

    def _binding_lines(self) -> list[str]:
        if not self.judged:
            return ["No constraint was given: this is the fastest of the trials judged."]
        if not self.binding:
            return ["No constraint binds: this is the fastest of the trials judged."]
        return [
            f"Binding: {' and '.join(j.flag for j in b.missed)}. Without it {b.faster.label} would be chosen, "
            f"{_speed(b.faster)}; its {'; its '.join(map(str, b.missed))}."
            for b in self.binding
        ]

    def _runner_up_line(self) -> str:
        if self.runner_up is None:
            return "Runner-up: none, no other trial is feasible."
        worst = self.runner_up.ssim_worst
        likeness = "" if worst is None else f", worst SSIM {cells.likeness(worst)}"
        return f"Runner-up: {cells.label(self.runner_up)}, {_speed(self.runner_up)}{likeness}."


def _speed(row: TrialSummary) -> str:
    text = f"{cells.seconds(row.latency_median_s, row.latency_source)} s {cells.for_images(row)}"
    return text if row.speedup is None else f"{text}, {cells.speedup(row)} the baseline's speed"


def _figures(row: TrialSummary) -> list[str]:
    p90 = cells.seconds(row.latency_p90_s, row.latency_source)
    lines = [f"median latency, s [95 %]: {cells.latency(row)}; p90: {p90}"]
    if row.cached_steps is not None:
        lines.append(f"skipped steps an image: {cells.cached_steps(row)}")
    if row.ssim_mean is not None:
        lines.append(f"SSIM (worst image): {cells.ssim(row)}; PSNR, dB: {cells.psnr(row)}")
    if row.prompt_fidelity_mean is not None:
        lines.append(f"attributes of the prompts that are right (worst image): {cells.prompt(row)}")
    if row.peak_memory_bytes is not None:
        lines.append(f"peak memory: {cells.memory(row)}")
    return lines


def _figure(value: float) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".") if abs(value) < 10 else f"{value:.1f}"


def _plain(row: TrialSummary) -> dict[str, Any]:
    return {**asdict(row), "missing": dict(row.missing)}
