"""What each cache method is called, needs and costs, in zbench's words and in other tools'."""

import ast
from pathlib import Path

import pytest

from zbench.config import (
    CACHE_CLASSES,
    SCHEMAS,
    SCM_PRESETS,
    CacheConfig,
    CustomCacheConfig,
    DBCacheConfig,
    SCMConfig,
)
from zbench.config.cache import check_cache
from zbench.errors import ConfigError
from zbench.methods.cache import METHODS, method_of
from zbench.methods.cache.scm import STEP_MASKS, every_mask, sglang_bins, with_mask

PACKAGE = Path(__file__).parents[2] / "zbench"
DYNAMIC = SCMConfig(max_warmup_steps=0, max_continuous_cached_steps=-1, scm_preset="fast")
FORCED = SCMConfig(scm_preset="ultra", scm_policy="static")
OWN = SCMConfig(steps_mask="11101001", scm_policy="static")
TAYLOR = DBCacheConfig(enable_taylorseer=True, taylorseer_order=2)
CUSTOM = CustomCacheConfig(method="mine", target="a:B", options={"threshold": 0.1})


@pytest.mark.parametrize(
    ("cache", "label", "family", "choice"),
    [
        (CacheConfig(), "none", "none", "none"),
        (DBCacheConfig(), "F1B0_W4_MC3_R0.24", "dbcache", "dbcache"),
        (TAYLOR, "F1B0_W4_MC3_R0.24_T1O2", "taylorseer", "taylorseer"),
        (DYNAMIC, "SCM_fast_F1B0_W0_MC-1_R0.24", "scm", "scm"),
        (FORCED, "forced_ultra_F1B0", "scm", "forced"),
        (OWN, "forced_11101001_F1B0", "scm", "forced"),
        (SCMConfig(steps_mask="1101"), "SCM_1101_F1B0_W4_MC3_R0.24", "scm", "scm"),
        (CUSTOM, "mine(threshold=0.1)", "mine", "custom"),
    ],
)
def test_names(cache: CacheConfig, label: str, family: str, choice: str) -> None:
    method = method_of(cache)
    assert (method.label, method.family, method.choice) == (label, family, choice)


@pytest.mark.parametrize(
    ("cache", "decider", "threshold", "window", "skips"),
    [
        (CacheConfig(), None, None, None, False),
        (DBCacheConfig(), "a threshold", 0.24, (1, 0, 4), True),
        (DYNAMIC, "a threshold", 0.24, None, True),
        (FORCED, None, None, None, True),
        (CUSTOM, "mine", None, None, True),
    ],
)
def test_what_decides_which_steps_are_skipped(cache, decider, threshold, window, skips) -> None:
    method = method_of(cache)
    assert (method.decider, method.threshold, method.compared_by, method.skips) == (decider, threshold, window, skips)


def test_cache_dits_defaults_are_those_of_dbcache_alone_whatever_the_grid() -> None:
    defaults = (DBCacheConfig(grid={"max_warmup_steps": "1,2"}), DBCacheConfig())
    others = (CacheConfig(), TAYLOR, DBCacheConfig(max_warmup_steps=2), SCMConfig(), CUSTOM)
    assert [method_of(c).has_defaults for c in (*defaults, *others)] == [True, True, *[False] * len(others)]


def test_a_parameter_that_means_nothing_is_none() -> None:
    assert "taylorseer_order" not in method_of(DBCacheConfig()).parameters
    assert method_of(TAYLOR).parameters["taylorseer_order"] == 2
    assert not {"grid", "method"} & set(method_of(TAYLOR).parameters)
    assert method_of(CUSTOM).parameters == {"threshold": 0.1}


def test_first_and_last_blocks_must_be_there() -> None:
    cache = DBCacheConfig(Fn_compute_blocks=8, Bn_compute_blocks=3)
    said = "cache.Fn_compute_blocks=8 + cache.Bn_compute_blocks=3 exceed the 10 blocks of mine"
    assert str(method_of(cache).problem(10, 8, "mine")) == said
    assert method_of(cache).problem(11, 8, "mine") is None


@pytest.mark.parametrize("steps", range(1, 31))
def test_a_mask_is_refused_for_the_steps_for_which_cache_dit_has_none(steps: int) -> None:
    import cache_dit

    try:
        cache_dit.steps_mask(mask_policy="fast", total_steps=steps)
        works = True
    except AssertionError:
        works = False
    assert (method_of(DYNAMIC).problem(10, steps, "mine") is None) == works


