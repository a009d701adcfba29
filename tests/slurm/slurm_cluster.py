"""A real Slurm cluster on this machine alone: munged, slurmctld and a slurmd for each node, in a folder of its own.

Every node is this host under another name and port, with fake GPUs that are empty files. No cgroup and no accounting
database are needed, and nothing of the system's own Slurm is touched. Jobs run as who starts it, root or not.
"""

import getpass
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import psutil

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "scancel", "sinfo")

STARTS_WITHIN_S = 30.0
ENDS_WITHIN_S = 10.0

CONF = """
ClusterName=zbench
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={munge},cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core,CR_LLN
SlurmdParameters=config_overrides
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerParameters=batch_sched_delay=0,sched_interval=2,sched_min_interval=0,bf_interval=2
KillWait=5
MessageTimeout=10
SlurmdTimeout=30
InactiveLimit=0
MpiDefault=none
ReturnToService=1
GresTypes=gpu
MinJobAge=120
{nodes}
PartitionName=low Nodes=ALL Default=YES PriorityTier=1 MaxTime=60 State=UP
PartitionName=high Nodes=ALL PriorityTier=10 MaxTime=60 State=UP
"""
"""Jobs in `high` take nodes from those in `low`, which are then requeued. `cred_expire` is how long a requeued job
waits before it may start again (120 s where nobody says, 5 at least)."""

NODE = (
    "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=2 RealMemory=4000 Gres=gpu:{gpus} "
    "State=UNKNOWN"
)


class SlurmRefused(Exception):
    """What one of Slurm's commands says against it."""


class NoSlurm(Exception):
    """Why there is no cluster here."""


def _program(name: str) -> str:
    """Its path; daemons are in folders that a user's PATH may lack."""
    found = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"]))
    if found is None:
        raise NoSlurm(f"{name} is not installed: apt-get install slurmctld slurmd slurm-client munge")
    return found


def _free_ports(number: int) -> list[int]:
    held = [socket.socket() for _ in range(number)]
    for each in held:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in held]
    for each in held:
        each.close()
    return ports


