"""The fast path's knobs: what the choices set, what does not go together, and what a trial with them is called."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from composing import jobs
from factories import TURBO, complete, trial
from hardware_profiles import profile
from small_weights import make_folder

from zbench.config import ComputeConfig, DBCacheConfig, HardwareConfig, OffloadConfig, ParallelConfig, check
from zbench.engines.reference import ReferenceEngine
from zbench.errors import ConfigError
from zbench.methods import fast, quantization
from zbench.space import constraint
from zbench.trial import Trial, geometry_of, settled

FAST = ComputeConfig(device="cuda", compile=True, graphs="auto", **fast.FAST)
FP8 = replace(FAST, quantization="fp8", **fast.FP8)
FP8_NORMS = replace(FP8, norms="fused")
FP8_ALONE = ComputeConfig(device="cuda", quantization="fp8")
FP8_ATTENTION = replace(FAST, attention_backend="cudnn_fp8")
DECODE_ALONE = ComputeConfig(device="cuda", decode="compiled")
GGUF = replace(TURBO, weights="q8.gguf")
UNFUSED = replace(TURBO, lora="style.safetensors", lora_fused=False)


def composed(choice: str) -> ComputeConfig:
    (job,) = jobs(f"compute={choice}").jobs
    return job.config.compute


def why(compute: ComputeConfig, **groups: Any) -> str:
    of = trial(compute=compute, **{"pipeline": TURBO, **groups})
    return constraint(of, geometry_of(of.pipeline)) or ""


def test_a_choice_sets_knobs_and_nothing_else() -> None:
    plain = {f: v for f, v in vars(composed("eager")).items() if f != "grid"}
    assert plain == {f: v for f, v in vars(ComputeConfig()).items() if f != "grid"}
    on = composed("fast")
    assert fast.is_fast(on, ParallelConfig()) and on.attention_backend == "auto" and on.quantization == "none"
    assert on.ffn == "split", "joined feed-forwards take memory and buy nothing in bf16"
    assert replace(on, quantization="fp8", ffn="fused", norms="auto") == composed("fp8")


def test_the_kernel_is_settled_by_the_device() -> None:
    alone, ring = ParallelConfig(), ParallelConfig(ring_size=2)
    assert settled(composed("fast"), "cuda", alone, TURBO).attention_backend == "_native_cudnn"
    assert settled(composed("fast"), "cpu", alone, TURBO).attention_backend == "native"
    assert settled(replace(FAST, attention_backend="flash"), "cuda", alone, TURBO).attention_backend == "flash"
    assert settled(composed("fast"), "cuda", ring, TURBO).attention_backend == "native", "ring merges by log-sum-exp"


@pytest.mark.parametrize(
    ("parallel", "qkv", "rope"),
    [
        (ParallelConfig(), "fused", "real"),
        (ParallelConfig(tp_size=2), "fused", "real"),
        (ParallelConfig(gather_size=2), "split", "real"),
        (ParallelConfig(tp_size=2, gather_size=2), "split", "real"),
        (ParallelConfig(ulysses_size=2, ulysses_async=True), "split", "complex"),
    ],
)
def test_the_fast_choice_works_however_attention_is_shared(parallel: ParallelConfig, qkv: str, rope: str) -> None:
    """Ranks that send keys and values apart cannot have them of one matmul; what is typed is not second-guessed."""
    compute = settled(composed("fast"), "cuda", parallel, TURBO)
    assert (compute.qkv, compute.rope) == (qkv, rope) and not why(compute, parallel=parallel)
    assert "fast" in trial(compute=compute, parallel=parallel).label.split()
    typed = settled(replace(composed("fast"), qkv="split"), "cuda", ParallelConfig(), TURBO)
    assert typed.qkv == "split" and "fast" not in trial(compute=typed).label.split()


@pytest.mark.parametrize("knob", ["graphs", "qkv", "rope", "ffn", "text", "decode", "quantization", "scope", "norms"])
def test_a_value_that_is_none_is_named(knob: str) -> None:
    wrong = trial(compute=replace(FAST, **{knob: "warp"}))
    with pytest.raises(ConfigError, match=f"compute.{knob}=warp: must be one of "):
        check(wrong)


def test_each_knob_is_a_trial_of_its_own_and_plain_ones_leave_no_trace() -> None:
    plain = trial(compute=ComputeConfig(device="cuda"))
    others = [trial(compute=replace(plain.compute, **{knob: value})) for knob, value in fast.FP8.items()]
    others.append(trial(compute=replace(plain.compute, quantization="fp8")))
    others.append(trial(compute=FP8_NORMS))
    assert len({plain.trial_id, *(other.trial_id for other in others)}) == 8
    assert not set(plain.to_dict()["compute"]) & {*fast.KNOBS, "graphs", "quantization", "scope", "norms"}
    for each in (plain, *others, trial(compute=FP8)):
        assert Trial.from_dict(each.to_dict()) == each


@pytest.mark.parametrize(
    ("compute", "label"),
    [
        (FAST, "none fast"),
        (FP8, "none fast fp8"),
        (replace(FP8, scope="ffn"), "none fast fp8:ffn"),
        (replace(FAST, ffn="fused"), "none fast ffn:fused"),
        (replace(FP8, ffn="split"), "none fast ffn:split fp8"),
        (FP8_NORMS, "none fast fp8 norms:fused"),
        (replace(FAST, rope="complex"), "none compiled graphs:auto qkv:fused text:compiled decode:compiled"),
        (ComputeConfig(device="cuda", compile=True, graphs="all"), "none compiled graph"),
        (ComputeConfig(device="cuda", decode="channels_last"), "none decode:channels_last"),
        (FP8_ATTENTION, "none fast attention:fp8"),
    ],
)
def test_labels_name_a_choice_or_its_knobs(compute: ComputeConfig, label: str) -> None:
    assert trial(compute=compute).label == label


def test_images_are_judged_against_those_of_the_unquantised_trial() -> None:
    """The report says so, and names the quantised one's own likeness to it."""
    from zbench.analysis.view import view_of
    from zbench.report.tables.quality import quality_table

    native = trial(compute=FP8).reference
    assert native.compute == ComputeConfig(device="cuda") and native == trial(compute=FAST).reference
    table = quality_table(view_of([complete(native), complete(trial(compute=FP8), ssim=0.9)]))
    assert table is not None
    says = "compute.quantization=fp8 is judged against the reference's images, in which nothing is quantised."
    assert says in table.legend
    plain = quality_table(view_of([complete(native), complete(trial(compute=FAST), ssim=0.9)]))
    assert plain is not None and not any("quantis" in line for line in plain.legend)