@pytest.mark.parametrize("steps", STEP_MASKS)
def test_plans_know_how_many_steps_cache_dits_masks_skip(steps: int) -> None:
    import cache_dit

    assert set(STEP_MASKS[steps]) == set(SCM_PRESETS)
    for preset, skipped in STEP_MASKS[steps].items():
        assert steps - sum(cache_dit.steps_mask(mask_policy=preset, total_steps=steps)) == skipped
        assert method_of(SCMConfig(scm_preset=preset, scm_policy="static")).forced_skips(steps) == skipped


def test_a_mask_of_ones_own_is_for_as_many_steps_as_it_has_digits() -> None:
    assert (
        method_of(OWN).problem(10, 8, "mine") is None
        and method_of(SCMConfig(steps_mask="10100")).problem(10, 5, "m") is None
    )
    assert str(method_of(OWN).problem(10, 9, "mine")) == "cache.steps_mask=11101001: is of 8 steps, not of 9"


@pytest.mark.parametrize("mask", ["", "0111", "1102", "01", "1 1", "eleven"])
def test_a_mask_that_is_none_is_refused_and_named(mask: str) -> None:
    with pytest.raises(ConfigError, match=r"cache\.steps_mask.*the first 1"):
        check_cache(SCMConfig(steps_mask=mask))


def test_a_preset_means_nothing_beside_a_mask_of_ones_own() -> None:
    method = method_of(OWN)
    assert "scm_preset" not in method.parameters and method.parameters["steps_mask"] == "11101001"
    assert (
        method.plainest(30, 8).cache
        == method_of(SCMConfig(**{**vars(OWN), "scm_preset": "slow"})).plainest(30, 8).cache
    )
    assert method_of(SCMConfig(steps_mask="1111")).plainest(30, 4).cache == CacheConfig()
    assert "steps_mask" not in method_of(FORCED).parameters


@pytest.mark.parametrize("steps", range(2, 10))
def test_cache_dit_makes_each_mask_again_of_what_sglang_is_told(steps: int) -> None:
    """SGLang gives both bins to cache-dit's `steps_mask`, with the number of steps."""
    import cache_dit

    for mask in every_mask(steps)[1:]:
        told = {name.removeprefix("SGLANG_CACHE_DIT_SCM_"): value for name, value in sglang_bins(mask).items()}
        bins = {name.lower(): [int(n) for n in value.split(",")] for name, value in told.items()}
        assert cache_dit.steps_mask(**bins, total_steps=steps) == [int(digit) for digit in mask]
    assert sglang_bins("1" * steps) == {"SGLANG_CACHE_DIT_SCM_PRESET": "none"}


def test_a_mask_takes_blocks_and_taylorseer_of_the_setting_that_it_is_put_on() -> None:
    made = with_mask(DBCacheConfig(Fn_compute_blocks=3, enable_taylorseer=True, residual_diff_threshold=0.4), "1010")
    assert isinstance(made, SCMConfig) and (made.Fn_compute_blocks, made.enable_taylorseer) == (3, True)
    assert made == with_mask(DBCacheConfig(Fn_compute_blocks=3, enable_taylorseer=True), "1010")
    assert with_mask(TAYLOR, "1111") == CacheConfig() and with_mask(CUSTOM, "1010") is None


def test_what_is_not_forced_is_not_known_to_skip() -> None:
    assert [method_of(c).forced_skips(8) for c in (CacheConfig(), DBCacheConfig(), DYNAMIC, CUSTOM)] == [0, 0, 0, 0]
    assert method_of(FORCED).forced_skips(8) == 4
    assert method_of(OWN).forced_skips(8) == 3 and method_of(SCMConfig(steps_mask="10")).forced_skips(2) == 0
    assert method_of(FORCED).forced_skips(11) == 0, "a number of steps that nobody uses"


@pytest.mark.parametrize(
    ("cache", "blocks", "kept"),
    [
        (CacheConfig(), 30, 0),
        (DBCacheConfig(Fn_compute_blocks=3, Bn_compute_blocks=2), 5, 4),
        (DBCacheConfig(Fn_compute_blocks=28, Bn_compute_blocks=8), 30, 4),
        (TAYLOR, 1, 6),
        (FORCED, 1, 4),
        (CUSTOM, None, 0),
    ],
)
def test_blocks_of_a_cached_step_and_tensors_kept(cache: CacheConfig, blocks: int | None, kept: int) -> None:
    assert (method_of(cache).cached_blocks(30), method_of(cache).kept_tensors) == (blocks, kept)


