"""What cannot work says which key and value, and the way out: rules for any engine, and those of the built-in stack."""

from dataclasses import replace
from typing import Any

import pytest
from factories import TINY, TURBO

from zbench.config import (
    CacheConfig,
    ComputeConfig,
    CustomCacheConfig,
    DBCacheConfig,
    OffloadConfig,
    ParallelConfig,
    PipelineConfig,
    SCMConfig,
)
from zbench.methods.parallel import LOG_SUM_EXP_BACKENDS, every_split, problem, stack_problem
from zbench.trial import geometry_of

GUIDED = replace(TURBO, name="zimage", preset="zimage", guidance_scale=4.0)
DEGREES = ("dp", "cfg", "tp", "ulysses", "ring", "gather")


def parallel(**options: Any) -> ParallelConfig:
    """`tp=2` for `tp_size=2`."""
    return ParallelConfig(**{f"{key}_size" if key in DEGREES else key: value for key, value in options.items()})


def why(pipeline: PipelineConfig = TURBO, **options: Any) -> str:
    return problem(parallel(**options), pipeline, geometry_of(pipeline)) or ""


def stack_why(pipeline: PipelineConfig = TURBO, **options: Any) -> str:
    groups: dict[str, Any] = {"offload": OffloadConfig(), "compute": ComputeConfig(), "cache": CacheConfig()}
    groups |= {key: options.pop(key) for key in list(options) if key in groups}
    return stack_problem(parallel(**options), pipeline, geometry_of(pipeline), **groups) or ""


@pytest.mark.parametrize("size", range(1, 33))
def test_tensor_parallelism_divides_heads_and_columns(size: int) -> None:
    assert (why(tp=size) == "") == (size in (1, 2, 5, 10))
    if size in (3, 6, 15, 30):
        said = f"10,240 columns of the feed-forward are not divisible by {size}"
        assert why(tp=size) == f"parallel.tp_size={size}: {said}; 2, 5, 10 divide both"
    if size == 4:
        assert why(tp=size) == "parallel.tp_size=4: 30 heads are not divisible by 4; 2, 5, 10 divide both"


def test_the_tiny_pipeline_has_heads_of_its_own() -> None:
    assert [size for size in range(1, 9) if not why(TINY, tp=size)] == [1, 2, 4]


@pytest.mark.parametrize("key", ["ulysses", "ring"])
@pytest.mark.parametrize("size", [2, 3, 4, 5, 6, 8, 16, 32, 64])
def test_ulysses_and_ring_divide_every_padded_sequence(key: str, size: int) -> None:
    works = size in (2, 4, 8, 16, 32)
    said = why(**{key: size})
    assert (said == "") == works
    if not works:
        of = "32 text" if size == 64 else "4,096 image"
        assert said.startswith(f"parallel.{key}_size={size}: {of} tokens are not divisible by {size}; parallel.gather")


def test_the_product_counts_not_the_axis() -> None:
    assert why(ulysses=2, ring=2) == "" and why(tp=5, ulysses=2) == ""
    said = "parallel.ulysses_size=8 × parallel.ring_size=8: 32 text tokens are not divisible by 64"
    assert why(ulysses=8, ring=8).startswith(said)


def test_uneven_shares_are_ulysses_anythings_and_gathers() -> None:
    assert "parallel.ulysses_anything=true take uneven" in why(ulysses=3)
    assert "anything" not in why(ring=3) and "parallel.gather_size takes uneven" in why(ring=3)
    assert why(ulysses=3, ulysses_anything=True) == ""
    assert why(ulysses=33, ulysses_anything=True).startswith("parallel.ulysses_size=33: a text may have 32 tokens")


def test_gather_takes_any_number_that_leaves_each_a_token_of_every_sequence() -> None:
    assert [n for n in range(1, 18) if not why(gather=n)] == [1, 2, 3, 4, 5, 6, 7, 8, 11, 16]
    said = "parallel.gather_size=9: of 32 text tokens, shares of 4 leave none for the last of 9 devices; use fewer"
    assert why(gather=9) == said
    assert why(ulysses=2, gather=3) == ""
    assert why(ulysses=5, gather=2).startswith("parallel.ulysses_size=5 × parallel.gather_size=2: of 32 text tokens")


def test_ring_and_gather_exclude_each_other_in_the_same_words_whatever_their_degrees() -> None:
    assert why(ring=2, gather=2) == why(ring=4, gather=3)
    assert why(ring=2, gather=2).startswith("parallel.ring_size and parallel.gather_size above 1")


def test_guidance_has_two_passes_and_none_without_it() -> None:
    assert why(GUIDED, cfg=2) == "" and why(GUIDED, cfg=2, tp=2) == ""
    assert why(cfg=2).startswith("parallel.cfg_size=2: pipeline.guidance_scale=0 makes one pass a step")
    assert why(GUIDED, cfg=4).startswith("parallel.cfg_size=4: guidance makes two passes a step")
    weak = replace(GUIDED, guidance_scale=0.5)  # diffusers guides above 0
    assert why(weak, cfg=2) == ""


