"""Which processes of this machine serve an address, and which of its devices they hold; it starts and measures none."""

import socket
from urllib.parse import urlsplit

import psutil

from zbench.hardware.nvml import Nvml
from zbench.probes.watched import Watched

ELSEWHERE = "server_elsewhere"
"""The server is on another machine, so nothing of it can be seen."""

HIDDEN = "server_hidden"
"""It is on this machine, in a container say, and the kernel does not show whose its port is, or NVML what it holds."""

EVERYWHERE = ("0.0.0.0", "::")
PORTS = {"http": 80, "https": 443}


def watched_at(url: str, nvml: Nvml | None = None) -> Watched:
    """The processes that listen at `url` with all that they started, and the devices of which NVML shows their part.

    `nvml` stands in for the driver's library in tests.
    """
    at = urlsplit(url)
    addresses = _addresses(at.hostname or "")
    if not addresses & _own_addresses():
        return Watched((), unseen=ELSEWHERE)
    listening = _listening(addresses, at.port or PORTS.get(at.scheme, 0))
    if not listening:
        return Watched((), unseen=HIDDEN)
    pids = tuple(sorted(listening | _started_by(listening)))
    devices, hidden = _devices_of(set(pids), nvml)
    return Watched(pids, devices, unseen=HIDDEN if hidden else None)


def _addresses(host: str) -> set[str]:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return set()
    return {str(address[0]).partition("%")[0] for *_, address in found}


def _own_addresses() -> set[str]:
    try:
        every = psutil.net_if_addrs().values()
    except (psutil.Error, OSError):
        return {"127.0.0.1", "::1"}
    return {"127.0.0.1", "::1"} | {each.address.partition("%")[0] for addresses in every for each in addresses}


def _listening(addresses: set[str], port: int) -> set[int]:
    try:
        connections = psutil.net_connections(kind="tcp")
    except (psutil.Error, OSError):
        return set()
    return {
        each.pid
        for each in connections
        if each.status == psutil.CONN_LISTEN
        and each.pid
        and each.laddr
        and each.laddr.port == port
        and each.laddr.ip in (*addresses, *EVERYWHERE)
    }


def _started_by(pids: set[int]) -> set[int]:
    found: set[int] = set()
    for pid in pids:
        try:
            found |= {child.pid for child in psutil.Process(pid).children(recursive=True)}
        except psutil.Error:
            continue
    return found


def _devices_of(pids: set[int], nvml: Nvml | None) -> tuple[tuple[int, ...], bool]:
    """NVML's indices of the devices where it shows what `pids` hold; whether there are devices and none is theirs.

    What a server held before zbench came cannot be told by a difference, so a device that hides it is not watched.
    """
    asked = Nvml() if nvml is None else nvml
    indices = [device.index for device in asked.devices()]
    theirs = tuple(index for index in indices if any(asked.processes(index).get(pid) is not None for pid in pids))
    return theirs, bool(indices) and not theirs
