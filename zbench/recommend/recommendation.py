"""A recommendation and how it reads, as text or JSON; it decides nothing."""

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from zbench.analysis.constraints import Judged
from zbench.analysis.figures import TrialFigures
from zbench.analysis.objectives import Objective
from zbench.emit import TOOLS, Emission, emit, write
from zbench.emit.overrides import zbench_command, zbench_overrides
from zbench.emit.sglang import SGLANG, check_of
from zbench.engines.sglang.launch import sglang_launch
from zbench.methods.parallel import cache_dit_sharding
from zbench.recommend.evidence import evidence_lines
from zbench.recommend.uses import DeviceUse
from zbench.report.text import cells
from zbench.sanitize import json_text, printable
from zbench.trial import Trial

BEST: dict[Objective, str] = {
    "latency": "is the fastest",
    "throughput": "makes the most images/s",
    "energy": "needs the fewest joules an image",
}


@dataclass(frozen=True)
class Binding:
    """What gives way for a faster trial: the constraints it misses, and the trial."""

    missed: tuple[Judged, ...]
    faster: TrialFigures


@dataclass(frozen=True)
class Recommendation:
    """The chosen trial of one piece of work, why, and the lines that launch it."""

    work: str
    head: tuple[str, ...]
    chosen: TrialFigures
    trial: Trial
    judged: tuple[Judged, ...]
    binding: tuple[Binding, ...]
    runner_up: TrialFigures | None
    notes: tuple[str, ...]
    use: DeviceUse | None = None
    """Of the devices that the choice is for, where that was asked."""
    evidence: tuple[str, ...] = ()
    """What it rests on: the record, the engine, where it ran."""
    unmeasured: tuple[str, ...] = ()
    """What nobody measured of it."""

    def to_text(self) -> str:
        """For people; plain text without a line feed at its end."""
        launch = sglang_launch(self.trial)
        said = [*self.head, *([""] if self.head else [])]
        said += [f"{cells.label(self.chosen)}: {_speed(self.chosen)}"]
        said += [] if self.use is None else [f"  {self.use}"]
        said += [f"  {text}" for text in _figures(self.chosen)]
        said += [f"  {judged}" for judged in self.judged]
        said += ["", *self._binding_lines(), self._runner_up_line()]
        said += evidence_lines(self.evidence, self.unmeasured)
        said += [f"Note: {note}." for note in self.notes]
        lines = [*map(printable, said), "", "Run it again:", zbench_command(self.trial, zbench_overrides(self.trial))]
        lines += ["", "Serve it with SGLang:", launch.command, "", "Ask it for an image:", launch.request_command]
        lines += ["", *(f"# {note}" for note in launch.notes)]
        if self.is_candidate:
            check, why_none = check_of(self.trial, launch)
            when = "" if why_none is None else ", once it serves"
            lines += ["", f"For SGLang it is a candidate. Check it there{when}:", check]
        return "\n".join([*lines, *_cache_dit_lines(self.trial)])

    def to_dict(self) -> dict[str, Any]:
        """For programs; JSON-ready."""
        launch, overrides = sglang_launch(self.trial), zbench_overrides(self.trial)
        used = {} if self.use is None else {"use": self.use.to_dict()}
        return {
            "work": self.work,
            **used,
            "head": list(self.head),
            "chosen": self.chosen.to_dict(),
            "constraints": [asdict(judged) for judged in self.judged],
            "binding": [{"missed": [asdict(j) for j in b.missed], "faster": b.faster.to_dict()} for b in self.binding],
            "runner_up": None if self.runner_up is None else self.runner_up.to_dict(),
            "notes": list(self.notes),
            "evidence": list(self.evidence),
            "not_measured": list(self.unmeasured),
            "zbench": {"overrides": overrides, "command": zbench_command(self.trial, overrides)},
            "sglang": {
                "environment": launch.environment,
                "arguments": list(launch.arguments),
                "command": launch.command,
                "request": launch.request,
                "request_command": launch.request_command,
                "notes": list(launch.notes),
                "is_candidate": self.is_candidate,
                "check": check_of(self.trial, launch)[0],
            },
            **_cache_dit(self.trial),
        }

    @property
    def is_candidate(self) -> bool:
        """Whether SGLang's words for it have still to be checked on SGLang."""
        return self.trial.engine.name != SGLANG

    def emissions(self, sglang_version: str | None = None) -> list[Emission]:
        """It in the words of every tool."""
        measured = f"Measured: {'; '.join(self.evidence)}" if self.evidence else None
        return [emit(self.trial, tool, sglang_version=sglang_version, measured=measured) for tool in TOOLS]

    def _binding_lines(self) -> list[str]:
        best = BEST["latency" if self.use is None else self.use.objective]
        if not self.judged:
            return [f"No constraint was given: this {best} of the trials judged."]
        if not self.binding:
            return [f"No constraint binds: this {best} of the trials judged."]
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
        return f"Runner-up: {cells.label(self.runner_up)}, {_speed(self.runner_up)}{likeness}.{self._why_second()}"

    def _why_second(self) -> str:
        """Of a runner-up whose time is shorter, where speed-ups by turns decided; nothing of another."""
        first, second = self.chosen, self.runner_up
        by_speed = self.use is None or self.use.objective == "latency"
        if second is None or not by_speed or not (first.speedup_way == second.speedup_way == "paired"):
            return ""
        times, speedups = (first.latency_median_s, second.latency_median_s), (first.speedup, second.speedup)
        if None in times + speedups or times[1] >= times[0] or speedups[1] >= speedups[0]:  # type: ignore[operator]
            return ""
        return " Its time is shorter, but it was measured when the machine was faster: speed-ups decide."


