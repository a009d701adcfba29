"""How long the VAE's decode takes whole and split over ranks, how near both are to float32, and what of it is exchange.

`python benchmarks/split_decode.py [RANKS [SIDE]]`: the official VAE's geometry with random weights, bf16, an image of
SIDE x SIDE pixels. NCCL where there is a GPU a rank, gloo elsewhere. Prints one JSON line from rank 0.
"""

import json
import os
import sys
import time
from typing import Any

import torch
import torch.distributed as dist
from diffusers import AutoencoderKL
from ranks import run_ranks

from zbench.engines.reference.sharded.decode import split_decode
from zbench.engines.reference.sharded.profiling import measure_communication
from zbench.zimage.layout import preset_folder

REPEATS = 10


def measure(rank: int, ranks: int, side: int, folder: str) -> None:
    """One rank."""
    on_cuda = torch.cuda.device_count() >= ranks
    device = torch.device("cuda", rank) if on_cuda else torch.device("cpu")
    if on_cuda:
        torch.cuda.set_device(device)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    backend = "nccl" if on_cuda else "gloo"
    dist.init_process_group(backend, init_method=f"file://{folder}/meeting", rank=rank, world_size=ranks)
    vae, exact, latents = prepared(side, device)
    told: dict[str, Any] = {"ranks": ranks, "side": side, "device": device.type, "torch": torch.__version__}
    told["whole"] = figures(vae, exact, latents)
    handle = split_decode(vae, dist.group.WORLD)
    told["split"] = figures(vae, exact, latents)
    if on_cuda:
        seen = measure_communication(vae.decoder, lambda: decoded(vae, latents), rank)
        told["split"]["profiled_s"] = None if seen is None else vars(seen)
        vae.decoder.compile(fullgraph=True)
        told["split_compiled"] = figures(vae, exact, latents)
    handle.close()
    if rank == 0:
        print(json.dumps(told))
    dist.destroy_process_group()


def prepared(side: int, device: torch.device) -> tuple[Any, torch.Tensor, torch.Tensor]:
    """The VAE in bf16, what it decodes in float32, and the latents; equal on every rank."""
    torch.manual_seed(0)
    vae = AutoencoderKL.from_config(AutoencoderKL.load_config(preset_folder("zimage_turbo") / "vae")).eval().to(device)
    latents = torch.randn(1, vae.config.latent_channels, side // 8, side // 8).to(device, torch.bfloat16)
    vae = vae.bfloat16()
    exact = decoded(vae.float(), latents.float())
    return vae.bfloat16(), exact, latents


@torch.no_grad()
def decoded(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    """The image."""
    image: torch.Tensor = vae.decode(latents, return_dict=False)[0]
    return image


def figures(vae: Any, exact: torch.Tensor, latents: torch.Tensor) -> dict[str, float]:
    """Median and least ms of a decode, its peak memory, and its error relative to float32."""
    on_cuda = latents.is_cuda
    for _ in range(2):
        image = decoded(vae, latents)
    if on_cuda:
        torch.cuda.reset_peak_memory_stats()
    times_ms = []
    for _ in range(REPEATS if on_cuda else 2):
        dist.barrier()
        if on_cuda:
            torch.cuda.synchronize()
        began = time.perf_counter()
        image = decoded(vae, latents)
        if on_cuda:
            torch.cuda.synchronize()
        times_ms.append(1e3 * (time.perf_counter() - began))
    error = float((image.float() - exact).norm() / exact.norm())
    peak = torch.cuda.max_memory_allocated() / 2**30 if on_cuda else 0.0
    median = sorted(times_ms)[len(times_ms) // 2]
    return {"median_ms": median, "least_ms": min(times_ms), "peak_allocated_gib": peak, "rel_error": error}


if __name__ == "__main__":
    asked = [int(value) for value in sys.argv[1:3]]
    size = [*asked, *[2, 1024][len(asked) :]]
    sys.exit(run_ranks(measure, size[0], *size))