@pytest.mark.parametrize(
    ("compute", "groups", "says"),
    [
        (FAST, {"pipeline": UNFUSED}, "use pipeline.lora_fused=true, or leave its layers split"),
        (FAST, {"pipeline": GGUF}, "compute.qkv=fused: its weights are packed (gguf)"),
        (FAST, {"parallel": ParallelConfig(gather_size=2)}, "compute.qkv=split"),
        (FAST, {"parallel": ParallelConfig(ulysses_size=2, ulysses_async=True)}, "parallel.ulysses_async=false"),
        (DECODE_ALONE, {"offload": OffloadConfig(mode="group")}, "inside what compute.decode=compiled would"),
        (FP8, {"parallel": ParallelConfig(tp_size=2)}, "compute.quantization=fp8: parallel.tp_size=2"),
        (FP8, {"offload": OffloadConfig(mode="dit")}, "compute.quantization=fp8: offload.mode=dit"),
        (replace(FP8, device="cpu"), {}, "torchao computes in FP8 on GPUs alone"),
        (replace(FP8, dtype="float32"), {}, "compute.dtype=float32"),
        (replace(FP8_ATTENTION, device="cpu"), {}, "cudnn_fp8: is a kernel of NVIDIA's GPUs"),
        (replace(FP8_ATTENTION, dtype="float32"), {}, "cudnn_fp8: rounds bfloat16"),
        (replace(FP8_ATTENTION, qkv="split", rope="complex"), {}, "add compute.rope=real"),
        (replace(FP8_ATTENTION, qkv="split"), {"parallel": ParallelConfig(gather_size=2)}, "parallel.gather_size=2"),
        (FP8_ATTENTION, {"pipeline": replace(TURBO, guidance_scale=4.0)}, "it takes none; parallel.cfg_size=2"),
        (FP8_ATTENTION, {"parallel": ParallelConfig(ulysses_size=2)}, "leave out parallel.ulysses_size=2"),
        (replace(FP8_NORMS, scope="ffn"), {}, "fused: rounds what one layer reads in FP8; add compute.scope=both"),
        (replace(FP8_NORMS, qkv="split", ffn="split"), {}, "add compute.qkv=fused, compute.ffn=fused"),
        (FP8_ALONE, {"pipeline": UNFUSED}, "fp8: pipeline.lora_fused=false"),
        (FP8_ALONE, {"pipeline": GGUF}, "as they are"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_says_why(compute: ComputeConfig, groups: dict[str, Any], says: str) -> None:
    assert says in why(compute, **groups)


def test_the_rest_goes_together() -> None:
    assert why(FAST) == why(FP8) == why(FP8_ATTENTION) == why(FP8_NORMS) == ""
    assert why(FP8_ATTENTION, parallel=ParallelConfig(dp_size=2)) == ""
    assert why(FAST, cache=DBCacheConfig()) == why(FP8, offload=OffloadConfig(mode="vae")) == ""
    assert why(FAST, parallel=ParallelConfig(tp_size=2)) == why(FAST, parallel=ParallelConfig(ulysses_size=2)) == ""
    assert why(FAST, offload=OffloadConfig(mode="text_encoder")) == why(FAST, offload=OffloadConfig(mode="all")) == ""
    assert why(FAST, parallel=ParallelConfig(tp_size=2, text_encoder="tp")) == ""


def test_a_card_without_an_fp8_rate_is_not_projected() -> None:
    old, new = (HardwareConfig(name="some", peak_fp8_tflops=rate) for rate in (None, 1979.0))
    assert quantization.problem_on_hardware(FP8, old) == (
        "compute.quantization=fp8: hardware=some has no FP8 rate; use compute.quantization=none"
    )
    assert quantization.problem_on_hardware(FP8, new) is quantization.problem_on_hardware(FP8, None) is None
    assert quantization.problem_on_hardware(FAST, old) is None


@pytest.mark.parametrize(
    ("card", "its"), [("a100", "has 8.0"), ("rtx4090", "has 8.9"), ("l40s", "has 8.9"), ("mi300x", "names none")]
)
def test_attention_in_fp8_is_not_projected_onto_a_card_that_has_none(card: str, its: str) -> None:
    """Some have FP8 matmuls and no such attention."""
    compute = replace(FP8_ATTENTION, quantization="none")
    assert why(compute, hardware=profile(card)) == (
        "compute.attention_backend=cudnn_fp8: takes an NVIDIA GPU of compute capability 9.0 or more, and "
        f"hardware={card} {its}; use compute.attention_backend=auto"
    )
    assert why(replace(compute, attention_backend="_native_cudnn"), hardware=profile(card)) == ""


def test_attention_in_fp8_is_projected_onto_hopper_and_later() -> None:
    assert [why(FP8_ATTENTION, hardware=profile(card)) for card in ("h100", "b200", "b300", "rtx5090")] == [""] * 4


@pytest.mark.parametrize(
    ("version", "says"),
    [(None, "needs the package torchao: pip install 'zbench[torchao]'"), ("0.9.1", "0.15 or newer, and 0.9.1 is here")],
)
def test_torchao_is_asked_for_with_the_command(version: str | None, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def installed(_name: str) -> str:
        if version is None:
            raise quantization.metadata.PackageNotFoundError
        return version

    monkeypatch.setattr(quantization.metadata, "version", installed)
    assert says in (ReferenceEngine().supports(trial(compute=FP8)) or "")
    assert ReferenceEngine().supports(trial(compute=FAST)) is None
    monkeypatch.setattr(quantization.metadata, "version", lambda _name: "0.18.0+cu130")
    assert ReferenceEngine().supports(trial(compute=FP8)) is None
    assert quantization.told(FP8) == {"torchao": "0.18.0+cu130"} and quantization.told(FAST) == {}


def test_a_scope_means_something_only_where_something_is_quantised() -> None:
    with pytest.raises(ConfigError, match=r"compute.scope=ffn: nothing is quantised; add compute.quantization=fp8"):
        quantization.check_used([replace(FAST, scope="ffn")])
    both = [replace(FAST, scope="ffn"), replace(FP8, scope="ffn")]
    quantization.check_used(both)
    assert [settled(compute, "cuda", ParallelConfig(), TURBO).scope for compute in both] == ["both", "ffn"]


@pytest.mark.parametrize(
    ("knobs", "norms"),
    [({}, "fused"), ({"scope": "ffn"}, "split"), ({"qkv": "split"}, "split"), ({"quantization": "none"}, "split")],
)
def test_norms_left_open_are_fused_where_what_they_round_for_is_there(knobs: dict[str, str], norms: str) -> None:
    compute = settled(replace(FP8, norms="auto", **knobs), "cuda", ParallelConfig(), TURBO)
    assert compute.norms == norms and why(compute) == ""
    gathered = settled(replace(FP8, qkv="auto", norms="auto"), "cuda", ParallelConfig(gather_size=2), TURBO)
    assert (gathered.qkv, gathered.norms) == ("split", "split"), "ranks send keys and values apart"


def test_norms_left_open_are_split_where_not_every_layer_of_a_block_is_quantised(tmp_path: Path) -> None:
    """Of a transformer 64 wide the feed-forward is 170 wide, which scaled matmuls do not take: it stays in bfloat16."""
    config = make_folder(tmp_path) / "transformer" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"dim": 64, "axes_dims": [4, 6, 6]}))
    odd = replace(TURBO, weights=str(tmp_path))
    assert geometry_of(odd).transformer.ffn_dim == 170
    compute = settled(replace(FP8, norms="auto"), "cuda", ParallelConfig(), odd)
    assert (compute.norms, compute.quantization) == ("split", "fp8")
    assert settled(replace(FP8, norms="fused"), "cuda", ParallelConfig(), odd).norms == "fused", "as it is typed"


def test_fused_norms_mean_something_only_where_something_is_quantised() -> None:
    with pytest.raises(ConfigError, match=r"compute.norms=fused: nothing is quantised; add compute.quantization=fp8"):
        quantization.check_used([replace(FAST, norms="fused")])
    quantization.check_used([replace(FAST, norms="auto"), replace(FAST, scope="both")])
    quantization.check_used([replace(FAST, norms="fused"), FP8])


def test_every_knob_is_of_the_launch_and_auto_keeps_captured_forwards_apart() -> None:
    def process(of: Trial) -> str:
        return ReferenceEngine().residency(of).process

    plain = trial(compute=ComputeConfig(device="cuda"))
    changed = [trial(compute=replace(plain.compute, **{knob: value})) for knob, value in fast.FP8.items()]
    assert len({process(plain), *map(process, changed)}) == 6
    small = replace(TURBO, height=512, width=512)
    alone, cached = trial(pipeline=small, compute=FAST), trial(DBCacheConfig(), pipeline=small, compute=FAST)
    assert process(alone) != process(cached), "one captures its forward, which the other's cache looks into"
    alone, cached = trial(pipeline=TURBO, compute=FAST), trial(DBCacheConfig(), pipeline=TURBO, compute=FAST)
    assert process(alone) == process(cached)


@pytest.mark.parametrize(
    ("knobs", "named"),
    [
        ({"text": "compiled"}, "compute.text=compiled"),
        ({"decode": "compiled"}, "compute.decode=compiled"),
        ({"graphs": "auto"}, "compute.graphs=auto"),
        ({"text": "short", "decode": "channels_last", "qkv": "fused", "rope": "real", "ffn": "fused"}, None),
    ],
)
def test_what_is_made_for_one_size_makes_one_size(knobs: dict[str, str], named: str | None) -> None:
    of = trial(compute=ComputeConfig(device="cuda", **knobs))
    assert ReferenceEngine().resizes(of) == (named is None)
    problem = ReferenceEngine().batching_problem(of)
    assert (problem is None) if named is None else str(problem).startswith(named)
