"""What the fast path and FP8 save in a projection: seconds and bytes, as near as their records have them."""

from dataclasses import replace

import pytest
from factories import TURBO, trial
from hardware_profiles import profile

from zbench.config import ComputeConfig, OffloadConfig, ParallelConfig, SCMConfig
from zbench.hardware.cost import Cost, DeviceRates
from zbench.hardware.footprint import GIB, TEXT_TOKENS, next_offload, trial_weights
from zbench.hardware.roofline import expect, floor_s, project, stack_of
from zbench.hardware.seconds import Estimate, Parts
from zbench.methods import attention, fast, quantization
from zbench.trial import Trial, geometry_of

FAST = ComputeConfig(device="cuda", compile=True, graphs="auto", **fast.FAST)
FP8 = replace(FAST, quantization="fp8", **fast.FP8)
IN_FP8 = replace(FP8, attention_backend=attention.CUDNN_FP8)
COMPILED = ComputeConfig(device="cuda", compile=True)
GEOMETRY = geometry_of(TURBO)


def of(compute: ComputeConfig, hardware: str = "h100", **groups: object) -> Trial:
    return trial(**{"pipeline": TURBO, "compute": compute, "hardware": profile(hardware), **groups})


def image(compute: ComputeConfig, **groups: object) -> Estimate:
    """8 steps of the records' prompt, which has 24 tokens."""
    projected = of(compute, **groups)
    assert projected.hardware is not None
    cost = Cost(projected, GEOMETRY, projected.hardware, 24)
    parts = sum(cost.stages().values(), Parts()) + cost.step(GEOMETRY.transformer.n_layers) * 8
    return parts.range(projected.hardware.efficiency.spread)


def forward_s(compute: ComputeConfig, blocks: int = 30) -> float:
    projected = of(compute)
    assert projected.hardware is not None
    return Cost(projected, GEOMETRY, projected.hardware, TEXT_TOKENS).step(blocks).total_s


def test_weights_of_28_blocks_are_half_as_large() -> None:
    t = GEOMETRY.transformer
    whole = trial_weights(of(FAST), GEOMETRY, 2).total
    saved = {
        scope: whole - trial_weights(of(replace(FP8, scope=scope)), GEOMETRY, 2).total
        for scope in ("attention", "ffn", "both")
    }
    assert saved["attention"] == 28 * 4 * t.dim**2 and saved["ffn"] == 28 * 3 * t.dim * t.ffn_dim
    assert saved["both"] == saved["attention"] + saved["ffn"]
    assert trial_weights(of(FP8), GEOMETRY, 2).text_encoder == trial_weights(of(FAST), GEOMETRY, 2).text_encoder


@pytest.mark.parametrize(
    ("compute", "measured"),
    [(FAST, (0.78, 0.797, 0.80)), (FP8, (0.567, 0.594, 0.60)), (IN_FP8, (0.567, 0.583))],
)
def test_an_image_on_an_h100_takes_what_was_measured(compute: ComputeConfig, measured: tuple[float, ...]) -> None:
    """8 steps of 1024x1024 (docs/performance.md). A range is worth having: ± 7 % at most."""
    low, point, high = image(compute)
    assert low < min(measured) and max(measured) < high
    assert (high - low) / 2 / point < 0.07


def test_five_of_eight_forwards_and_a_small_image_take_what_was_measured() -> None:
    """0.539 s fast and 0.419 with FP8, three of eight steps skipped; 0.201 s at 512x512, as one CUDA graph."""
    mask = SCMConfig(scm_preset="fast", scm_policy="static")
    for compute, measured in ((FAST, 0.539), (FP8, 0.419)):
        skipping = trial(mask, pipeline=TURBO, compute=compute)
        low, _, high = expect(skipping, GEOMETRY, profile("h100"), cached_steps=3).latency
        assert low < measured < high
    low, _, high = image(FAST, pipeline=replace(TURBO, height=512, width=512))
    assert low < 0.201 < high


@pytest.mark.parametrize(("kept", "gib", "image_s"), [(0, 14.26, 0.887), (2, 14.63, 0.879), (4, 15.07, 0.872)])
def test_a_fast_image_whose_text_encoder_waits_fits_into_16_gib(kept: int, gib: float, image_s: float) -> None:
    """As measured (reports/h100/fast/cap16), so that nobody rules it out."""
    waiting = OffloadConfig(mode="text_encoder", keep_layers=kept)
    told = expect(of(FAST, offload=waiting), GEOMETRY, profile("h100"))
    low, high = (end / GIB for end in told.peak_ends)
    assert low < gib < high and told.peak_bytes < 16 * GIB
    assert told.latency.low < image_s < told.latency.high


def test_layers_that_come_one_ahead_hide_what_computes() -> None:
    """7.1 GB over the link are what reading a prompt takes then, and a layer that is kept is not waited for."""
    here, waits, four = (
        project(of(FAST, offload=o), GEOMETRY, []).stages_s
        for o in (OffloadConfig(), *(OffloadConfig(mode="text_encoder", keep_layers=n) for n in (0, 4)))
    )
    link = profile("h100").efficiency.host_link * 64e9
    assert waits["text_encode"] == pytest.approx(7.065e9 / link, rel=0.001)
    assert waits["text_encode"] - four["text_encode"] == pytest.approx(4 * 0.2019e9 / link, rel=0.01)
    assert waits["offload_transfer"] == 0 and here["text_encode"] < 0.01
    every = project(of(FAST, offload=OffloadConfig(mode="text_encoder", keep_layers=36)), GEOMETRY, []).stages_s
    assert here["text_encode"] < every["text_encode"] < waits["text_encode"], "computed, though not as one graph"


