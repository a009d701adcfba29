"""Topologies and settings that ranks run, for the test and for its rank processes: what each is, by name."""

from dataclasses import replace
from typing import Any

from factories import TINY, trial

from zbench.config import CacheConfig, ComputeConfig, DBCacheConfig, OffloadConfig, ParallelConfig, SCMConfig
from zbench.trial import Trial

PROMPT = "a large red circle on a white background"
NEGATIVE = "blurred"
SEED = 7
SMALL = replace(TINY, height=192, width=128, steps=6)  # 96 image tokens and 32 of text: 128 do not divide by 3

TOPOLOGIES: dict[str, dict[str, int]] = {
    "alone": {},
    "tp2": {"tp_size": 2},
    "ulysses2": {"ulysses_size": 2},
    "ring2": {"ring_size": 2},
    "gather2": {"gather_size": 2},
    "gather3": {"gather_size": 3},
    "gather4": {"gather_size": 4},
    "ulysses2_ring2": {"ulysses_size": 2, "ring_size": 2},
    "ulysses4": {"ulysses_size": 4},
    "ring4": {"ring_size": 4},
    "tp4": {"tp_size": 4},
    "ulysses3": {"ulysses_size": 3},
    "tp3": {"tp_size": 3},
    "tp2_ulysses2": {"tp_size": 2, "ulysses_size": 2},
    "tp2_ring2": {"tp_size": 2, "ring_size": 2},
    "tp2_gather2": {"tp_size": 2, "gather_size": 2},
    "ulysses2_gather2": {"ulysses_size": 2, "gather_size": 2},
    "cfg2": {"cfg_size": 2},
    "cfg2_tp2": {"cfg_size": 2, "tp_size": 2},
    "cfg2_ulysses2": {"cfg_size": 2, "ulysses_size": 2},
    "cfg2_ring2": {"cfg_size": 2, "ring_size": 2},
    "cfg2_gather2": {"cfg_size": 2, "gather_size": 2},
}
DBCACHE = DBCacheConfig(
    Fn_compute_blocks=1, max_warmup_steps=2, max_continuous_cached_steps=-1, residual_diff_threshold=0.3
)
CACHES: dict[str, CacheConfig | None] = {
    "plain": None,
    "dbcache": DBCACHE,
    "taylorseer": replace(DBCACHE, enable_taylorseer=True, max_warmup_steps=3),
    "mask": SCMConfig(max_warmup_steps=0, max_continuous_cached_steps=-1, scm_policy="static", scm_preset="ultra"),
}


def trial_of(case: dict[str, Any]) -> Trial:
    """`case` names a topology, and may name a cache and an offload mode, and change other groups."""
    guided = {"guidance_scale": 1.5} if case.get("guided") else {}
    return trial(
        CACHES[case.get("cache", "plain")],
        pipeline=replace(SMALL, **guided, **case.get("pipeline", {})),
        parallel=ParallelConfig(**TOPOLOGIES[case["topology"]], **case.get("parallel", {})),
        offload=OffloadConfig(mode=case.get("offload", "none"), pin_memory=False, use_stream=False),
        compute=replace(ComputeConfig(device="cpu", dtype="float32"), **case.get("compute", {})),
    )