@pytest.mark.parametrize(
    ("blocks", "scaled"),
    [((1, 0), (1, 0)), ((3, 0), (1, 0)), ((8, 0), (3, 0)), ((8, 8), (3, 3)), ((1, 1), (1, 1)), ((28, 1), (9, 0))],
)
def test_another_depth_computes_the_same_share_of_its_blocks(blocks: tuple[int, int], scaled: tuple[int, int]) -> None:
    """Of 10 instead of 30, rounded, at least 1 where there was one, and always one left to skip."""
    cache = DBCacheConfig(Fn_compute_blocks=blocks[0], Bn_compute_blocks=blocks[1], residual_diff_threshold=0.12)
    proxy = method_of(cache).scaled(30, 10)
    assert isinstance(proxy, DBCacheConfig) and proxy.residual_diff_threshold == 0.12
    assert (proxy.Fn_compute_blocks, proxy.Bn_compute_blocks) == scaled


def test_every_valid_setting_has_a_valid_one_at_another_depth() -> None:
    for first in range(1, 30):
        for last in range(30 - first):
            cache = DBCacheConfig(Fn_compute_blocks=first, Bn_compute_blocks=last)
            proxy = method_of(cache).scaled(30, 10)
            assert isinstance(proxy, DBCacheConfig) and proxy.Fn_compute_blocks >= 1
            assert proxy.Fn_compute_blocks + proxy.Bn_compute_blocks < 10


def test_another_depth_keeps_the_kind_of_cache() -> None:
    assert method_of(CacheConfig()).scaled(30, 10) == CacheConfig()
    assert method_of(DYNAMIC).scaled(30, 10) == DYNAMIC


def test_cache_dit_is_given_every_parameter_by_its_own_name() -> None:
    made = method_of(TAYLOR).cache_dit(8)
    assert made is not None and made.mask == {} and made.taylorseer == {"taylorseer_order": 2}
    assert made.config == {
        "Fn_compute_blocks": 1,
        "Bn_compute_blocks": 0,
        "max_warmup_steps": 4,
        "residual_diff_threshold": 0.24,
        "max_continuous_cached_steps": 3,
    }
    masked = method_of(FORCED).cache_dit(9)
    assert masked is not None and masked.taylorseer is None
    assert masked.mask == {"mask_policy": "ultra", "total_steps": 9}
    assert masked.config["steps_computation_policy"] == "static"
    assert method_of(CacheConfig()).cache_dit(8) is None and method_of(CUSTOM).cache_dit(8) is None


def test_every_schema_of_a_cache_has_its_method_and_its_choice() -> None:
    assert set(METHODS) == set(SCHEMAS["cache"].values()) == {*CACHE_CLASSES.values(), CustomCacheConfig}
    choices = {path.stem for path in (PACKAGE.parent / "conf" / "cache").glob("*.yaml")}
    for cache in (CacheConfig(), DBCacheConfig(), TAYLOR, DYNAMIC, FORCED, CUSTOM):
        assert method_of(cache).choice in choices


SCHEMA_NAMES = {schema.__name__ for schema in METHODS} - {"CacheConfig"}


def switches(source: str) -> list[str]:
    """What asks for the class or the name of a cache method. To build a setting is no question."""
    found = []
    for node in ast.walk(ast.parse(source)):
        calls = isinstance(node, ast.Call) and ast.unparse(node.func) in ("isinstance", "issubclass")
        if calls or isinstance(node, ast.MatchClass | ast.Compare):
            inside = {getattr(part, "id", getattr(part, "attr", None)) for part in ast.walk(node)}
            if inside & {*SCHEMA_NAMES, "scm_policy", "enable_taylorseer"} or "cache.method" in ast.unparse(node):
                found.append(ast.unparse(node))
    return found


@pytest.mark.parametrize(
    "source",
    [
        "if isinstance(trial.cache, DBCacheConfig): pass",
        "if isinstance(trial.cache, zbench.config.SCMConfig): pass",
        "if type(cache) is not CustomCacheConfig: pass",
        "if trial.cache.method == 'dbcache': pass",
        "forced = cache.scm_policy == 'static'",
        "match cache:\n    case SCMConfig(): pass",
    ],
)
def test_what_switches_is_found(source: str) -> None:
    assert switches(source)


def test_nothing_outside_switches_on_the_class_or_the_name_of_a_cache_method() -> None:
    """What is to be known of a method is asked of it."""
    owners = (PACKAGE / "methods", PACKAGE / "config")
    files = [p for p in PACKAGE.rglob("*.py") if not any(p.is_relative_to(owner) for owner in owners)]
    assert {str(p.relative_to(PACKAGE)): found for p in files if (found := switches(p.read_text()))} == {}