@pytest.mark.parametrize(
    ("knobs", "stage"),
    [({"text": "compiled"}, "text_encode"), ({"decode": "compiled"}, "decode"), ({"text": "compiled"}, "overhead")],
)
def test_a_piece_shortens_its_own_stage_alone(knobs: dict[str, str], stage: str) -> None:
    plain, piece = (project(of(c), GEOMETRY, []) for c in (COMPILED, replace(COMPILED, **knobs)))
    assert piece.stages_s[stage] < plain.stages_s[stage] / 2
    assert piece.computed_step_s == plain.computed_step_s


def test_real_rotations_shorten_a_compiled_forward_and_joined_layers_do_not() -> None:
    real, joined = replace(COMPILED, rope="real"), replace(COMPILED, qkv="fused", ffn="fused")
    assert forward_s(joined) == forward_s(COMPILED)
    assert 0.95 < forward_s(real) / forward_s(COMPILED) < 0.98
    eager = ComputeConfig(device="cuda")
    assert forward_s(replace(eager, rope="real")) == forward_s(eager)


def test_a_profile_without_shares_of_the_fast_path_projects_it_as_its_blocks_are_compiled() -> None:
    """One's own profile of an older zbench."""
    shares = profile("h100").efficiency
    bare = replace(shares, **{name: None for name in vars(shares) if name.startswith("fast_")})
    older = replace(profile("h100"), efficiency=bare)
    fast_s, compiled_s = (expect(of(c), GEOMETRY, older).latency_s for c in (FAST, replace(COMPILED, graphs="stages")))
    assert fast_s == pytest.approx(compiled_s, rel=0.01)


def test_a_forward_is_near_what_was_measured() -> None:
    """93 ms fast and 69 with FP8; 1.4 tells a share of time from a share of rate."""
    assert forward_s(FP8) == pytest.approx(0.069, rel=0.02)
    assert forward_s(IN_FP8) == pytest.approx(0.0665, rel=0.02)
    assert 1.25 < forward_s(FAST) / forward_s(FP8) < 1.45
    assert forward_s(FP8) < forward_s(replace(FP8, scope="ffn")) < forward_s(replace(FP8, scope="attention"))
    assert forward_s(FP8, 2) == forward_s(FAST, 2), "the ends are not quantised"


def test_the_floor_takes_the_datasheets_rate() -> None:
    fast_s, fp8_s = (floor_s(of(c), GEOMETRY, profile("h100")) for c in (FAST, FP8))
    assert fp8_s < fast_s < 2 * fp8_s


def test_a_projection_says_what_it_does_not_know() -> None:
    def said(compute: ComputeConfig, **groups: object) -> set[str]:
        return set(project(of(compute, **groups), GEOMETRY, []).assumptions)

    unknown = {quantization.PROJECTED, fast.ON_ONE_DEVICE, fast.NOT_COMPILED}
    two = ParallelConfig(ulysses_size=2)
    assert said(FP8) & unknown == {quantization.PROJECTED}
    assert said(FAST) & unknown == set() == said(COMPILED, parallel=two) & unknown
    assert said(FAST, parallel=two) & unknown == {fast.ON_ONE_DEVICE}
    assert said(ComputeConfig(device="cuda", rope="real")) & unknown == {fast.NOT_COMPILED}


@pytest.mark.parametrize("name", ["a100", "b300", "h200", "mi300x", "rtx5090"])
def test_other_cards_carry_the_fast_path_over(name: str) -> None:
    """Of a card without an FP8 rate nothing is said of FP8."""
    onto = profile(name)
    compiled, quick = (expect(of(c, name), GEOMETRY, onto).latency for c in (COMPILED, FAST))
    assert 0.6 < quick.point / compiled.point < 0.97
    if onto.peak_fp8_tflops is None:
        assert onto.efficiency.fp8_gemm is None is onto.efficiency.fp8_attention
        return
    low, point, high = expect(of(FP8, name), GEOMETRY, onto).latency
    assert point < quick.point and 0.05 < (high - low) / 2 / point < 0.5


def test_a_profile_from_before_fp8_was_fitted_reaches_a_part_of_what_it_reaches_in_bf16() -> None:
    onto = profile("h100")
    older = replace(onto, efficiency=replace(onto.efficiency, fp8_gemm=None))
    rates = DeviceRates.of(older, compute=FP8)
    assert older.peak_fp8_tflops is not None and rates.fp8_gemm is not None
    assert rates.fp8_gemm == pytest.approx(0.8 * onto.efficiency.gemm * older.peak_fp8_tflops * 1e12)


def test_memory_is_what_is_left() -> None:
    before, after = (expect(of(c), GEOMETRY, profile("h100")).peak_bytes for c in (FAST, FP8))
    assert 4e9 < before - after < 6e9


@pytest.mark.parametrize(
    ("compute", "gib", "mode"), [(FAST, 14, "all"), (replace(FAST, graphs="all"), 14, None), (FP8, 9, None)]
)
def test_an_offload_that_it_does_not_go_with_is_no_way_out(compute: ComputeConfig, gib: int, mode: str | None) -> None:
    """`all` would fit each of them, but captured and quantised weights are not moved."""
    assert next_offload(trial(pipeline=TURBO, compute=compute), GEOMETRY, {"total": gib * GIB}) == mode


def test_a_stack_is_what_auto_comes_to() -> None:
    small = replace(TURBO, height=512, width=512)
    assert stack_of(of(FAST)) == "fast" == stack_of(of(FP8)) == stack_of(trial(pipeline=small, compute=FAST))
    stages = replace(COMPILED, graphs="auto")
    assert stack_of(of(stages)) == "compiled" and stack_of(trial(pipeline=small, compute=stages)) == "graph"
