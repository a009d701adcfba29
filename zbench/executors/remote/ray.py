"""`executor=ray`: a pool whose workers are actors of a Ray cluster.

Example: `zbench sweep … executor=ray executor.address=auto`. An actor has as many of a node's GPUs as its trials need;
it is one process with all the ranks that it starts, so Ray places it on one node. Actors are never restarted by Ray:
what becomes of a task is the pool's to decide. They end with the parent, however that dies.
"""

import importlib
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from zbench.config import ExecutorConfig, RayExecutorConfig
from zbench.errors import ConfigError, MachineError, one_line
from zbench.executors.remote import Heard, Lost
from zbench.executors.remote.pool import RemotePool
from zbench.hardware.nvml import Device
from zbench.streams import talk

PACKAGE = "pip install 'zbench[ray]'"

TAKE_S = 20.0
"""How long a call waits on a node for messages."""

UNAVAILABLE_S = 60.0
"""So long a node may be out of reach, by its network say, until it is lost."""

LATE_S = 30.0
"""After so long without a worker, and again, it is asked whether any node could have it: a queue may be long."""

SURVEY_S = 120.0
"""How long all nodes together may take to say what they have."""

ANSWER_S = 10.0
"""How long a cluster's address may take to answer."""

MOST_WORKERS = 1024

LOCAL = "local"
"""The address of a cluster that lives as long as the command."""

ALONE = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Variables of such a cluster, read when ray is imported: it reports to nobody and listens on the loopback address. Ray
takes no loopback address by `_node_ip_address`, and despite its name Linux heeds the second variable too."""

NODE_ID = "ray.io/node-id"
"""Ray's label of a node."""


@dataclass
class _Placed:
    """An actor, asked for or there."""

    actor: Any
    taking: Any  # the call that waits for its messages
    devices: int
    looked_s: float  # when it was asked for, or last sought
    hearing: list[Any] = field(default_factory=list)  # calls that bring it messages
    sent: int = 0
    received: int = 0
    unavailable_s: float | None = None  # since when


