"""What a trial is measured on, by the names that turns are taken under; it takes none (`hardware.turns`)."""

from collections.abc import Sequence
from urllib.parse import urlsplit

from zbench.config import ServedEngineConfig
from zbench.engines.openai_images.listening import ELSEWHERE, watched_at
from zbench.hardware.nvml import Device, Nvml
from zbench.hardware.turns import CPU, SERVER
from zbench.methods.parallel import ParallelDims
from zbench.trial import Trial


def places_of(trial: Trial, devices: Sequence[Device]) -> tuple[str, ...]:
    """The CPU; or of `devices`, in CUDA's order, as many as it shards over.

    Of a server that is there its address, and where it is on this machine also the GPUs that it is seen to hold; the
    CPU where none is seen. A server elsewhere has devices of its own.
    """
    if isinstance(trial.engine, ServedEngineConfig) and trial.engine.base_url is not None:
        return _of_a_server(trial.engine.base_url)
    if trial.compute.device != "cuda":
        return (CPU,)
    number = ParallelDims.of(trial.parallel).devices
    return tuple(devices[i].place if i < len(devices) else f"gpu-{i}" for i in range(number))


def _of_a_server(url: str) -> tuple[str, ...]:
    parts = urlsplit(url)
    address = f"{SERVER}{parts.hostname}-{parts.port or parts.scheme}"
    nvml = Nvml()
    watched = watched_at(url, nvml)
    if watched.unseen == ELSEWHERE:
        return (address,)
    held = [device.place for device in nvml.devices() if device.index in watched.devices]
    return (address, *(held or [CPU]))
