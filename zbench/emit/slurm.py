"""A sweep as a job file for Slurm: one job runs all of it, from where an earlier one was cut off; starts none."""

from collections.abc import Sequence

from zbench.config import SlurmExecutorConfig
from zbench.emit.emission import Emission, EmittedFile, commented
from zbench.executors.slurm.wishes import OPEN_MODE, header, wishes
from zbench.plugins import ALLOW_CODE
from zbench.sanitize import shell_line

FILE = "slurm.sh"

SIGNAL = "B:INT@{ahead_s}"
"""SIGINT asks a sweep to stop after its round; B: it goes to the file's own process, which zbench has become."""

GOES_ON = "what an earlier job measured is kept: submit this again, and it goes on"


def emit_slurm(
    words: Sequence[str],
    config: SlurmExecutorConfig,
    devices: int,
    *,
    config_dir: str | None = None,
    allow_code: bool = False,
) -> Emission:
    """The job that runs `zbench sweep` with these overrides; those of `executor` ask for the job. Of these
    `share_device` alone is in it.

    `devices`: GPUs of the trial that has most.
    """
    options = {
        **OPEN_MODE,
        "job-name": "zbench",
        "nodes": "1",
        "ntasks": "1",
        "output": "zbench-%j.log",
        "signal": SIGNAL.format(ahead_s=config.ahead_s),
        **wishes(config, devices),
    }
    flags = [*([] if config_dir is None else ["--config-dir", config_dir]), *([ALLOW_CODE] if allow_code else [])]
    local = ["executor=local", *(["executor.share_device=true"] if config.share_device else [])]
    line = shell_line(["exec", "zbench", "sweep", *flags, *without_executor(words), *local])
    notes = [
        f"one job runs the whole sweep, one trial after another; {GOES_ON}",
        f"{config.ahead_s} s before its time is up it stops after the round in progress (executor.ahead_s)",
        "sbatch takes your environment along, so zbench must be on the PATH where you submit it; runs/ and reports/ "
        "are made in that folder",
    ]
    if config.concurrent_trials != 1:
        notes.append(
            f"executor.concurrent_trials={config.concurrent_trials} is left out: zbench sweep executor=slurm starts so "
            "many jobs itself"
        )
    if not devices:
        notes.append("it asks for no GPU; a sweep of the cluster's names it: hardware=h100 or the like")
    text = f"#!/bin/bash\n{header(options)}\n{commented(*notes)}{line}\n"
    return Emission("slurm", (EmittedFile(FILE, text),), tuple(notes), f"sbatch --test-only {FILE}")


def names_executor(word: str) -> bool:
    """Whether an override chooses one."""
    return word.lstrip("+").partition("=")[0] == "executor"


def without_executor(words: Sequence[str]) -> list[str]:
    """Overrides of all other groups."""
    return [word for word in words if word.lstrip("+~").partition("=")[0].partition(".")[0] != "executor"]