class RayCluster:
    """A connection to a cluster, and what is known of that; a plan's is the sweep's."""

    _open: "RayCluster | None" = None

    @classmethod
    def of(cls, config: ExecutorConfig) -> "RayCluster":
        """The one that is open, else a new one. Raises ConfigError without ray, and where no cluster answers."""
        assert isinstance(config, RayExecutorConfig)
        if cls._open is not None and cls._open._config != config:
            cls._open.close()
        if cls._open is None:
            cls._open = cls(config)
        return cls._open

    def __init__(self, config: RayExecutorConfig) -> None:
        if config.address == LOCAL:
            os.environ.update({name: os.environ.get(name, value) for name, value in ALONE.items()})
        try:
            self.ray = importlib.import_module("ray")
        except ImportError as error:
            raise ConfigError("executor", "ray", f"needs the package ray: {PACKAGE} ({one_line(error)})") from error
        self._config = config
        self.unfit: tuple[str, ...] = ()
        """Ids of nodes that get no workers, once they were surveyed."""
        self._is_own = not self.ray.is_initialized()
        if not self._is_own:
            _tell_what_is_open(str(self.ray.get_runtime_context().gcs_address), config)
            return
        with _signals_as_before():
            try:
                _hold_answering(config.address)
                self.ray.init(
                    address=config.address,
                    namespace="zbench",
                    log_to_driver=False,
                    logging_level="ERROR",
                    runtime_env=config.options.get("runtime_env"),
                    **({"include_dashboard": False} if config.address == LOCAL else {}),
                )
            except (ConnectionError, RuntimeError, ValueError, OSError, AssertionError) as error:
                problem = f"no Ray cluster can be used there ({one_line(error)[:200]})"
                way_out = "start one with `ray start --head`, name another, or give local for this machine alone"
                raise ConfigError("executor.address", config.address, f"{problem}; {way_out}") from error

    @cached_property
    def nodes(self) -> list[dict[str, Any]]:
        """Those that may have workers, each as Ray knows it. Raises ConfigError where there are none."""
        wanted, cores = self._config.accelerator, self._config.num_cpus
        alive = [node for node in self.ray.nodes() if node["Alive"]]
        typed = [node for node in alive if wanted is None or wanted in _types(node)]
        if not typed:
            there = ", ".join(sorted({each for node in alive for each in _types(node)})) or "no GPU"
            raise ConfigError(
                "executor.accelerator", wanted, f"the cluster has {there}; name what it has, or leave it out"
            )
        found = [node for node in typed if node["Resources"].get("CPU", 0) >= cores]
        if not found:
            most = max(node["Resources"].get("CPU", 0) for node in typed)
            raise ConfigError(
                "executor.num_cpus", cores, f"no node of the cluster has more than {most:g}; give that or less"
            )
        return found

    @cached_property
    def surveyed(self) -> list[dict[str, Any]]:
        """What each of the nodes says that it has (`ray_node.survey`); those that cannot say it get no workers.

        Raises ConfigError where none can.
        """
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as OnNode

        from zbench.executors.remote.ray_node import name_of, survey

        remote, asked = self.ray.remote(survey), {}
        for node in self.nodes:
            there = OnNode(node["NodeID"], soft=False)
            asked[remote.options(num_cpus=0, max_retries=0, scheduling_strategy=there).remote()] = node
        answered, late = self.ray.wait(list(asked), num_returns=len(asked), timeout=SURVEY_S)
        said, problems = [], {answer: f"no answer within {SURVEY_S:g} s" for answer in late}
        for answer in answered:
            try:
                said.append(given_to_ray(json.loads(self.ray.get(answer)), asked[answer]))
            except self.ray.exceptions.RayError as error:
                problems[answer] = _last_line(error)
        told = "; ".join(dict.fromkeys(f"{name_of(asked[a])}: {problem}" for a, problem in problems.items()))
        if not said:
            way_out = "install the same zbench on its nodes, with zbench[ray]"
            raise ConfigError("executor.address", self._config.address, f"no node can measure ({told}); {way_out}")
        if problems:
            talk(f"note: nodes of the cluster that cannot measure are left out ({told})")
        self.unfit = tuple(asked[answer]["NodeID"] for answer in problems)
        return said

    @property
    def devices(self) -> list[Device]:
        """See `OnACluster.known_devices`. What no driver names is called as Ray calls it."""
        most: dict[str, list[Device]] = {}
        named = [[Device(**device) for device in said["devices"]] for said in self.surveyed]
        named += [_as_ray_says(node) for node in self.nodes] if not any(named) else []
        for devices in named:
            by_name: dict[str, list[Device]] = {}
            for device in devices:
                by_name.setdefault(device.name, []).append(device)
            for name, own in by_name.items():
                most[name] = max(most.get(name, []), own, key=len)
        return [device for own in sorted(most.values(), key=len, reverse=True) for device in own]

    @property
    def environments(self) -> list[dict[str, Any]]:
        """Different ones of all nodes."""
        every = [environment for said in self.surveyed for environment in said["environments"]]
        return list({environment["fingerprint"]: environment for environment in every}.values())

    @property
    def capacity(self) -> int:
        """As many trials as there are GPUs, or nodes where there is no GPU."""
        if self._config.concurrent_trials is not None:
            return self._config.concurrent_trials
        fit = [node for node in self.nodes if self.surveyed and node["NodeID"] not in self.unfit]
        gpus = sum(int(node["Resources"].get("GPU", 0)) for node in fit)
        return min(gpus or len(fit), MOST_WORKERS)

    def close(self) -> None:
        """Disconnect, unless somebody else had connected this process; Ray ends what this process started there."""
        RayCluster._open = None
        if self._is_own:
            self.ray.shutdown()