@pytest.mark.parametrize("size", [2, 3, 7, 100])
def test_images_side_by_side_are_never_in_each_others_way(size: int) -> None:
    assert why(dp=size) == "" and stack_why(dp=size) == ""


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"ulysses_anything": True}, "parallel.ulysses_anything=true: parallel.ulysses_size=1"),
        ({"ulysses_async": True}, "parallel.ulysses_async=true: parallel.ulysses_size=1"),
        ({"ulysses_anything": True, "ulysses": 2, "ring": 2}, "parallel.ulysses_anything=true: parallel.ring_size=2"),
        ({"ring_rotate_method": "allgather"}, "parallel.ring_rotate_method=allgather: parallel.ring_size=1"),
        ({"vae": "split"}, "parallel.vae=split: one device"),
        ({"vae": "tiled", "dp": 4}, "parallel.vae=tiled: one device"),
        ({"text_encoder": "tp"}, "parallel.text_encoder=tp: one device"),
        ({"text_encoder": "tp", "gather": 3}, "parallel.text_encoder=tp: its 32 heads are not divisible by the 3 dev"),
        ({"text_encoder": "tp", "gather": 16}, "parallel.text_encoder=tp: its 8 key and value heads"),
    ],
)
def test_options_without_what_they_are_for_are_refused(options: dict[str, Any], says: str) -> None:
    assert why(**options).startswith(says)


def test_a_decode_and_a_text_encoder_are_split_where_they_can_be() -> None:
    assert why(gather=3, vae="split") == "" and why(gather=2, text_encoder="tp") == ""
    tiles = replace(TURBO, vae_tiling=True)
    assert "pipeline.vae_tiling=true" in why(tiles, gather=2, vae="split") and "one tile" in why(
        tiles, gather=2, vae="tiled"
    )
    short = replace(TURBO, height=16)  # 2 rows of latents
    assert "2 rows of latents are fewer than 3 devices" in why(short, gather=3, vae="split")
    ten_rows = replace(TURBO, height=80)  # whole shares of 2 would leave none for the sixth device; these are 2 and 1
    assert why(ten_rows, gather=6, vae="split") == ""


def test_a_tiled_decode_has_a_tile_for_each_device() -> None:
    """Z-Image's tiles have 1,024 pixels a side and 768 between; the tiny pipeline's 256 and 192."""
    assert "1024×1024 pixels are one tile" in why(gather=2, vae="tiled")
    large = replace(TURBO, height=1280, width=1280)
    assert why(large, gather=4, vae="tiled") == "" and "are 4 tiles, fewer than 5" in why(large, gather=5, vae="tiled")
    wide = replace(TINY, height=160, width=272)
    assert why(wide, gather=2, vae="tiled") == "" and "are 2 tiles, fewer than 4" in why(wide, gather=4, vae="tiled")


def test_tiles_are_shared_by_two_devices_as_cache_dit_has_it() -> None:
    large = replace(TURBO, height=1280, width=1280)
    assert stack_why(large, gather=2, vae="tiled") == stack_why(large, dp=2, gather=2, vae="tiled") == ""
    assert stack_why(large, gather=3, vae="tiled").startswith("parallel.vae=tiled: of 3 devices the third")


@pytest.mark.parametrize("size", range(2, 17))
def test_cache_dit_pads_heads_with_fewer_than_a_device_has(size: int) -> None:
    said = stack_why(ulysses=size, ulysses_anything=True)
    assert (said == "") == (size in (2, 3, 4, 5, 6, 8, 10, 15))
    if size == 7:
        assert said.startswith("parallel.ulysses_size=7: 30 heads over 7 devices need 5 padded ones")


def test_tensor_parallelism_may_leave_uneven_heads_to_cache_dit_but_not_to_gather() -> None:
    assert stack_why(tp=2, ulysses=2) == ""  # 15 heads: 8 and 7
    said = "parallel.tp_size=2 × parallel.ulysses_size=2 × parallel.gather_size=2: 15 heads are not divisible by"
    assert stack_why(tp=2, ulysses=2, gather=2).startswith(said)
    assert stack_why(tp=2, gather=2) == "" and stack_why(ulysses=2, gather=3) == ""
    assert "heads" in stack_why(TINY, tp=4, ulysses=2)


