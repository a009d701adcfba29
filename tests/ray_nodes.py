"""A Ray cluster of several nodes on this machine, whose GPUs only Ray believes in; its nodes can import the synthetic
engine and see no driver."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import psutil
from commands import TESTS

TYPE = "FAKE"
RAY_ALONE = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_prestart_worker_first_driver": "0",  # no processes that nobody asked for
    "RAY_health_check_initial_delay_ms": "500",  # a node that is gone is missed soon
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_failure_threshold": "4",
}


class RayNodes:
    """`nodes` with so many GPUs each; the first is the head too."""

    def __init__(self, nodes: int, gpus: int, cpus: int = 8) -> None:
        self._temp = Path(tempfile.mkdtemp(prefix="zr-", dir="/tmp"))  # sockets take short paths alone
        (self._temp / "no_driver").mkdir()
        (self._temp / "no_driver" / "pynvml.py").write_text("raise ImportError('no driver in this test')\n")
        paths = [self._temp / "no_driver", TESTS.parent, TESTS / "engines", os.environ.get("PYTHONPATH", "")]
        (self._temp / "ray").mkdir()
        own = {"RAY_TMPDIR": str(self._temp)}
        self.variables = {**RAY_ALONE, **own, "PYTHONPATH": os.pathsep.join(map(str, filter(None, paths)))}
        before = {name: os.environ.get(name) for name in self.variables}
        os.environ.update(self.variables)
        try:
            from ray.cluster_utils import Cluster

            self._gpus, self._cpus, self._count = gpus, cpus, 0
            self.cluster: Any = Cluster()
            for _ in range(nodes):
                self.add()
        finally:
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def add(self, *, gpus: int | None = None, has_zbench: bool = True) -> Any:
        """One more node; `n1`, `n2` and so on. `gpus`: as many as the others have, by default."""
        self._count += 1
        before = dict(os.environ)
        os.environ.update(self.variables)
        if not has_zbench:
            without = self._temp / "no_zbench"
            (without / "zbench").mkdir(parents=True, exist_ok=True)
            (without / "zbench" / "__init__.py").write_text("raise ImportError('no zbench on this node')\n")
            os.environ["PYTHONPATH"] = os.pathsep.join([str(without), self.variables["PYTHONPATH"]])
        try:
            return self.cluster.add_node(
                num_cpus=self._cpus,
                num_gpus=self._gpus if gpus is None else gpus,
                resources={f"accelerator_type:{TYPE}": 1},
                node_name=f"n{self._count}",
                include_dashboard=False,
            )
        finally:
            os.environ.clear()
            os.environ.update(before)

    def remove(self, node: Any) -> None:
        """As a machine goes that loses its power."""
        self.cluster.remove_node(node, allow_graceful=False)

    def workers(self) -> list[psutil.Process]:
        """Processes of zbench that measure on one of the nodes."""
        found = []
        for process in psutil.process_iter(["cmdline"]):
            words = process.info["cmdline"] or []
            try:
                if "zbench.worker" in words and str(self._temp) in process.environ().get("PYTHONPATH", ""):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def live_actors(self) -> int:
        """Actors that the cluster has or waits to start."""
        table = self.cluster.global_state.actor_table(None, None, None)
        return sum(entry["State"] != "DEAD" for entry in table.values())

    def close(self) -> None:
        self.cluster.shutdown()
        shutil.rmtree(self._temp, ignore_errors=True)
