"""What Ray runs on a node: an actor around a `NodeAtWork`, and a function that says what the node has.

An actor is asked for messages by a call that waits until there are some, so that nobody polls a machine that measures.
Messages are kept until the next call says that they came. This module is imported on nodes, where ray is; the parent
hands it to Ray and calls nothing of it.
"""

import json
import os
import socket
import threading
from collections import deque
from contextlib import suppress
from dataclasses import asdict
from typing import Any

import psutil
import ray

from zbench.executors.remote.node import NodeAtWork
from zbench.hardware.detect import environment_on
from zbench.hardware.nvml import Nvml

SHOWN = "CUDA_VISIBLE_DEVICES"
THREADS = "OMP_NUM_THREADS"


class NodeActor:
    """Ray calls each method in a thread of its own, and in no order."""

    def __init__(self, begin: bytes, devices: int) -> None:
        """`begin` is the pool's first message; with no devices its workers see none."""
        _as_without_ray(devices)
        self._has_news = threading.Condition()
        self._said: deque[bytes] = deque()
        self._dropped = 0  # messages that were received, and are kept no longer
        self._hearing = threading.Lock()
        self._heard: dict[int, bytes] = {}  # that came before their turn
        self._next = 0
        context = ray.get_runtime_context()
        about = {
            "node_id": context.get_node_id(),
            "resources": context.get_assigned_resources(),
            "ray": ray.__version__,
        }
        self._node = NodeAtWork(begin, self._say, name=node_name(context.get_node_id()), about={"placed_by": about})
        threading.Thread(target=self._node.work, name="zbench-node", daemon=True).start()

    def hear(self, number: int, message: bytes) -> None:
        """Message `number` of the pool, from 0; it may come again where Ray lost the answer."""
        with self._hearing:
            if number >= self._next:
                self._heard[number] = message
            while self._next in self._heard:
                self._node.hear(self._heard.pop(self._next))
                self._next += 1

    def take(self, received: int, wait_s: float) -> list[bytes]:
        """All that was said after the first `received` messages, which came; none where `wait_s` passes without."""
        with self._has_news:
            while self._dropped < received:
                self._said.popleft()
                self._dropped += 1
            self._has_news.wait_for(lambda: bool(self._said), wait_s)
            return list(self._said)

    def _say(self, message: bytes) -> None:
        with self._has_news:
            self._said.append(message)
            self._has_news.notify_all()  # a call may wait yet whose caller is gone


def survey() -> bytes:
    """JSON of what this node has: `environments` of a worker with no GPU, with one, and so on, and its `devices`."""
    devices = Nvml().devices()
    found: dict[str, Any] = {
        "environments": [environment_on(devices[:count]).to_dict() for count in range(len(devices) + 1)],
        "devices": [asdict(device) for device in devices],
    }
    return json.dumps(found).encode()


def node_name(node_id: str) -> str:
    """What a node is called in Ray; its host name where it has only an address there."""
    nodes = ray.nodes()
    node: dict[str, Any] = next((each for each in nodes if each["NodeID"] == node_id), {})
    return name_of(node) or socket.gethostname()


def name_of(node: dict[str, Any]) -> str:
    """The same of an entry of `ray.nodes()`."""
    name = node.get("NodeName", "")
    return str(node.get("NodeManagerHostname", name) if name == node.get("NodeManagerAddress") else name)


def _as_without_ray(devices: int) -> None:
    """Undo what Ray sets for its workers, and what a measurement would show: few threads and a low priority.

    They become those of whoever started Ray. A priority can only be raised by root; else `ray start` needs
    RAY_worker_niceness=0. Ray hides the other GPUs from a worker that has some, but none from a worker without.
    """
    with suppress(psutil.Error, OSError):
        raylet = psutil.Process().parent() or psutil.Process()
        if THREADS not in raylet.environ():
            os.environ.pop(THREADS, None)
        os.setpriority(os.PRIO_PROCESS, 0, raylet.nice())
    if not devices:
        os.environ[SHOWN] = ""
