"""Sharding that is refused half way leaves cache-dit and the pipeline as they were."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
from cache_dit.attention.backends import native
from cache_dit.caching.cache_contexts.cache_manager import CachedContextManager
from factories import trial

from zbench.config import ParallelConfig
from zbench.engines.reference.sharded import Sharded
from zbench.engines.reference.sharded.mesh import Mesh
from zbench.errors import ConfigError
from zbench.methods.parallel import ParallelDims


def test_what_was_replaced_is_put_back() -> None:
    alone: dict[str, Any] = dict.fromkeys(("gather", "ulysses", "ring", "tp"))
    device = SimpleNamespace(device_type="cpu")
    mesh = SimpleNamespace(dims=ParallelDims(cfg=2), cfg="a group", device_mesh=device, **alone)
    own = CachedContextManager.similarity, native._native_attention_forward_op
    with pytest.raises(ConfigError, match=r"parallel\.cfg_size=2: without guidance"):
        Sharded(SimpleNamespace(), trial(parallel=ParallelConfig(cfg_size=2)), cast("Mesh", mesh))
    assert (CachedContextManager.similarity, native._native_attention_forward_op) == own