def test_ring_needs_the_log_sum_exp_p2p_and_no_mask() -> None:
    assert all(not stack_why(ring=2, compute=ComputeConfig(attention_backend=b)) for b in LOG_SUM_EXP_BACKENDS)
    cudnn = ComputeConfig(attention_backend="_native_cudnn")
    assert "compute.attention_backend=_native_cudnn" in stack_why(ring=2, compute=cudnn)
    assert stack_why(ulysses=2, compute=cudnn) == "" and stack_why(gather=2, compute=cudnn) == ""
    assert "p2p alone" in stack_why(ring=2, ring_rotate_method="allgather")
    assert "parallel.cfg_size=2 parts them" in stack_why(GUIDED, ring=2) and stack_why(GUIDED, ring=2, cfg=2) == ""
    assert stack_why(GUIDED, ulysses=2) == "" and stack_why(GUIDED, gather=2) == ""


def test_attention_that_knows_nothing_of_shares_is_refused_with_ulysses() -> None:
    """It would attend to a rank's own tokens and say nothing."""
    for backend in ("_native_efficient", "_native_flash", "_native_math"):
        said = stack_why(ulysses=2, compute=ComputeConfig(attention_backend=backend))
        assert said.startswith(f"parallel.ulysses_size=2: compute.attention_backend={backend} exchanges no tokens")
    efficient = ComputeConfig(attention_backend="_native_efficient")
    assert stack_why(gather=2, compute=efficient) == "" and stack_why(tp=2, compute=efficient) == ""


def test_options_of_cache_dit_stay_with_its_ulysses() -> None:
    assert "parallel.ring_size=2" in stack_why(ulysses=2, ring=2, ulysses_async=True)
    for key in ("ulysses_async", "ulysses_anything"):
        assert stack_why(ulysses=2, **{key: True}) == ""
        assert f"parallel.{key}=true: is cache-dit's" in stack_why(ulysses=2, gather=2, **{key: True})


@pytest.mark.parametrize(
    ("mode", "options", "works"),
    [
        ("dit", {"gather": 2}, True),
        ("dit", {"ulysses": 2, "ring": 2}, True),
        ("dit", {"tp": 2}, False),
        ("dit", {"dp": 2}, True),
        ("all", {"gather": 2}, True),
        ("all", {"gather": 2, "vae": "split"}, False),
        ("all", {"tp": 2}, False),
        ("vae", {"tp": 2}, True),
        ("vae", {"tp": 2, "vae": "split"}, False),
        ("text_encoder", {"tp": 2, "vae": "split"}, True),
        ("text_encoder", {"tp": 2, "text_encoder": "tp"}, False),
        ("group", {"gather": 2}, False),
        ("group", {"dp": 2}, True),
        ("sequential", {"dp": 2}, False),
        ("sequential", {}, True),
    ],
)
def test_offload_beside_sharding(mode: str, options: dict[str, Any], works: bool) -> None:
    said = stack_why(offload=OffloadConfig(mode=mode), **options)
    assert (said == "") == works
    assert works or said.startswith(f"offload.mode={mode}: ")


def test_a_lora_beside_the_layers_and_a_cache_from_outside_are_refused() -> None:
    beside = replace(TURBO, lora="/style.safetensors", lora_fused=False)
    assert "pipeline.lora_fused=false" in stack_why(beside, tp=2) and stack_why(beside, gather=2) == ""
    assert stack_why(replace(beside, lora_fused=True), tp=2) == ""
    outside = CustomCacheConfig(method="mine", target="a:B")
    assert stack_why(gather=2, cache=outside).startswith("cache.method=mine: ")
    assert stack_why(dp=2, cache=outside) == "" and stack_why(gather=2, cache=DBCacheConfig()) == ""


def test_copies_take_turns_between_layers_which_a_cache_skips() -> None:
    said = stack_why(gather=2, gather_by="copies", cache=DBCacheConfig())
    assert said.startswith("parallel.gather_by=copies: cache.method=dbcache skips layers") and "cache=none" in said
    assert stack_why(gather=2, gather_by="copies") == ""
    assert stack_why(gather=2, gather_by="collectives", cache=DBCacheConfig()) == ""


def test_ring_cannot_compare_prompts_that_one_process_would_pad() -> None:
    compared, forced = DBCacheConfig(), SCMConfig(residual_diff_threshold=1.0)
    said = stack_why(GUIDED, cfg=2, ring=2, cache=compared)
    assert said.startswith("parallel.cfg_size=2 × parallel.ring_size=2: cache.method=dbcache compares")
    assert stack_why(GUIDED, cfg=2, ring=2) == stack_why(GUIDED, cfg=2, gather=2, cache=compared) == ""
    assert stack_why(GUIDED, cfg=2, ring=2, cache=forced) == ""


def test_what_is_legal_of_four_devices() -> None:
    """The tiny pipeline without guidance: of 28 splits those that ring × gather and guidance do not forbid."""
    legal = [point for point in every_split(4) if not problem(ParallelConfig(**point), TINY, geometry_of(TINY))]
    assert len(legal) == 20 and not any(p["cfg_size"] > 1 or (p["ring_size"] > 1 < p["gather_size"]) for p in legal)