@dataclass(frozen=True)
class NoAnswer:
    """A piece of work for which nothing can be recommended, and why."""

    work: str
    why: str

    def __str__(self) -> str:
        """`zimage_turbo 512×512, 8 steps: none of 3 trials satisfies …`."""
        return f"{self.work}: {self.why}"

    def to_dict(self) -> dict[str, Any]:
        """For programs; JSON-ready."""
        return {"work": self.work, "chosen": None, "why": self.why}


@dataclass(frozen=True)
class Advice:
    """One answer for each piece of work."""

    answers: tuple[Recommendation | NoAnswer, ...]

    @property
    def is_whole(self) -> bool:
        """Whether every piece of work has an answer."""
        return all(isinstance(answer, Recommendation) for answer in self.answers)

    def write(self, folder: Path, sglang_version: str | None = None) -> list[Path]:
        """Files of every recommendation for every tool, in a folder of its own where there are several; their paths.

        Raises ZbenchError where they cannot be written, ConfigError for a version of SGLang that nobody knows.
        """
        found = [answer for answer in self.answers if isinstance(answer, Recommendation)]
        paths: list[Path] = []
        for number, answer in enumerate(found, 1):
            name = re.sub(r"[^A-Za-z0-9]+", "-", answer.work.replace("×", "x")).strip("-")
            place = folder if len(found) == 1 else folder / f"{number}-{name}"
            paths += write(answer.emissions(sglang_version), place, answer.to_text().splitlines())
        return paths

    def to_text(self) -> str:
        """For people; a heading for each piece of work where there are several."""
        if len(self.answers) == 1 and isinstance(self.answers[0], Recommendation):
            return self.answers[0].to_text()
        parts = []
        for answer in self.answers:
            said = answer.to_text() if isinstance(answer, Recommendation) else printable(f"No answer: {answer.why}.")
            parts.append(f"{printable(f'== {answer.work} ==')}\n\n{said}")
        return "\n\n".join(parts)

    def to_json(self) -> str:
        """For programs: an object for one piece of work, a list of such for several."""
        data = [answer.to_dict() for answer in self.answers]
        answer = data if len(data) > 1 else data[0]
        return json_text(json.dumps(answer, ensure_ascii=False, allow_nan=False, indent=2))


def _cache_dit_lines(trial: Trial) -> list[str]:
    """The YAML that shards a pipeline with cache-dit, and what it leaves out; nothing for one device."""
    sharding = cache_dit_sharding(trial.parallel, trial.compute.attention_backend)
    if sharding is None:
        return []
    head = [f"With cache-dit, in {sharding.processes} processes (torchrun), as cache_dit.load_configs reads it:"]
    said = [*head, *sharding.yaml.splitlines()] if sharding.config else ["With cache-dit: nothing of it is sharded."]
    return ["", *said, *(printable(f"# {note}") for note in sharding.notes)]


def _cache_dit(trial: Trial) -> dict[str, Any]:
    """The same for programs; empty for one device."""
    sharding = cache_dit_sharding(trial.parallel, trial.compute.attention_backend)
    if sharding is None:
        return {}
    told = {"parallelism_config": dict(sharding.config), "processes": sharding.processes, "notes": sharding.notes}
    return {"cache_dit": {**told, "yaml": sharding.yaml}}


def _speed(row: TrialFigures) -> str:
    text = f"{cells.median_s(row)} s {cells.for_images(row)}"
    return text if row.speedup is None else f"{text}, {cells.speedup(row)} the baseline's speed"


def _figures(row: TrialFigures) -> list[str]:
    p90 = cells.p90(row)
    share = "90 %" if row.latency_source == "projected" else "95 %"
    lines = [f"median latency, s [{share}]: {cells.latency(row)}; p90: {p90}"]
    if cells.cold(row) not in (cells.ABSENT, cells.RESIDENT):
        after = "" if row.resident_after is None else f", as {row.resident_after} paid"
        lines.append(f"cold, s to load + of the first request: {cells.cold(row)}{after}")
    if row.cached_steps is not None:
        lines.append(f"skipped steps an image: {cells.cached_steps(row)}")
    if row.ssim_mean is not None:
        lines.append(f"SSIM (worst image): {cells.ssim(row)}; PSNR, dB: {cells.psnr(row)}")
    if row.prompt_fidelity_mean is not None:
        lines.append(f"attributes of the prompts that are right (worst image): {cells.prompt(row)}")
    if row.peak_memory_bytes is not None:
        lines.append(f"peak memory: {cells.memory(row)}")
    return lines
