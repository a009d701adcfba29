"""What is measured is measured at the pipeline's shapes, and what cannot be has a reason."""

import json
from pathlib import Path

import pytest

from zbench.environment import DeviceInfo
from zbench.errors import HardwareError
from zbench.hardware import ceiling_bench
from zbench.hardware.ceiling_bench import GEMMS, GEMMS_A_BLOCK, Effort, Probe, Shapes, block_tflops, measure_ceilings
from zbench.hardware.ceilings import store_ceilings, stored_ceilings
from zbench.report.tables.ceilings import render_ceilings
from zbench.zimage.flops import main_block_flops
from zbench.zimage.geometry import Geometry
from zbench.zimage.layout import preset_folder

QUICK = Effort(warm_up_s=0.0, sample_s=0.0, samples=3)


def test_a_gpu_is_measured_at_the_full_size_pipelines_shapes() -> None:
    shapes = Shapes.of("cuda")
    assert [shapes.gemm(name) for name in GEMMS] == [(4160, 3840, 3840), (4160, 3840, 10240), (4160, 10240, 3840)]
    assert (shapes.n_heads, shapes.tokens, shapes.head_dim) == (30, 4160, 128)


@pytest.mark.parametrize("kind", ["cuda", "cpu"])
def test_a_block_is_what_the_pipeline_counts_but_its_modulation(kind: str) -> None:
    shapes = Shapes.of(kind)
    geometry = Geometry.from_folder(preset_folder(shapes.preset))
    block = main_block_flops(geometry, shapes.tokens - 64, 64)
    assert shapes.attention_flops == block.attention
    gemm = sum(2 * a * b * c * GEMMS_A_BLOCK[name] for name in GEMMS for a, b, c in [shapes.gemm(name)])
    assert gemm == pytest.approx(block.gemm, rel=0.005)


def test_a_rate_is_work_over_the_median_second() -> None:
    assert Probe("x_tflops", 3e12, lambda: lambda: None).rate([9.0, 1.5, 1.0]) == pytest.approx(2.0)
    assert Probe("x_gb_s", 3e9, lambda: lambda: None).rate([9.0, 1.5, 1.0]) == pytest.approx(2.0)


def test_a_blocks_rate_is_weighted_by_flops() -> None:
    shapes = Shapes("x", tokens=10, dim=10, ffn_dim=20, n_heads=1, head_dim=10)
    samples = {
        "gemm_bf16_projection_tflops": [1.0],
        "gemm_bf16_ffn_in_tflops": [2.0],
        "gemm_bf16_ffn_out_tflops": [4.0],
    }
    flops = 4 * 2000 + 2 * 4000 + 4000
    assert block_tflops("bf16", shapes, samples) == pytest.approx(flops / (4 + 4 + 4) / 1e12)
    assert block_tflops("fp8", shapes, samples) is None


def test_a_cpu_has_its_own_figures_and_reasons_for_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZBENCH_CEILINGS_DIR", str(tmp_path))
    monkeypatch.setitem(ceiling_bench.COPY_BYTES, "cpu", 2**20)
    told: list[str] = []
    found = measure_ceilings([], told.append, QUICK)
    json.dumps(found, allow_nan=False)
    assert found["kind"] == "cpu" and found["attention_backend"] == {"float32": "default"}
    figures, reasons = found["figures"], found["reasons"]
    for name in ("gemm_float32_tflops", "attention_float32_tflops", "copy_gb_s"):
        assert figures[name] > 0
    for name in ("gemm_bf16_tflops", "gemm_fp8_tflops", "attention_bf16_tflops", "host_to_device_pinned_gb_s"):
        assert figures[name] is None and "no GPU" in reasons[name]
    assert {name for name, value in figures.items() if value is None} == set(reasons)
    assert all(len(samples) == QUICK.samples for samples in found["samples_s"].values())
    assert len(told) == len(found["samples_s"])
    store_ceilings(found)
    assert stored_ceilings([]) == {key: value for key, value in found.items() if key != "samples_s"}
    text = render_ceilings(found, "table")
    assert "matmul float32, a block's GEMMs together" in text and "host to device, pinned memory" in text
    assert json.loads(render_ceilings(found, "json")) == found


def test_what_a_device_cannot_do_is_null_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> object:
        def prepare() -> object:
            raise RuntimeError("no kernel\nfor this device")

        return prepare

    monkeypatch.setattr(ceiling_bench, "_attention", broken)
    monkeypatch.setitem(ceiling_bench.COPY_BYTES, "cpu", 2**20)
    found = measure_ceilings([], lambda _: None, QUICK)
    assert found["figures"]["attention_float32_tflops"] is None
    assert found["reasons"]["attention_float32_tflops"] == "no kernel for this device"
    assert found["attention_backend"] == {}


def test_a_gpu_that_torch_does_not_see_is_named() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("torch sees a GPU here")
    with pytest.raises(HardwareError, match="NVIDIA L4"):
        measure_ceilings([DeviceInfo("NVIDIA L4", None, None)], lambda _: None, QUICK)
