"""What a recommendation rests on: which trial, measured with what and on what; and what nobody measured of it."""

from collections.abc import Sequence

from zbench.analysis.figures import TrialFigures
from zbench.measurement import RANDOM_WEIGHTS
from zbench.record import Record

STACK = ("torch", "diffusers", "cache-dit")
"""Packages whose versions decide what was measured on zbench's own engine."""

OWN_ENGINE = "reference"


def evidence_of(row: TrialFigures, record: Record) -> tuple[str, ...]:
    """Lines of plain text: the record, the engine and where it ran."""
    trial = record.trial
    measured = record.valid_measurement
    if row.source != "measured":
        return (f"trial {row.trial_id} of {row.sweep}, {row.source}: not measured on what it is recommended for",)
    versions = record.environment.get("versions") or {}
    stack = ", ".join(f"{name} {versions[name]}" for name in STACK if versions.get(name))
    device = None if measured is None else measured.effective.device_name
    place = device if device not in (None, "cpu") else record.environment.get("cpu") or "a CPU"
    software = f" ({stack})" if stack and trial.engine.name == OWN_ENGINE else ""
    server = None if measured is None else measured.effective.other.get("server")
    if server is not None:
        software, place = f" at {server}", f"whatever that runs on, by a client on {place}"
    images = len(trial.workload.prompts) * len(trial.workload.seeds)
    return (
        f"trial {row.trial_id} of {row.sweep}: {row.rounds} requests, {_arrivals(record)}, of {images} "
        f"{'pair' if images == 1 else 'pairs'} of prompt and seed",
        f"measured with engine={trial.engine.name}{software} on {place}",
    )


def _arrivals(record: Record) -> str:
    """How they came."""
    workload = record.trial.workload
    return f"under load ({workload.load_label})" if workload.is_load else "one after another"


def not_measured(row: TrialFigures, record: Record) -> tuple[str, ...]:
    """What somebody might take for known, as parts of a sentence."""
    said: list[str] = []
    if row.source != "measured":
        said.append(f"anything on {row.hardware or 'that hardware'}")
    if row.arrivals != "sequential":
        said.append("other arrivals of requests")
    else:
        said.append("requests at once" if row.dp_size == 1 else "requests beyond those side by side")
    if row.ssim_worst is None and row.identical_images is None and not row.is_reference:
        random = row.why_missing("quality") == RANDOM_WEIGHTS
        said.append("its images, for weights were random" if random else "likeness to the reference's images")
    if row.prompt_fidelity_mean is None:
        said.append("whether the images show what the prompts ask for")
    if row.device_memory_bytes is None:
        said.append("device memory")
    if row.joules_an_image is None:
        said.append("energy")
    said.append("other prompts, seeds and sizes")
    if record.trial.engine.name != "sglang":
        said.append(f"any of it on SGLang: the engine was {record.trial.engine.name}")
    return tuple(said)


def evidence_lines(evidence: Sequence[str], unmeasured: Sequence[str]) -> list[str]:
    """Both as a text shows them."""
    lines = [f"Evidence: {'; '.join(evidence)}."] if evidence else []
    return [*lines, f"Not measured: {', '.join(unmeasured)}."] if unmeasured else lines
