"""One of several processes that decode together, as `rank_start` runs it; it leaves what it saw.

Also the cases, so that the test makes the same ones in one process.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from diffusers import AutoencoderKL

from zbench.engines.reference.sharded import decode
from zbench.zimage.layout import preset_folder

SIZES = (2, 3, 4)
"""Of groups that decode together; all within one start of four processes."""

LATENTS = {"square": (1, 16, 16), "odd": (1, 11, 6), "wide": (2, 5, 24), "fewest": (1, 4, 8)}
"""Batch, rows and columns."""


def four_levels() -> Any:
    """A small decoder of the official one's shape: four levels, attention in the middle, and a post_quant_conv."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        blocks = ["UpDecoderBlock2D"] * 4
        vae = AutoencoderKL(
            down_block_types=["DownEncoderBlock2D"] * 4,
            up_block_types=blocks,
            block_out_channels=[8, 8, 16, 16],
            layers_per_block=1,
            latent_channels=4,
            norm_num_groups=4,
            use_post_quant_conv=True,
        ).eval()
        for parameter in vae.decoder.parameters():  # norms that do more than divide, biases that are not nothing
            parameter.data += 0.1 * torch.randn_like(parameter)
        return vae


def tiny() -> Any:
    return AutoencoderKL.from_pretrained(preset_folder("zimage_tiny") / "vae").eval()


def latents(vae: Any, case: str) -> torch.Tensor:
    """Their mean is far from zero, as their spread is not."""
    batch, rows, columns = LATENTS[case]
    noise = torch.Generator().manual_seed(rows * columns)
    return 3 + torch.randn((batch, vae.config.latent_channels, rows, columns), generator=noise)


def cases() -> Iterator[tuple[str, Any, torch.Tensor]]:
    """A name, a VAE and its latents in their dtype."""
    vae = four_levels()
    for case in LATENTS:
        yield f"four_levels-{case}", vae, latents(vae, case)
    yield "four_levels_sliced-wide", vae, latents(vae, "wide")
    yield "tiny-odd", (own := tiny()), latents(own, "odd")
    yield "four_levels_bf16-odd", four_levels().bfloat16(), latents(vae, "odd").bfloat16()


@torch.no_grad()
def decoded(name: str, vae: Any, whole: torch.Tensor) -> torch.Tensor:
    """By one process, or by all where `vae` is split."""
    vae.use_slicing = "sliced" in name
    image: torch.Tensor = vae.decode(whole, return_dict=False)[0]
    return image


class Seen:
    """The largest activation that a module took or gave, and how many collectives there were."""

    def __init__(self, vae: Any) -> None:
        self.largest, self.collectives = 0, 0
        self._ops = decode.collectives
        decode.collectives = self
        inside = [module for module in vae.decoder.modules() if module is not vae.decoder]  # that one gives all of it
        self._hooks = [module.register_forward_hook(self._look) for module in inside]

    def _look(self, _module: Any, args: tuple[Any, ...], output: Any) -> None:
        self.largest = max(self.largest, *(t.numel() for t in (*args, output) if isinstance(t, torch.Tensor)))

    def all_gather_into_tensor(self, *args: Any) -> Any:
        self.collectives += 1
        return self._ops.all_gather_into_tensor(*args)

    def wait_tensor(self, begun: Any) -> Any:
        return self._ops.wait_tensor(begun)

    def close(self) -> None:
        decode.collectives = self._ops
        for hook in self._hooks:
            hook.remove()


def traces(vae: Any) -> list[str]:
    """What of a split can be seen of a decoder that should have none."""
    found = []
    for name, module in vae.decoder.named_modules():
        if module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module):
            found.append(f"{name} is hooked")
        if isinstance(module, torch.nn.Conv2d) and module.kernel_size == (3, 3) and module.padding != (1, 1):
            found.append(f"{name} pads {module.padding}")
        if type(getattr(module, "processor", None)).__module__ == decode.__name__:
            found.append(f"{name} has our processor")
    return found


def main(folder: Path, rank: int, ranks: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=ranks)
    groups = {size: dist.new_group(list(range(size))) for size in SIZES}
    for size in SIZES:
        if rank >= size:
            continue
        for name, vae, whole in cases():
            handle = decode.split_decode(vae, groups[size])
            seen = Seen(vae)
            image = decoded(name, vae, whole)
            seen.close()
            handle.close()
            np.save(folder / f"{name}-{size}-{rank}.npy", image.float().numpy())
            told = {"largest": seen.largest, "collectives": seen.collectives, "traces": traces(vae)}
            (folder / f"{name}-{size}-{rank}.json").write_text(json.dumps(told))
    dist.barrier()
    dist.destroy_process_group()
