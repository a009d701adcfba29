"""The YAML for cache-dit is what its own loader reads, with the very parameters of the trial."""

from pathlib import Path

import cache_dit
import pytest
import yaml
from factories import TURBO, trial

from zbench.config import CacheConfig, ComputeConfig, CustomCacheConfig, DBCacheConfig, ParallelConfig, SCMConfig
from zbench.emit import emit, write
from zbench.trial import Trial


def loaded(of: Trial, folder: Path) -> dict[str, object]:
    write([emit(of, "cache-dit")], folder)
    return cache_dit.load_configs(str(folder / "cache_dit.yaml"))


def test_a_threshold_arrives_with_taylorseer(tmp_path: Path) -> None:
    cache = DBCacheConfig(Fn_compute_blocks=2, Bn_compute_blocks=1, max_warmup_steps=3, residual_diff_threshold=0.12)
    seer = DBCacheConfig(max_continuous_cached_steps=-1, enable_taylorseer=True, taylorseer_order=2)
    config = loaded(trial(cache, pipeline=TURBO), tmp_path)
    made = config["cache_config"]
    assert (made.Fn_compute_blocks, made.Bn_compute_blocks, made.max_warmup_steps) == (2, 1, 3)
    assert (made.residual_diff_threshold, made.max_continuous_cached_steps) == (0.12, 3)
    assert config["calibrator_config"] is None and config["attention_backend"] == "native"
    config = loaded(trial(seer, pipeline=TURBO), tmp_path)
    assert config["calibrator_config"].taylorseer_order == 2
    assert config["cache_config"].max_continuous_cached_steps == -1


@pytest.mark.parametrize("policy", ["static", "dynamic"])
def test_a_mask_is_cache_dits_own_for_the_steps(policy: str, tmp_path: Path) -> None:
    config = loaded(trial(SCMConfig(scm_preset="fast", scm_policy=policy), pipeline=TURBO), tmp_path)["cache_config"]
    mask = cache_dit.steps_mask(mask_policy="fast", total_steps=TURBO.steps)
    assert config.steps_computation_mask == mask and config.steps_computation_policy == policy


def test_a_mask_of_ones_own_is_given_as_it_is(tmp_path: Path) -> None:
    cache = SCMConfig(steps_mask="11010010", scm_policy="static")
    config = loaded(trial(cache, pipeline=TURBO), tmp_path)["cache_config"]
    assert config.steps_computation_mask == [1, 1, 0, 1, 0, 0, 1, 0] and config.steps_computation_policy == "static"


@pytest.mark.parametrize("cache", [CacheConfig(), CustomCacheConfig(method="mine", target="a:B")])
def test_without_skipping_the_file_switches_none_on(cache: CacheConfig, tmp_path: Path) -> None:
    """An empty file would: cache-dit takes that for its defaults."""
    assert loaded(trial(cache, pipeline=TURBO), tmp_path)["cache_config"] is None


def test_sharding_is_in_the_same_file_and_what_lacks_is_said(tmp_path: Path) -> None:
    parallel = ParallelConfig(ulysses_size=2, ring_size=2, vae="split", dp_size=2)
    compute = ComputeConfig(device="cuda", attention_backend="flash")
    of = trial(DBCacheConfig(), pipeline=TURBO, parallel=parallel, compute=compute)
    config = loaded(of, tmp_path)
    sharding = config["parallelism_config"]
    assert (sharding.ulysses_size, sharding.ring_size, sharding.attention_backend) == (2, 2, "flash")
    assert config["cache_config"].Fn_compute_blocks == 1
    notes = emit(of, "cache-dit").notes
    assert any("takes 4 processes" in note for note in notes)
    assert all(any(key in note for note in notes) for key in ("parallel.vae=split", "parallel.dp_size=2"))


def test_a_name_with_signs_of_yaml_stays_one_value() -> None:
    compute = ComputeConfig(attention_backend="a: [b] # c\nd")
    text = emit(trial(pipeline=TURBO, compute=compute), "cache-dit").files[0].text
    assert yaml.safe_load(text) == {"attention_backend": "a: [b] # c\nd"}
