"""What Slurm says of jobs, and how they are cancelled: squeue and scancel alone, for not every cluster keeps accounts.
Of nodes sinfo says whether they have GPUs at all.

One question is for all jobs. Where Slurm does not answer nothing is known, and nobody is taken for gone.
"""

import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

ANSWERS_WITHIN_S = 5.0
"""A controller that is busy lets squeue wait. Nothing of a sweep goes on meanwhile, and it is asked again soon."""

CANCELS_WITHIN_S = 60.0
"""scancel may take longer: what it does not do stays undone."""

BEGINNING = frozenset(
    {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD"}
)
ON_NODES = frozenset({"RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING"})

GONE = "GONE"
"""The state of a job that Slurm does not know any more."""


@dataclass(frozen=True)
class JobState:
    """A job, as squeue has it."""

    state: str  # such as PENDING, RUNNING, TIMEOUT, NODE_FAIL
    reason: str = ""  # why it waits or has ended, such as Priority or TimeLimit
    nodes: str = ""

    @property
    def waits(self) -> bool:
        """Whether it is to begin, or to begin anew."""
        return self.state in BEGINNING

    @property
    def has_ended(self) -> bool:
        """Whether it never runs again."""
        return self.state not in BEGINNING | ON_NODES

    def __str__(self) -> str:
        told = self.state if self.reason in ("", "None") else f"{self.state}, {self.reason}"
        return f"{told} on {self.nodes}" if self.nodes and not self.waits else told


def job_states(ids: Iterable[str]) -> dict[str, JobState] | None:
    """Of each job its state; GONE where Slurm has forgotten it, and None where it does not answer."""
    asked = list(ids)
    if not asked:
        return {}
    words = ("squeue", "--noheader", "--states=all", f"--jobs={','.join(asked)}", "--format=%i|%T|%r|%N")
    listing = _said(words, ANSWERS_WITHIN_S)
    if listing is None:
        return None
    return {job: JobState(GONE) for job in asked} | states_in(listing)


def states_in(listing: str) -> dict[str, JobState]:
    """Of squeue's lines `id|state|reason|nodes`; other lines are passed over."""
    rows = (line.split("|") for line in listing.splitlines())
    return {row[0].strip(): JobState(*(cell.strip() for cell in row[1:])) for row in rows if len(row) == 4}


def cancel(ids: Iterable[str], name: str) -> str | None:
    """End jobs of that name, those that wait too; what there is to say against it. One that has ended is no matter."""
    asked = list(ids)
    if not asked or _said(("scancel", "--quiet", f"--name={name}", *asked), CANCELS_WITHIN_S) is not None:
        return None
    return f"scancel did not answer; end jobs {' '.join(asked)} yourself"


def offers_gpus(partition: str | None) -> bool | None:
    """Whether a node of a partition, or of the whole cluster, has GPUs that a job could ask for; None where Slurm does
    not say. Of which kind they are is told in each cluster's own words, if at all."""
    chosen = () if partition is None else (f"--partition={partition}",)
    listing = _said(("sinfo", "--noheader", "--format=%G", *chosen), ANSWERS_WITHIN_S)
    return "gpu" in listing if listing and listing.strip() else None


def _said(words: Sequence[str], within_s: float) -> str | None:
    """What one of Slurm's commands prints; of a single job that is forgotten squeue says that it is no valid id."""
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, errors="replace", timeout=within_s, start_new_session=True
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode == 0 or "Invalid job id" in done.stderr:
        return done.stdout
    return None
