"""A sharded setting in cache-dit's words, and what has none; SGLang's are tested with its launch."""

import pytest
import yaml

from zbench.config import ParallelConfig
from zbench.methods.parallel import cache_dit_sharding


def test_one_device_is_not_sharded() -> None:
    assert cache_dit_sharding(ParallelConfig(), "native") is None


def test_cache_dit_is_given_its_own_degrees_and_options() -> None:
    parallel = ParallelConfig(tp_size=2, ulysses_size=3, ulysses_anything=True, text_encoder="tp", vae="tiled")
    told = cache_dit_sharding(parallel, "flash")
    assert told is not None and told.processes == 6 and not told.notes
    assert yaml.safe_load(told.yaml) == {
        "parallelism_config": {
            "tp_size": 2,
            "ulysses_size": 3,
            "ulysses_anything": True,
            "extra_parallel_modules": ["text_encoder", "vae"],
            "attention_backend": "flash",
        }
    }


def test_cache_dit_takes_what_it_is_given() -> None:
    """By its own loader, from the YAML."""
    load = pytest.importorskip("cache_dit.caching.load_configs").load_parallelism_config
    told = cache_dit_sharding(ParallelConfig(ulysses_size=2, ring_size=2), "native")
    assert told is not None
    config = load(yaml.safe_load(told.yaml))
    assert (config.ulysses_size, config.ring_size, config.attention_backend) == (2, 2, "native")


def test_what_cache_dit_lacks_is_said() -> None:
    told = cache_dit_sharding(ParallelConfig(gather_size=2, cfg_size=2, dp_size=2, vae="split"), "native")
    assert told is not None and told.yaml == "" and told.processes == 1
    keys = ("parallel.gather_size=2", "parallel.cfg_size=2", "parallel.dp_size=2", "parallel.vae=split")
    assert all(key in note for key, note in zip(keys, told.notes, strict=True))
