"""Peak memory is near the one measured, and every way of saving it saves it where it should."""

from dataclasses import replace
from functools import cache

import pytest
from factories import TURBO, trial
from hardware_profiles import profile

from zbench.config import DBCacheConfig, OffloadConfig, ParallelConfig
from zbench.hardware.footprint import decode_share, fits, next_offload, peak_allocated_bytes, peak_device_bytes
from zbench.hardware.traffic import text_transfer_bytes, weights, whole_transfer_bytes
from zbench.methods.parallel import ParallelDims
from zbench.zimage.geometry import Geometry
from zbench.zimage.layout import preset_folder

GIB = 2**30


@cache
def geometry() -> Geometry:
    return Geometry.from_folder(preset_folder("zimage_turbo"))


def allocated(**groups: object) -> int:
    groups = {"pipeline": TURBO, **groups}
    return peak_allocated_bytes(trial(groups.pop("cache", None), **groups), geometry(), 2, 64)


def offloaded(mode: str, **options: object) -> int:
    return allocated(offload=OffloadConfig(mode=mode, **options))


@pytest.mark.parametrize(
    ("mode", "mib"), [("none", 22_041), ("text_encoder", 14_369), ("dit", 20_086), ("all", 12_254), ("group", 2_501)]
)
def test_every_mode_peaks_where_an_h100_did(mode: str, mib: float) -> None:
    assert offloaded(mode) == pytest.approx(mib * 2**20, rel=0.06)


def test_all_components_are_near_sglangs_ci_limit() -> None:
    """22,118 MB of torch's allocator, printed over 2^20; another program with other activations."""
    assert allocated() == pytest.approx(22_117.63 * 2**20, rel=0.01)


def test_the_device_shows_more_than_the_allocator_gives_out() -> None:
    made = trial(pipeline=TURBO)
    assert peak_device_bytes(made, geometry(), 2, 64) > allocated() * 1.07


def test_offload_modes_are_ordered_by_what_they_keep() -> None:
    assert offloaded("sequential") < offloaded("group") < offloaded("all") < offloaded("none")


@pytest.mark.parametrize("mode", ["text_encoder", "all"])
def test_the_table_of_tokens_stays_on_the_host_where_the_text_encoder_comes_layer_by_layer(mode: str) -> None:
    """151,936 tokens of 2,560 numbers: 742 MiB that no prompt moves."""
    resident, offload = weights(geometry(), 2, ParallelDims()), OffloadConfig(mode=mode)
    others = resident.transformer + resident.vae if mode == "all" else 0
    layers = resident.text_encoder - resident.text_encoder_table
    assert resident.text_encoder_table == 151_936 * 2560 * 2
    assert (
        text_transfer_bytes(offload, resident, 36, 36) == layers and whole_transfer_bytes(offload, resident) == others
    )
    assert text_transfer_bytes(offload, resident, 36, 35) == layers * 35 / 36, "the last does not run, nor come"
    group = OffloadConfig(mode="group")
    assert text_transfer_bytes(group, resident, 36, 36) == resident.text_encoder
    assert whole_transfer_bytes(group, resident) == resident.vae
    assert (
        text_transfer_bytes(OffloadConfig(), resident, 36, 36) == 0 == whole_transfer_bytes(OffloadConfig(), resident)
    )


def test_of_a_text_encoder_that_waits_two_layers_are_there() -> None:
    """At 256x256 it is the reading of a prompt that sets the peak: 512 tokens, three of SwiGLU's tensors."""
    resident = weights(geometry(), 2, ParallelDims())
    layer = (resident.text_encoder - resident.text_encoder_table) / 36
    stays = resident.transformer + resident.vae + 512 * 3 * 9728 * 2
    small = replace(TURBO, height=256, width=256)
    held = allocated(pipeline=small, offload=OffloadConfig(mode="text_encoder"))
    assert held == round(stays + 2 * layer)


def test_layers_that_are_kept_stay_through_every_stage_and_do_not_come() -> None:
    resident = weights(geometry(), 2, ParallelDims())
    layer = (resident.text_encoder - resident.text_encoder_table) / 36
    for mode in ("text_encoder", "all"):
        assert offloaded(mode, keep_layers=4) - offloaded(mode) == pytest.approx(4 * layer, abs=1)
        none, four, every = (
            text_transfer_bytes(OffloadConfig(mode=mode, keep_layers=kept), resident, 36, 36) for kept in (0, 4, 36)
        )
        assert none - four == pytest.approx(4 * layer) and none - every == pytest.approx(36 * layer)
    small = replace(TURBO, height=256, width=256)  # reading the prompt sets the peak
    held = {
        kept: allocated(pipeline=small, offload=OffloadConfig(mode="text_encoder", keep_layers=kept))
        for kept in (0, 34, 35)
    }
    assert held[34] - held[0] == pytest.approx(34 * layer, abs=1)
    assert held[35] == held[34], "no more places than layers that come"