class RayTransport:
    """See `Transport`."""

    def __init__(
        self, cluster: RayCluster, config: RayExecutorConfig, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._cluster, self._ray, self._config, self._clock = cluster, cluster.ray, config, clock
        self._placed: dict[str, _Placed] = {}

    @property
    def capacity(self) -> int:
        """See `Transport.capacity`."""
        return self._cluster.capacity

    @property
    def environments(self) -> list[dict[str, Any]]:
        """See `Transport.environments`."""
        return self._cluster.environments

    def start(self, worker: str, devices: int, begin: bytes, avoid: Sequence[str]) -> None:
        """See `Transport.start`."""
        from zbench.executors.remote.ray_node import NodeActor

        options: dict[str, Any] = {
            "num_cpus": self._config.num_cpus,
            "num_gpus": devices,
            "max_restarts": 0,
            "max_concurrency": 4,  # one call waits for messages while others bring some
            "scheduling_strategy": self._elsewhere(avoid, devices),
        }
        if self._config.accelerator is not None:
            options["accelerator_type"] = self._config.accelerator
        actor = self._ray.remote(NodeActor).options(**options).remote(begin, devices)
        self._placed[worker] = _Placed(actor, actor.take.remote(0, TAKE_S), devices, self._clock())

    def _elsewhere(self, avoid: Sequence[str], devices: int) -> Any:
        """On no node that cannot measure, and, where there are others, on none of these names.

        Ray's default fills one node after another: workers without a GPU would take turns on the CPU of the first.
        """
        from ray.util.scheduling_strategies import NodeLabelSchedulingStrategy, NotIn

        from zbench.executors.remote.ray_node import name_of

        ids = (
            [node["NodeID"] for node in self._ray.nodes() if node["Alive"] and name_of(node) in avoid] if avoid else []
        )
        hard = {NODE_ID: NotIn(*self._cluster.unfit)} if self._cluster.unfit else {}
        soft = {NODE_ID: NotIn(*ids)} if ids else {}
        if hard or soft:
            return NodeLabelSchedulingStrategy(hard=hard, soft=soft)
        return "DEFAULT" if devices else "SPREAD"

    def send(self, worker: str, message: bytes) -> None:
        """See `Transport.send`."""
        placed = self._placed.get(worker)
        if placed is not None:
            hear = placed.actor.hear.options(max_task_retries=-1)  # as long as the actor lives; it hears each once
            placed.hearing.append(hear.remote(placed.sent, message))
            placed.sent += 1

    def poll(self, wait_s: float) -> list[Heard | Lost]:
        """See `Transport.poll`."""
        calls = {call: worker for worker, p in self._placed.items() for call in (p.taking, *p.hearing)}
        if not calls:
            time.sleep(wait_s)
            return []
        try:
            if nowhere := self._nowhere():
                return nowhere
            if self._ray.wait(list(calls), num_returns=1, timeout=wait_s)[0]:
                ready, _ = self._ray.wait(list(calls), num_returns=len(calls), timeout=0)
                return [word for call in ready for word in self._ended(call, calls[call])]
        except self._ray.exceptions.RaySystemError as error:
            raise MachineError(f"executor=ray: the cluster is out of reach: {_last_line(error)}") from error
        return []

    def _nowhere(self) -> list[Heard | Lost]:
        """Of the workers that are late, those that no node can have: Ray itself would wait for such a node."""
        now_s = self._clock()
        late = {w: p for w, p in self._placed.items() if not p.received and now_s - p.looked_s > LATE_S}
        if not late:
            return []
        fit = [node for node in self._ray.nodes() if node["NodeID"] not in self._cluster.unfit]
        for placed in late.values():
            placed.looked_s = now_s
        return [
            Lost(w, f"no node of the cluster could have a worker with {_needs(p.devices, self._config)}")
            for w, p in late.items()
            if not any(could_have(p.devices, node, self._config) for node in fit)
        ]

    def _ended(self, call: Any, worker: str) -> list[Heard | Lost]:
        """What a call brought. Without a message that did not arrive the worker hears none of the later ones."""
        placed = self._placed[worker]
        if call == placed.taking:
            return self._taken(worker, placed)
        placed.hearing.remove(call)
        try:
            self._ray.get(call)
        except self._ray.exceptions.RayError as error:
            return [Lost(worker, _last_line(error))]
        return []

    def _taken(self, worker: str, placed: _Placed) -> list[Heard | Lost]:
        """Its messages; the next call waits for more."""
        errors = self._ray.exceptions
        messages: list[bytes] = []
        try:
            messages = self._ray.get(placed.taking)
            placed.unavailable_s = None
        except errors.ActorUnavailableError as error:
            now_s = self._clock()
            placed.unavailable_s = placed.unavailable_s or now_s
            if now_s - placed.unavailable_s > UNAVAILABLE_S:
                return [Lost(worker, _last_line(error))]
            time.sleep(0.1)
        except errors.RayError as error:
            return [Lost(worker, _last_line(error))]
        placed.received += len(messages)
        placed.taking = placed.actor.take.remote(placed.received, TAKE_S)
        return [Heard(worker, message) for message in messages]

    def kill(self, worker: str) -> None:
        """See `Transport.kill`."""
        placed = self._placed.pop(worker, None)
        if placed is not None:
            self._ray.kill(placed.actor)

    def close(self) -> None:
        """See `Transport.close`."""
        for worker in list(self._placed):
            self.kill(worker)
        self._cluster.close()


class RayExecutor(RemotePool):
    """See `Executor`."""

    def __init__(self, config: ExecutorConfig, log_folder: Path, *, allow_code: bool = False) -> None:
        """Raises ConfigError as `RayCluster.of` does."""
        assert isinstance(config, RayExecutorConfig)
        cluster = RayCluster.of(config)
        super().__init__(RayTransport(cluster, config), config, log_folder, allow_code=allow_code)

    @classmethod
    def known_devices(cls, config: ExecutorConfig) -> Sequence[Device]:
        """See `OnACluster.known_devices`."""
        return RayCluster.of(config).devices

    @classmethod
    def known_capacity(cls, config: ExecutorConfig) -> int:
        """See `OnACluster.known_capacity`."""
        return RayCluster.of(config).capacity


def given_to_ray(said: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    """A node's survey without the GPUs that it has and Ray has not: `ray start --num-gpus=2` gives it two."""
    gpus = int(node["Resources"].get("GPU", 0))
    return {"environments": said["environments"][: gpus + 1], "devices": said["devices"][:gpus]}


def could_have(devices: int, node: dict[str, Any], config: RayExecutorConfig) -> bool:
    """Whether a node, as `ray.nodes` has it, has room for a worker with so many GPUs when nobody else is there."""
    has = node["Resources"]
    fits = has.get("GPU", 0) >= devices and has.get("CPU", 0) >= config.num_cpus
    return bool(node["Alive"] and fits and config.accelerator in (None, *_types(node)))


def _needs(devices: int, config: RayExecutorConfig) -> str:
    """What a worker must have of one node."""
    gpus = [f"{devices} GPU{'s' * (devices > 1)}"] if devices else []
    typed = [] if config.accelerator is None else [f"executor.accelerator={config.accelerator}"]
    return ", ".join([*gpus, f"executor.num_cpus={config.num_cpus}", *typed])


def _as_ray_says(node: dict[str, Any]) -> list[Device]:
    """A node's GPUs by Ray's own count and the type that it gives them."""
    name = f"NVIDIA {(_types(node) or ['GPU'])[0]}"
    return [Device(index, name, None, None, None) for index in range(int(node["Resources"].get("GPU", 0)))]


def _types(node: dict[str, Any]) -> list[str]:
    """Of its GPUs, as Ray calls them."""
    return [key.partition(":")[2] for key in node["Resources"] if key.startswith("accelerator_type:")]


def _last_line(error: BaseException) -> str:
    """What Ray says is many lines, with a traceback of another process; the last one says what it was."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _tell_what_is_open(address: str, config: RayExecutorConfig) -> None:
    """Say which keys nobody heeds, where this process had a connection before zbench asked for one."""
    asked = {
        "address": config.address not in ("auto", address),
        "options.runtime_env": config.options.get("runtime_env"),
    }
    unheeded = " and ".join(f"executor.{key}" for key, differs in asked.items() if differs)
    if unheeded:
        talk(f"note: this process was connected to Ray at {address} before, which is used; not heeded: {unheeded}")


def _hold_answering(address: str) -> None:
    """Raise OSError where nobody listens at HOST:PORT, which Ray itself takes minutes to see."""
    host, _, port = address.rpartition(":")
    if host and "/" not in address and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), ANSWER_S).close()


@contextmanager
def _signals_as_before() -> Iterator[None]:
    """`ray.init` takes SIGTERM for itself."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
