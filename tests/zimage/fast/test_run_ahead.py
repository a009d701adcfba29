"""A pipeline whose host runs ahead makes the same images, from the same noise and the same tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from diffusers.hooks import group_offloading
from diffusers.models import modeling_utils
from torch import Tensor

from zbench.zimage.fast import ahead
from zbench.zimage.fast.ahead import run_ahead
from zbench.zimage.fast.transfer import received, sent

CPU = torch.device("cpu")


@pytest.fixture
def ran(tiny: Any) -> Iterator[Any]:
    undo = run_ahead(tiny)
    yield tiny
    undo()


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """What was sent to a device."""
    made: list[Tensor] = []
    monkeypatch.setattr(ahead, "sent", lambda tensor, device: made.append(tensor) or sent(tensor, device))
    return made


def noise(pipe: Any, device: torch.device = CPU, generator: Any = None, latents: Tensor | None = None) -> Tensor:
    made: Tensor = pipe.prepare_latents(2, 16, 64, 96, torch.float32, device, generator, latents)
    return made


def generators() -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in (3, 4)]


def image(pipe: Any, guidance: float) -> Tensor:
    made: Tensor = pipe(
        ["a red circle", "a blue square"],
        height=64,
        width=64,
        num_inference_steps=2,
        guidance_scale=guidance,
        generator=generators(),
        output_type="pt",
    ).images
    return made


@pytest.mark.parametrize("guidance", [0.0, 2.0])
def test_images_are_the_same_to_the_bit(tiny: Any, guidance: float) -> None:
    own = image(tiny, guidance)
    undo = run_ahead(tiny)
    made = [image(tiny, guidance) for _ in range(2)]
    undo()
    assert torch.equal(made[0], own) and torch.equal(made[1], own)


@pytest.mark.parametrize("several", [True, False])
def test_noise_is_drawn_on_the_host_and_sent(tiny: Any, copies: list[Tensor], several: bool) -> None:
    drawn = generators() if several else generators()[0]
    own = noise(tiny, generator=generators() if several else generators()[0])
    undo = run_ahead(tiny)
    made = noise(tiny, torch.device("meta"), drawn)
    undo()
    assert made.device.type == "meta" and made.shape == own.shape
    assert len(copies) == 1 and torch.equal(copies[0], own)


def test_latents_that_are_given_are_not_drawn(ran: Any, copies: list[Tensor]) -> None:
    given = torch.ones(2, 16, 8, 12)
    assert noise(ran, generator=generators(), latents=given) is given and not copies


def test_without_a_generator_noise_is_the_device_s_own(ran: Any, copies: list[Tensor]) -> None:
    assert noise(ran).shape == (2, 16, 8, 12) and not copies


def test_the_scheduler_s_tables_are_made_on_the_host_and_sent(tiny: Any, copies: list[Tensor]) -> None:
    scheduler, sigmas = tiny.scheduler, [1.0, 0.5, 0.25]
    scheduler.set_timesteps(sigmas=sigmas, mu=1.0, device=CPU)
    own = [scheduler.timesteps, scheduler.sigmas]
    undo = run_ahead(tiny)
    scheduler.set_timesteps(sigmas=sigmas, mu=1.0, device="meta")
    undo()
    assert scheduler.timesteps.device.type == scheduler.sigmas.device.type == "meta"
    assert all(torch.equal(copy, table) for copy, table in zip(copies, own, strict=True))
    scheduler.set_timesteps(3, mu=1.0)  # no device: the host's, as ever
    assert scheduler.sigmas.device == CPU


@pytest.mark.parametrize(
    ("owner", "name"), [(group_offloading, "_get_group_onload_device"), (modeling_utils, "get_parameter_dtype")]
)
def test_where_and_in_what_modules_compute_is_asked_once(
    tiny: Any, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str
) -> None:
    looks: list[Any] = []
    own = getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda module: looks.append(module) or own(module))
    image(tiny, 0.0)
    every_time = len(looks)
    undo = run_ahead(tiny)
    looks.clear()
    image(tiny, 0.0)
    assert 0 < len(looks) <= every_time
    looks.clear()
    image(tiny, 0.0)
    assert not looks
    undo()
    image(tiny, 0.0)
    assert len(looks) == every_time


def test_undone_all_is_of_its_own_class_again(tiny: Any) -> None:
    parts = (tiny, tiny.transformer, tiny.vae)
    own = [type(part) for part in parts]
    undo = run_ahead(tiny)
    for part, its_own in zip(parts, own, strict=True):
        assert isinstance(part, its_own) and type(part).__name__ == its_own.__name__ and type(part) is not its_own
    undo()
    undo()
    assert [type(part) for part in parts] == own
    assert "prepare_latents" not in vars(tiny) and "set_timesteps" not in vars(tiny.scheduler)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_what_comes_from_a_gpu_has_arrived() -> None:
    there = sent(torch.arange(2**20), "cuda")
    assert torch.equal(received(there * 2), torch.arange(2**20) * 2)