def test_what_keeps_layers_and_does_not_fit_is_tried_without_them_first() -> None:
    kept = OffloadConfig(mode="text_encoder", keep_layers=30)
    of = trial(pipeline=TURBO, offload=kept)
    assert next_offload(of, geometry(), {"total": 17 * GIB}) == "text_encoder"
    assert next_offload(of, geometry(), {"total": 15 * GIB}) == "all"


def test_larger_groups_and_streams_hold_more() -> None:
    one = offloaded("group", num_blocks_per_group=15, use_stream=False)
    assert offloaded("group", num_blocks_per_group=20, use_stream=False) > one
    assert offloaded("group", num_blocks_per_group=15, use_stream=True) > one


def test_a_group_of_all_blocks_is_the_whole_component() -> None:
    assert offloaded("group", num_blocks_per_group=30) == pytest.approx(offloaded("all"), rel=0.001)
    assert offloaded("group", num_blocks_per_group=99) == offloaded("group", num_blocks_per_group=36)


def test_tensor_parallelism_splits_the_blocks_weights_and_ulysses_none() -> None:
    """Modulation, embedders and the last layer stay whole: 139 of 6,155 million, so that half is 51.1 %."""
    single = weights(geometry(), 2, ParallelDims())
    halves = weights(geometry(), 2, ParallelDims(tp=2))
    assert halves.transformer / single.transformer == pytest.approx(0.511, abs=0.001)
    of_block = 2 * (4 * 3840**2 + 3 * 3840 * 10240)
    assert single.transformer - halves.transformer == of_block // 2 * 34
    assert single.transformer_outside_blocks - halves.transformer_outside_blocks == of_block // 2 * 4
    assert halves.text_encoder == single.text_encoder and halves.vae == single.vae
    assert weights(geometry(), 2, ParallelDims(ulysses=2, gather=2, cfg=2, dp=2)) == single


def test_a_split_text_encoder_keeps_its_table_of_tokens_whole() -> None:
    single = weights(geometry(), 2, ParallelDims())
    table = 151_936 * 2560 * 2
    halves = weights(geometry(), 2, ParallelDims(gather=2), text_encoder_over=2)
    assert halves.text_encoder == table + (single.text_encoder - table) // 2
    held = allocated(parallel=ParallelConfig(gather_size=2, text_encoder="tp"))
    assert allocated(parallel=ParallelConfig(gather_size=2)) - held == single.text_encoder - halves.text_encoder


def test_what_a_device_of_several_holds_besides_weights() -> None:
    everything = OffloadConfig(mode="group")  # so that what computes sets the peak
    one = allocated(offload=everything)
    assert allocated(offload=everything, parallel=ParallelConfig(dp_size=4)) == one
    halved = allocated(offload=everything, parallel=ParallelConfig(gather_size=2, vae="split"))
    assert halved < one and allocated(offload=everything, parallel=ParallelConfig(gather_size=2)) == one
    thirds = [
        decode_share(trial(pipeline=TURBO, parallel=ParallelConfig(gather_size=n, vae="split")), geometry())
        for n in (2, 3)
    ]
    assert thirds == [0.5, 43 / 128]  # 128 rows of latents: 43, 43 and 42


def test_gather_holds_keys_and_values_of_all_tokens() -> None:
    """4,160 tokens over 3 devices are 1,387 at most; the other 2,773 come as keys and values."""
    layered = OffloadConfig(mode="dit")
    large = replace(TURBO, images_per_prompt=8, vae_slicing=True)  # so that the denoising sets the peak

    def step(**degrees: int) -> int:
        return allocated(pipeline=large, offload=layered, parallel=ParallelConfig(**degrees))

    ulysses = replace(ParallelConfig(), ulysses_size=2)
    both = step(gather_size=2) - allocated(pipeline=large, offload=layered, parallel=ulysses)
    assert both == 8 * 2 * 2080 * 3840 * 2


def test_a_larger_image_needs_more_to_decode() -> None:
    """Four times the pixels, four times the decoder's tensors: 3 x 2.6 GB more."""
    large = replace(TURBO, height=2048, width=2048)
    assert allocated(pipeline=large) - allocated() == pytest.approx(3 * 2.593e9, rel=0.01)


def test_a_cache_keeps_hidden_states() -> None:
    """4 x 4,160 tokens x 3,840 x 2 bytes, where the denoising sets the peak."""
    model = OffloadConfig(mode="all")
    kept = allocated(offload=model, cache=DBCacheConfig()) - allocated(offload=model)
    assert kept == 4 * 4160 * 3840 * 2
    taylor = DBCacheConfig(enable_taylorseer=True, taylorseer_order=2)
    assert allocated(offload=model, cache=taylor) - allocated(offload=model) == 6 * 4160 * 3840 * 2


def test_fits_compares_with_the_profile_and_knows_when_it_cannot() -> None:
    assert fits(23 * GIB, profile("rtx4090")) is True
    assert fits(25 * GIB, profile("rtx4090")) is False
    assert fits(25 * GIB, profile("cpu")) is None
