"""A kernel that the card here has not is refused before anything is loaded."""

from __future__ import annotations

import pytest
import torch
from factories import trial

from zbench.config import ComputeConfig
from zbench.engines.reference import pipeline
from zbench.engines.reference.pipeline import ReferencePipeline
from zbench.errors import ConfigError

FP8 = ComputeConfig(device="cuda", attention_backend="cudnn_fp8", rope="real")


class Loading(Exception):
    """What comes after the card was looked at."""


@pytest.fixture(autouse=True)
def _with_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    def loading(*_: object) -> None:
        raise Loading

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _device: "the card")
    monkeypatch.setattr(pipeline, "context_bytes", lambda _device: None)
    monkeypatch.setattr(pipeline, "_load", loading)


@pytest.mark.parametrize(
    ("capability", "hip", "its"), [((8, 9), None, "has 8.9"), ((8, 0), None, "has 8.0"), ((9, 4), "6.4", "names none")]
)
def test_attention_in_fp8_needs_hopper_or_later(
    capability: tuple[int, int], hip: str | None, its: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AMD counts otherwise: its 9.4 is no compute capability of NVIDIA's."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: capability)
    monkeypatch.setattr(torch.version, "hip", hip)
    says = rf"compute.attention_backend=cudnn_fp8: .* the card {its}; use compute.attention_backend=auto"
    with pytest.raises(ConfigError, match=says):
        ReferencePipeline().launch(trial(compute=FP8))


@pytest.mark.parametrize("capability", [(9, 0), (10, 3), (12, 0)])
def test_a_card_that_has_it_loads(capability: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: capability)
    with pytest.raises(Loading):
        ReferencePipeline().launch(trial(compute=FP8))


def test_other_kernels_ask_nothing_of_the_card() -> None:
    with pytest.raises(Loading):
        ReferencePipeline().launch(trial(compute=ComputeConfig(device="cuda", attention_backend="_native_cudnn")))
