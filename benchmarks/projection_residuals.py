"""How far the projection is from what was measured: `python benchmarks/projection_residuals.py [JOURNAL …]`.

Every COMPLETE record of the full-size pipeline on a GPU with measured forwards is projected onto the profile of that
GPU, also on several devices, and so are the measured figures of `zbench/hardware/published.yaml`. Printed are the
milliseconds of one computed forward as measured and as projected, the residual (projected over measured, less one) in
percent, and of each hardware the mean and the largest of the absolute residuals. Without journals those under
`reports/` are read. It runs nothing and imports no torch.
"""

import argparse
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from zbench.analysis.scaling import forward_s
from zbench.composition import expand, profile_patterns
from zbench.config import ComputeConfig, Config, ParallelConfig
from zbench.errors import ConfigError, ZbenchError
from zbench.hardware.detect import profile_of
from zbench.hardware.footprint import TEXT_TOKENS
from zbench.hardware.published import PublishedFigure, published_figures
from zbench.hardware.roofline import project
from zbench.measurement import Measurement
from zbench.methods.parallel import ParallelDims
from zbench.record import Record
from zbench.store import read_records
from zbench.trial import Trial, preset_geometry

REPORTS = Path(__file__).parent.parent / "reports"
PRESET = "zimage_turbo"
WIDTHS = (8, 8, 60, 10, 10, 9)
PLAIN = ("eager", "second host", "diffusers' forward", "cuDNN attention")
"""What of a published setting changes nothing that is projected."""
DEGREES = {"tp": "tp_size", "ulysses": "ulysses_size", "ring": "ring_size"}


@dataclass(frozen=True)
class Residual:
    """One forward as it was measured and as it is projected, seconds."""

    hardware: str  # its profile
    devices: int
    setting: str
    measured_s: float
    projected_s: float

    @property
    def share(self) -> float:
        """By how much the projection is too slow (above 0) or too fast."""
        return self.projected_s / self.measured_s - 1


def of_records(records: Iterable[Record], where: str = "") -> Iterator[Residual]:
    """Of each record whose forwards were measured on a GPU that has a profile; the others are passed over."""
    patterns = profile_patterns()
    for record in records:
        measured, devices = record.valid_measurement, record.environment.get("devices") or ()
        name = profile_of(devices[0]["name"], patterns) if devices else None
        if measured is None or measured.projection is not None or name is None or name == "cpu":
            continue
        if record.trial.pipeline.preset != PRESET or record.trial.hardware is not None:
            continue
        seconds = forward_s(measured)
        if seconds is None or measured.effective.device != "cuda":
            continue
        try:
            projected_s = projected_forward_s(record.trial, name, text_tokens(measured))
        except ConfigError as error:
            print(f"{where}{record.label}: left out, {error}", file=sys.stderr)
            continue
        dims = ParallelDims.of(record.trial.parallel)
        yield Residual(name, dims.devices, f"{where}{setting(record)}", seconds, projected_s)


def of_published(figures: Iterable[PublishedFigure]) -> Iterator[Residual]:
    """Of each figure of one forward that was measured with zbench's own engine at its defaults."""
    for figure in figures:
        trial = published_trial(figure)
        if trial is not None and figure.step_s is not None and figure.profile is not None:
            projected_s = projected_forward_s(trial, figure.profile, TEXT_TOKENS)
            yield Residual(figure.profile, figure.count, f"published: {figure.id}", figure.step_s, projected_s)


def published_trial(figure: PublishedFigure) -> Trial | None:
    """The trial behind a row of `published.yaml`, read from its setting (`ulysses 2, compiled blocks`); else None."""
    if figure.kind != "measured" or not figure.id.startswith("zbench-"):
        return None
    degrees: dict[str, int] = {}
    compiled = False
    for part in (part.strip() for part in figure.setting.split(",")):
        word, _, number = part.partition(" ")
        if word in DEGREES and number.isdigit():
            degrees[DEGREES[word]] = int(number)
        elif part == "compiled blocks":
            compiled = True
        elif part not in PLAIN:
            return None
    trial = Trial.from_config(composed(figure.profile or ""), projected=True)
    compute = ComputeConfig(device="cuda", compile=compiled)
    return replace(trial, compute=compute, parallel=ParallelConfig(**degrees))


def projected_forward_s(trial: Trial, profile: str, tokens: int) -> float:
    """Seconds of one computed forward. Raises ConfigError where the profile cannot say."""
    onto = replace(trial, hardware=composed(profile).hardware, vram_limit_gib=None)
    return project(onto, preset_geometry(PRESET), [], tokens).computed_step_s


@cache
def composed(profile: str) -> Config:
    """The full-size pipeline at its defaults, on a profile of `conf/hardware`."""
    chosen = [f"pipeline={PRESET}", f"hardware={profile}", "compute.device=cuda"]
    return expand(chosen, lambda group, _: group, grids=False).jobs[0].config


def text_tokens(measured: Measurement) -> int:
    """Of the longest sample of its forwards, the median round's; TEXT_TOKENS where it is not recorded."""
    known = sorted(max(r.text_tokens) for r in measured.requests if r.valid and r.text_tokens)
    return known[len(known) // 2] if known else TEXT_TOKENS


def setting(record: Record) -> str:
    """Its label, and its size and samples where they are not the commonest."""
    pipeline = record.trial.pipeline
    size = "" if (pipeline.width, pipeline.height) == (1024, 1024) else f" {pipeline.width}×{pipeline.height}"
    samples = "" if pipeline.samples == 1 else f" {pipeline.samples} samples"
    return f"{record.label}{size}{samples}"


def lines(residuals: Iterable[Residual]) -> Iterator[str]:
    """A table, and two figures of each hardware: sharded forwards apart from those of one device."""
    every = list(residuals)
    yield _line("hardware", "devices", "setting", "ms", "projected", "residual")
    for r in every:
        share = f"{100 * r.share:+.1f} %"
        yield _line(
            r.hardware, str(r.devices), r.setting, f"{1e3 * r.measured_s:.1f}", f"{1e3 * r.projected_s:.1f}", share
        )
    yield ""
    for name in dict.fromkeys(r.hardware for r in every):
        for sharded in (False, True):
            sizes = [abs(r.share) for r in every if r.hardware == name and (r.devices > 1) == sharded]
            if sizes:
                what = "several devices" if sharded else "one device"
                mean, most = 100 * sum(sizes) / len(sizes), 100 * max(sizes)
                rows = f"{len(sizes)} {'row' if len(sizes) == 1 else 'rows'}"
                yield f"{name}, {what}: {rows}, mean absolute residual {mean:.1f} %, largest {most:.1f} %"


def _line(*cells: str) -> str:
    texts = zip(cells, WIDTHS, strict=True)
    return "  ".join(
        f"{text:<{width}}" if i < 3 else f"{text:>{width}}" for i, (text, width) in enumerate(texts)
    ).rstrip()


def main(arguments: list[str]) -> int:
    """Print the residuals of the journals that are named, or of all under `reports/`, then the published ones."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("journals", nargs="*", type=Path, metavar="JOURNAL", help="records.jsonl (default: reports/*)")
    journals = parser.parse_args(arguments).journals or sorted(REPORTS.glob("*/*/records.jsonl"))
    residuals: list[Residual] = []
    try:
        for path in journals:
            residuals += of_records(read_records(path), f"{path.resolve().parent.name}: ")
    except (ZbenchError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    residuals += of_published(published_figures())
    print("\n".join(lines(sorted(residuals, key=lambda r: (r.hardware, r.devices)))))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
