"""The job file of `zbench emit … --to slurm`: a real Slurm takes it, and it runs the sweep."""

import os
import sys
from pathlib import Path

import pytest
from commands import environment, wait_for, zbench_here
from slurm_cluster import Cluster
from slurm_sweeps import WORDS, hold_whole

pytestmark = pytest.mark.timeout(120)

ASKED = ("executor=slurm", "executor.partition=low", "executor.time_min=5", "executor.cpus=1")


def emitted(folder: Path, *words: str) -> str:
    done = zbench_here(folder, "emit", *words, "--to", "slurm", "--out", "job")
    assert done.returncode == 0, done.stderr
    return str(folder / "job" / "slurm.sh")


@pytest.mark.parametrize(
    "more",
    [
        (),
        ("executor.gpu_type=null", "executor.mem_gib=1", "executor.options.comment='its $(id) \"a\" #b; id'"),
        ("executor.qos=normal", "executor.account=some one"),
    ],
)
def test_sbatch_takes_it(cluster: Cluster, tmp_path: Path, more: tuple[str, ...]) -> None:
    cluster.run("sbatch", "--test-only", emitted(tmp_path, *WORDS, *ASKED, *more))


def test_sbatch_takes_one_for_gpus(cluster: Cluster, tmp_path: Path) -> None:
    words = ("pipeline=zimage_turbo", "hardware=h100", "cache=none,dbcache", *ASKED)
    cluster.run("sbatch", "--test-only", emitted(tmp_path, *words))


def test_it_runs_the_sweep(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = emitted(tmp_path, *WORDS, *ASKED)
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    monkeypatch.chdir(tmp_path)
    cluster.run("sbatch", path)
    wait_for(lambda: not cluster.jobs(), 90)
    (log,) = tmp_path.glob("zbench-*.log")
    assert hold_whole(tmp_path), log.read_text()
