"""nvidia-smi beside a span: samples of memory and power that it writes by itself, read back and summed up here."""

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from zbench.probes.integral import integral

COLUMNS = ("timestamp", "memory.used", "power.draw")
INTERVAL_MS = 50
STARTUP_S = 30.0
MIB = 2**20


class SmiError(Exception):
    """nvidia-smi did not do what it was asked for."""


@dataclass(frozen=True)
class Sample:
    """One line of nvidia-smi; None where it says `[N/A]`."""

    at_s: float  # since the epoch
    used_bytes: int | None
    power_w: float | None


@contextmanager
def sampling(uuid: str | None) -> Iterator[Path]:
    """nvidia-smi at work on one device (all of them without its UUID) from its first line on; where it writes to.

    Raises SmiError with its words if it ends by itself or writes nothing.
    """
    query = [
        "nvidia-smi",
        f"--query-gpu={','.join(COLUMNS)}",
        "--format=csv,noheader,nounits",
        "-lms",
        str(INTERVAL_MS),
    ]
    if uuid is not None:
        query.append(f"--id={uuid}")
    with tempfile.TemporaryDirectory() as folder:
        out, talk = Path(folder) / "samples.csv", Path(folder) / "talk"
        with out.open("w") as stdout, talk.open("w") as stderr:  # files: a pipe that nobody reads would fill
            smi = subprocess.Popen(query, stdout=stdout, stderr=stderr, env={**os.environ, "TZ": "UTC0"})
        try:
            _await_samples(smi, out, talk)
            yield out
            if smi.poll() is not None:
                raise SmiError(f"nvidia-smi ended early: {_last_words(out, talk)}")
        finally:
            smi.terminate()
            smi.wait()


def read_samples(text: str) -> list[Sample]:
    """Lines of COLUMNS in MiB and watts, in time order; a line that is cut off or says something else is left out."""
    found = [_sample(line) for line in text.splitlines()]
    return sorted((sample for sample in found if sample is not None), key=lambda sample: sample.at_s)


def peak_bytes(samples: Sequence[Sample], began_s: float, ended_s: float) -> int | None:
    """The most in use at any time of a span; None without a sample of it."""
    return max((s.used_bytes for s in _within(samples, began_s, ended_s) if s.used_bytes is not None), default=None)


def joules(samples: Sequence[Sample], began_s: float, ended_s: float) -> float | None:
    """Power integrated over a span; the ends without samples get the mean of the rest. None under two samples."""
    points = [(s.at_s, s.power_w) for s in _within(samples, began_s, ended_s) if s.power_w is not None]
    whole = integral(points)
    if whole is None or points[-1][0] <= points[0][0]:
        return None
    return whole * (ended_s - began_s) / (points[-1][0] - points[0][0])


def _within(samples: Sequence[Sample], began_s: float, ended_s: float) -> list[Sample]:
    return [s for s in samples if began_s <= s.at_s <= ended_s]


def _sample(line: str) -> Sample | None:
    cells = [cell.strip() for cell in line.split(",")]
    try:
        at, used, power = cells
        at_s = datetime.strptime(at, "%Y/%m/%d %H:%M:%S.%f").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None
    used_mib, power_w = _number(used), _number(power)
    return Sample(at_s, None if used_mib is None else round(used_mib * MIB), power_w)


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def _await_samples(smi: "subprocess.Popen[bytes]", out: Path, talk: Path) -> None:
    deadline = time.monotonic() + STARTUP_S
    while not read_samples(out.read_text(errors="replace")):
        if smi.poll() is not None:
            raise SmiError(f"nvidia-smi ended with {smi.returncode}: {_last_words(out, talk)}")
        if time.monotonic() > deadline:
            raise SmiError(f"nvidia-smi wrote no sample within {STARTUP_S:g} s: {_last_words(out, talk)}")
        time.sleep(0.05)


def _last_words(out: Path, talk: Path) -> str:
    said = talk.read_text(errors="replace") + out.read_text(errors="replace")
    return " ".join(said.split())[-300:] or "it said nothing"
