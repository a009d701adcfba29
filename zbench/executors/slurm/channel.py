"""Where a job and its parent find each other's words: folders below the run's, which both see.

A run's spool has a folder for each parent process, with that one's pulse; in it each job has a folder, and in that each
worker that the job ever was. A job that Slurm requeues is another worker from then on.

    slurm/HOST-PID-TIME/pulse
                        ids            of all its jobs, a line each
                        jobs/          what submitit keeps, and what jobs print
                        job-1/now      the worker that it is to be next, such as 1
                              again    rewritten by a job that begins anew and is to be a worker that it was before
                              1/begin, taken, pulse, down/, up/
"""

import os
from dataclasses import dataclass
from pathlib import Path

from zbench.executors.remote.spool import opened
from zbench.files import replace_file, sync_folder

PULSE, IDS, LOGS = "pulse", "ids", "jobs"
NOW, AGAIN = "now", "again"


@dataclass(frozen=True)
class Channel:
    """Of one worker."""

    folder: Path

    @property
    def down(self) -> Path:
        """From the parent."""
        return self.folder / "down"

    @property
    def up(self) -> Path:
        """To the parent."""
        return self.folder / "up"

    @property
    def pulse(self) -> Path:
        """The worker's."""
        return self.folder / PULSE

    @property
    def begin(self) -> bytes:
        """The pool's first message. Raises OSError."""
        return (self.folder / "begin").read_bytes()

    @property
    def is_taken(self) -> bool:
        """Whether some process is this worker, or was it."""
        return self._taken.exists()

    @property
    def _taken(self) -> Path:
        return self.folder / "taken"

    def take(self) -> bool:
        """Whether this process is the first that is this worker. Raises OSError where the folder is gone."""
        try:
            os.close(os.open(self._taken, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError:
            return False
        return True


def next_channel(job: Path, number: int, begin: bytes) -> Channel:
    """The worker that a job is to be next, with all that the job looks for. Raises OSError."""
    channel = Channel(job / str(number))
    for folder in (channel.down, channel.up):
        os.close(opened(folder))
    replace_file(channel.folder / "begin", begin)
    channel.pulse.touch()
    (job / AGAIN).touch()
    replace_file(job / NOW, str(number).encode())
    sync_folder(job)
    return channel


def channel_now(job: Path) -> Channel:
    """The one that a job is to be. Raises OSError where the parent has removed it."""
    return Channel(job / (job / NOW).read_text())
