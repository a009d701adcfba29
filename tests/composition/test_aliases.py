"""A name that others use for a key is answered with zbench's."""

from dataclasses import fields

import pytest

from zbench.composition.aliases import ALIASES, LABELS, meant
from zbench.config import SCHEMAS, DBCacheConfig, OffloadConfig, ParallelConfig
from zbench.methods import offload
from zbench.methods.cache import method_of
from zbench.methods.cache.none import SGLANG
from zbench.methods.parallel import sglang_part


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("num_inference_steps", "pipeline.steps"),
        ("--num-inference-steps", "pipeline.steps"),
        ("R", "cache.residual_diff_threshold"),
        ("rdt", "cache.residual_diff_threshold"),
        ("Fn", "cache.Fn_compute_blocks"),
        ("MC", "cache.max_continuous_cached_steps"),
        ("W", "cache.max_warmup_steps"),
        ("w", "pipeline.width"),
        ("SGLANG_CACHE_DIT_WARMUP", "cache.max_warmup_steps"),
        ("size", "pipeline.height and pipeline.width"),
        ("height", "pipeline.height"),
        ("tp_size", "parallel.tp_size"),
        ("--kv-gather-degree", "parallel.gather_size"),
        ("dp", "parallel.dp_size"),
        ("cfg_parallel_size", "parallel.cfg_size"),
        ("sp_size", "parallel.ulysses_size, parallel.ring_size and parallel.gather_size"),
        ("num_gpus", "hardware.num_devices"),
        ("--enable-torch-compile", "compute=compiled"),
        ("dit_cpu_offload", "offload=dit"),
        ("model_path", "pipeline.weights"),
        ("seeds", "workload.seeds"),
    ],
)
def test_names_of_others_are_known(name: str, key: str) -> None:
    assert meant(name) == key


def test_what_nobody_says_is_not_guessed() -> None:
    assert meant("foo") is None and meant("grid") is None and meant("name") is None


def test_every_name_stands_for_what_is_there() -> None:
    known = {
        f"{group}.{item.name}" for group, schemas in SCHEMAS.items() for s in schemas.values() for item in fields(s)
    }
    for override in [*ALIASES.values(), *LABELS.values()]:
        for key in override.replace(" and ", ", ").split(", "):
            assert "=" in key or key in known | {"sweep.reports_dir"}, key


def test_every_flag_and_variable_that_zbench_writes_for_sglang_is_known() -> None:
    """Those of a subject that a config has; `--port` and the like have no key."""
    parts = [
        *[offload.sglang_part(OffloadConfig(mode=mode)) for mode in ("none", "group")],
        sglang_part(ParallelConfig(cfg_size=2, dp_size=2, gather_size=2)),
    ]
    flags = {flag for part in parts for flag in part.flags if flag.startswith("--")}
    cache = method_of(DBCacheConfig()).sglang_environment(1).environment
    assert flags and cache
    for name in [*flags, *cache]:
        assert meant(name) is not None or name == f"{SGLANG}ENABLED", name
