"""Ranks that make one image together: their process group, and a sub-group for each degree; it shards nothing itself.

A replica is a world of its own. Ranks meet over a file and speak over the loopback interface, so no port is opened
for others. Along one dimension of the mesh ranks are numbered as `ParallelDims` says: cfg, gather, ring, ulysses, tp.
"""

from __future__ import annotations

import os
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed import ProcessGroup
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from zbench.engines.reference.ranks import RankWorld
from zbench.methods.parallel import ParallelDims

DIMENSIONS = ("cfg", "gather", "ring", "ulysses", "tp")
"""Of the device mesh, the last running fastest."""

INTERFACES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
LOOPBACK = "lo"

NO_REGISTERING = ("NCCL_GRAPH_REGISTER", "0")
"""NCCL else registers the buffers of an exchange that is captured into a CUDA graph with the other GPUs: two H200 that
captured Ulysses' stood still there for 200 s, and went on at once without."""

PATIENCE = timedelta(minutes=10)
"""How long a collective waits for a rank, and ranks for one another at the start."""


class Mesh:
    """One rank's place among those of its replica. A group is None where its degree is 1."""

    def __init__(self, dims: ParallelDims, device_mesh: DeviceMesh) -> None:
        """torch's default process group is the replica's."""
        self.dims = dims
        self.device_mesh = device_mesh
        """Of the dimensions `DIMENSIONS`, all there, also those of degree 1."""
        self.rank = dist.get_rank()
        self.world_size = dist.get_world_size()
        self.replica_group: ProcessGroup = dist.group.WORLD  # type: ignore[assignment]  # it is initialised
        self.cfg = self._group("cfg")
        self.gather = self._group("gather")
        self.ring = self._group("ring")
        self.ulysses = self._group("ulysses")
        self.tp = self._group("tp")

    def part(self, *dimensions: str) -> DeviceMesh:
        """The mesh of these dimensions alone, in which this rank lies."""
        return self.device_mesh[dimensions if len(dimensions) > 1 else dimensions[0]]

    def whole(self) -> DeviceMesh:
        """All ranks of the replica in one dimension."""
        return self.device_mesh._flatten("replica")

    def place(self, dimension: str) -> int:
        """This rank's number along a dimension, from 0."""
        return int(self.device_mesh.get_local_rank(dimension))

    def leave(self) -> None:
        """Destroy all groups; the mesh is of no use any more."""
        dist.destroy_process_group()

    def _group(self, dimension: str) -> ProcessGroup | None:
        return self.device_mesh.get_group(dimension) if getattr(self.dims, dimension) > 1 else None


def join(world: RankWorld, device: str) -> Mesh:
    """Meet the other ranks of the replica. `device` is `cpu`, or `cuda` with its number, which torch then computes on.

    Raises torch's DistError where ranks do not come within `PATIENCE`.
    """
    place = torch.device(device)
    for interface in INTERFACES:
        os.environ.setdefault(interface, LOOPBACK)
    os.environ.setdefault(*NO_REGISTERING)
    if place.type == "cuda":
        torch.cuda.set_device(place)
    ranks = world.dims.ranks
    store = dist.FileStore(str(world.meeting / f"replica_{world.replica}"), ranks)  # type: ignore[attr-defined]
    dist.init_process_group(
        "nccl" if place.type == "cuda" else "gloo",
        store=store,
        rank=world.rank_in_replica,
        world_size=ranks,
        timeout=PATIENCE,
    )
    shape = tuple(getattr(world.dims, name) for name in DIMENSIONS)
    return Mesh(world.dims, init_device_mesh(place.type, shape, mesh_dim_names=DIMENSIONS))
