"""A sweep of the synthetic engine on Slurm, and what must hold of its journal whatever happened to its jobs."""

import re
from collections import Counter
from pathlib import Path

from commands import SYNTHETIC

from zbench.composition import overlay
from zbench.record import Record
from zbench.store import read_records

GRID = ("cache=dbcache", "cache.max_warmup_steps=2,4", "cache.residual_diff_threshold=0.12,0.24")
QUICK = ("measure.min_rounds=2", "measure.max_rounds=2", "measure.max_warmup_rounds=0", "measure.paired=false")
TRIALS = 5  # 2 × 2 settings and the baseline

ON_SLURM = ("executor=slurm", "executor.partition=low", "executor.share_device=true", "executor.concurrent_trials=2")
SOON = ("executor.poll_s=1", "executor.silent_s=6")
WORDS = (*SYNTHETIC, *GRID, *QUICK, "sweep.name=s")


def sweep(*more: str) -> list[str]:
    """The command; `more` takes the place of its own words for the same keys."""
    flags, words = SYNTHETIC[:2], [*WORDS[2:], *ON_SLURM, *SOON]
    return ["sweep", *flags, *overlay(words, more)]


ENDS_WITHIN_S = 30


def slow(round_s: float) -> str:
    """So long lasts a request; a trial has two."""
    return f"engine.options.round_s={round_s}"


def records(folder: Path) -> list[Record]:
    journal = folder / "runs" / "s" / "records.jsonl"
    return read_records(journal) if journal.exists() else []


def hold_whole(folder: Path) -> list[Record]:
    """Every trial was measured, and is in the journal once."""
    found = records(folder)
    counts = Counter(record.trial_id for record in found)
    assert len(counts) == TRIALS and set(counts.values()) == {1}
    assert {record.state for record in found} == {"COMPLETE"}
    return found


def jobs_of(found: list[Record]) -> set[str]:
    """Ids of the jobs in which trials were measured."""
    return {record.environment["placed_by"]["slurm_job"] for record in found}


def said_of_workers(folder: Path) -> str:
    """All that the logs of the run hold."""
    return "\n".join(path.read_text() for path in sorted((folder / "runs" / "s" / "logs").glob("*.log")))


def requeued(folder: Path) -> list[str]:
    """Ids of jobs that were seen to be requeued."""
    return re.findall(r"Slurm requeued job (\d+)", said_of_workers(folder))
