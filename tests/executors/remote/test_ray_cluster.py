"""`executor=ray` on a real Ray cluster of several nodes on this machine, with GPUs that only Ray believes in.

The synthetic engine stands in for the pipeline: what is claimed is which trial runs where, and that none is lost.
"""

import json
import os
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import SYNTHETIC, kill, wait_for, zbench, zbench_here
from commands import start as start_zbench
from ray_nodes import TYPE, RayNodes

from zbench.record import Record
from zbench.store import read_records

pytest.importorskip("ray", reason="zbench[ray] is not installed")

MEASURED = (
    *SYNTHETIC[:3],
    "hardware=fake",
    "pipeline=zimage_tiny",
    "workload=single",
    "measure=quick",
    "measure.min_rounds=2",
    "measure.max_rounds=2",
    "measure.max_warmup_rounds=0",
    "measure.paired=false",
    "executor=ray",
    "executor.share_device=true",  # all nodes are one machine, whose GPUs have one name
    "sweep.name=s",
    "--allow-code",
)


@pytest.fixture(scope="module")
def nodes() -> Iterator[RayNodes]:
    """Two nodes with two GPUs each."""
    found = RayNodes(nodes=2, gpus=2)
    yield found
    found.close()


def start(nodes: RayNodes, cwd: Path, *words: str) -> "subprocess.Popen[str]":
    return start_zbench(cwd, "sweep", *MEASURED, f"executor.address={nodes.address}", *words)


def ended(process: "subprocess.Popen[str]") -> str:
    _, err = process.communicate(timeout=100)
    return err


def settings(count: int) -> list[str]:
    """Words for so many trials, beside their reference."""
    values = ",".join(f"{0.1 + 0.01 * i:.2f}" for i in range(count))
    return ["cache=none,dbcache", "cache.max_warmup_steps=4", f"cache.residual_diff_threshold={values}"]


def records(cwd: Path) -> list[Record]:
    path = cwd / "runs" / "s" / "records.jsonl"
    return read_records(path) if path.is_file() else []


def lines(cwd: Path) -> Counter[str]:
    """How often each trial is in the journal."""
    text = (cwd / "runs" / "s" / "records.jsonl").read_text()
    return Counter(json.loads(line)["trial_id"] for line in text.splitlines())


def placed_by(record: Record) -> dict[str, Any]:
    found: dict[str, Any] = record.environment["placed_by"]
    return found


def test_a_sweep_runs_on_all_nodes_and_each_record_says_where(nodes: RayNodes, tmp_path: Path) -> None:
    """A trial of two GPUs has both of one node. No actor and no worker stays."""
    process = start(nodes, tmp_path, *settings(3), "parallel.ulysses_size=1,2", "engine.options.round_s=0.2")
    err = ended(process)
    assert process.returncode == 0, err
    found = records(tmp_path)
    assert len(found) == 8 and {r.state for r in found} == {"COMPLETE"}, err
    assert {r.environment["node"] for r in found} == {"n1", "n2"}
    assert all(placed_by(r)["resources"]["GPU"] == r.trial.parallel.ulysses_size for r in found)
    judged = [r for r in found if not r.is_reference]
    assert all(r.measurement is not None and r.measurement.quality for r in judged)
    images = tmp_path / "runs" / "s" / "artifacts"
    assert all(list((images / r.trial_id).glob("*.png")) for r in found)
    assert nodes.live_actors() == 0 and not nodes.workers()


def test_a_node_that_goes_in_the_middle_takes_no_trial_along(nodes: RayNodes, tmp_path: Path) -> None:
    """Nor does one that has no zbench, which is left out."""
    bare, more = nodes.add(gpus=1, has_zbench=False), nodes.add(gpus=1)
    process = start(nodes, tmp_path, *settings(11), "engine.options.round_s=0.3")
    wait_for(lambda: any(r.environment.get("node") == "n4" for r in records(tmp_path)), 100)
    nodes.remove(more)
    err = ended(process)
    nodes.remove(bare)
    assert process.returncode == 0, err
    assert (
        "note: nodes of the cluster that cannot measure are left out (n3: " in err and "no zbench on this node" in err
    )
    assert {r.state for r in records(tmp_path)} == {"COMPLETE"} and len(records(tmp_path)) == 12
    assert set(lines(tmp_path).values()) == {1}, "none is lost, none measured twice"


def test_killed_the_same_command_goes_on_and_stopped_nothing_stays_on_the_cluster(
    nodes: RayNodes, tmp_path: Path
) -> None:
    words = (*settings(9), "engine.options.round_s=0.25", "executor.concurrent_trials=2")
    killed = start(nodes, tmp_path, *words)
    wait_for(lambda: len(records(tmp_path)) >= 2, 100)
    kill(killed)
    finished = {r.trial_id: r for r in records(tmp_path)}
    wait_for(lambda: nodes.live_actors() == 0 and not nodes.workers(), 30)

    again = start(nodes, tmp_path, *words)
    wait_for(lambda: len(records(tmp_path)) >= len(finished) + 2, 100)
    os.kill(again.pid, signal.SIGINT)
    err = ended(again)
    assert again.returncode == 130 and len(records(tmp_path)) < 10, err
    assert nodes.live_actors() == 0 and not nodes.workers()
    found = {r.trial_id: r for r in records(tmp_path)}
    assert set(lines(tmp_path).values()) == {1}, "none is measured twice"
    assert all(found[i] == record for i, record in finished.items())


def test_a_plan_knows_the_clusters_devices(nodes: RayNodes, tmp_path: Path) -> None:
    """Each node has two GPUs, so a trial may have two, and four are too many; none is refused for this machine."""
    words = ("plan", *MEASURED, f"executor.address={nodes.address}", "cache=none", "parallel.ulysses_size=1,2,4")
    done = zbench(tmp_path, *words)
    assert done.returncode == 0, done.stderr
    assert "4 devices: of hardware=fake 2 are here" in done.stdout + done.stderr
    missing = zbench(tmp_path, *words, "executor.accelerator=H100")
    assert missing.returncode == 2 and f"the cluster has {TYPE}" in missing.stderr.replace("it has", "the cluster has")


def test_no_cluster_there_is_one_clear_error(tmp_path: Path) -> None:
    done = zbench_here(tmp_path, "plan", *MEASURED, "cache=none", "executor.address=127.0.0.1:1")
    assert done.returncode == 2, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("zbench: error:")]
    assert "executor.address=127.0.0.1:1: no Ray cluster can be used there" in line


def test_without_ray_there_is_one_clear_error_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    done = zbench_here(tmp_path, "plan", *MEASURED, "cache=none")
    assert done.returncode == 2
    assert "executor=ray: needs the package ray: pip install 'zbench[ray]'" in done.stderr
