"""Which forwards become one launch."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from factories import trial

from zbench.config import OffloadConfig, ParallelConfig
from zbench.engines.reference.speeding import graphable
from zbench.trial import Trial

PIPE = SimpleNamespace(transformer="transformer", vae=SimpleNamespace(decoder="decoder"), text_encoder="text encoder")


@pytest.mark.parametrize(
    ("of", "modules"),
    [
        (trial(), ["transformer", "decoder", "text encoder"]),
        (replace(trial(), offload=OffloadConfig(mode="text_encoder")), ["transformer", "decoder"]),
        (replace(trial(), offload=OffloadConfig(mode="vae")), ["transformer", "text encoder"]),
        (replace(trial(), parallel=ParallelConfig(tp_size=2, text_encoder="tp")), ["transformer", "decoder"]),
    ],
)
def test_a_text_encoder_that_is_moved_or_sharded_stays_as_it_is(of: Trial, modules: list[str]) -> None:
    assert graphable(PIPE, of, "all") == modules
    assert graphable(PIPE, of, "stages") == modules[1:] and graphable(PIPE, of, "none") == []