class Cluster:
    """A cluster, once it was started; `with` sees that all its jobs and daemons are gone at the end."""

    def __init__(self, nodes: Iterable[str] = ("n1", "n2", "n3"), gpus: int = 1) -> None:
        """`nodes` by name, each with two cores and so many GPUs."""
        self.nodes, self._gpus = tuple(nodes), gpus
        self.folder = Path(tempfile.mkdtemp(prefix="zbench-slurm-"))
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        self._programs: dict[str, str] = {}

    @property
    def conf(self) -> Path:
        """For SLURM_CONF."""
        return self.folder / "slurm.conf"

    def start(self) -> None:
        """Have all its nodes idle. Raises NoSlurm where that does not come about, and leaves nothing."""
        try:
            self._programs = {name: _program(name) for name in PROGRAMS}
            self._start()
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _start(self) -> None:
        self._write()
        socket_path = self._munge
        self._run_daemon(
            "munged",
            ["--foreground", "--force", f"--socket={socket_path}", f"--key-file={self.folder / 'munge.key'}"]
            + [f"--{name}-file={self.folder / f'munge.{name}'}" for name in ("pid", "seed", "log")],
        )
        self._until(socket_path.exists, "munged gives no socket")
        self._run_daemon("slurmctld", ["-D", "-f", str(self.conf)])
        for name in self.nodes:
            self._run_daemon("slurmd", ["-D", "-N", name, "-f", str(self.conf)], name)
        self._until(self._is_idle, "its nodes do not become idle")

    def heal(self) -> None:
        """Wait until all nodes are idle, those that were set down included."""
        for name, state in self.states().items():
            if state.startswith(("down", "drain")):
                self.run("scontrol", "update", f"NodeName={name}", "State=RESUME")
        self._until(self._is_idle, "its nodes do not become idle again")

    def _is_idle(self) -> bool:
        return self.states() == dict.fromkeys(self.nodes, "idle")

    def _write(self) -> None:
        host, user = socket.gethostname(), getpass.getuser()
        port, *ports = _free_ports(1 + len(self.nodes))
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        (self.folder / "state").mkdir()
        lines, gres = [], []
        for name, node_port in zip(self.nodes, ports, strict=True):
            (self.folder / name).mkdir()
            lines.append(NODE.format(name=name, host=host, port=node_port, gpus=self._gpus))
            for index in range(self._gpus):
                gpu = self.folder / name / f"gpu{index}"
                gpu.touch()
                gres.append(f"NodeName={name} Name=gpu File={gpu}")
        fields = {"host": host, "user": user, "port": port, "munge": self._munge, "folder": self.folder}
        self.conf.write_text(CONF.format(nodes="\n".join(lines), **fields))
        (self.folder / "gres.conf").write_text("".join(f"{line}\n" for line in gres))

    @property
    def _munge(self) -> Path:
        return self.folder / "munge.socket"

    def run(self, *words: str) -> str:
        """One of Slurm's commands against this cluster; what it says. Raises SlurmRefused."""
        command = [self._programs.get(words[0], words[0]), *words[1:]]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=30)
        if done.returncode:
            raise SlurmRefused(f"{' '.join(words)}: {done.stderr}")
        return done.stdout

    @property
    def environment(self) -> dict[str, str]:
        """For programs that are to find this cluster."""
        return {**os.environ, "SLURM_CONF": str(self.conf)}

    def states(self) -> dict[str, str]:
        """Node to its state, such as idle; none before the controller answers."""
        try:
            said = self.run("sinfo", "--noheader", "--Node", "--format=%N %T")
        except (SlurmRefused, subprocess.TimeoutExpired):
            return {}
        return dict(line.split() for line in said.splitlines())

    def jobs(self) -> dict[str, str]:
        """Every job that has not ended, by id, with its state."""
        return dict(line.split() for line in self.run("squeue", "--noheader", "--format=%i %T").splitlines())

    def stop(self) -> None:
        """End all jobs and daemons, and remove the folder."""
        if "slurmctld" in self._daemons:
            try:
                for job in self.jobs():
                    self.run("scancel", job)
                self._until(lambda: not self.jobs(), "its jobs do not end")
            except (SlurmRefused, subprocess.TimeoutExpired, NoSlurm):
                pass  # what is left is killed below
        for name in [*self.nodes, "slurmctld", "munged"]:
            self._end(name)
        for pid in _processes_with({"SLURM_CONF": str(self.conf)}):
            if pid != os.getpid():
                _send(pid, signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _end(self, name: str) -> None:
        daemon = self._daemons.pop(name, None)
        if daemon is None:
            return
        daemon.terminate()
        try:
            daemon.wait(ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()

    def _run_daemon(self, program: str, words: list[str], name: str | None = None) -> None:
        """In the foreground, in a session of its own, so that Ctrl-C does not reach it."""
        with (self.folder / f"{name or program}.out").open("ab") as out:
            self._daemons[name or program] = subprocess.Popen(
                [self._programs[program], *words],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=self.environment,
                start_new_session=True,
            )

    def _until(self, holds: Callable[[], bool], problem: str) -> None:
        deadline = time.monotonic() + STARTS_WITHIN_S
        while not holds():
            gone = [name for name, daemon in self._daemons.items() if daemon.poll() is not None]
            if gone or time.monotonic() > deadline:
                said = f"{gone[0]} ended" if gone else problem
                raise NoSlurm(f"Slurm's daemons do not run here: {said}; {self._last_words(gone)}")
            time.sleep(0.1)

    def _last_words(self, gone: list[str]) -> str:
        said = []
        for name in gone or ["slurmctld", *self.nodes]:
            for ending in ("out", "log"):
                path = self.folder / f"{name}.{ending}"
                lines = path.read_text(errors="replace").splitlines() if path.exists() else []
                said += [re.sub(r"^\[\S+\] ", "", line) for line in lines if "error" in line or "fatal" in line][-2:]
        return " | ".join(said) or "they said nothing"


def _processes_with(variables: dict[str, str]) -> list[int]:
    """Ids of processes in whose environment all of these are."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if variables.items() <= process.environ().items():
                found.append(process.pid)
    return found


def _send(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
