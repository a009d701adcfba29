"""Measured ceilings for tests: an H100's, with round figures."""

from typing import Any

CEILINGS: dict[str, Any] = {
    "schema_version": 1,
    "device": "NVIDIA H100 80GB HBM3",
    "kind": "cuda",
    "driver": "580.65",
    "torch": "2.13.0",
    "threads": None,
    "measured_at": "2026-01-01T00:00:00+00:00",
    "shapes": {
        "preset": "zimage_turbo",
        "tokens": 4160,
        "dim": 3840,
        "ffn_dim": 10240,
        "n_heads": 30,
        "head_dim": 128,
    },
    "figures": {
        "copy_gb_s": 2800.0,
        "gemm_bf16_projection_tflops": 650.0,
        "gemm_bf16_tflops": 700.0,
        "gemm_fp8_tflops": None,
        "attention_bf16_tflops": 500.0,
        "gemm_float32_tflops": 50.0,
        "attention_float32_tflops": 25.0,
        "host_to_device_pinned_gb_s": 55.0,
    },
    "attention_backend": {"bf16": "cudnn", "float32": "default"},
    "reasons": {"gemm_fp8_tflops": "torch._scaled_mm is only supported on newer devices"},
    "samples_s": {"copy_gb_s": [0.00076, 0.00077, 0.00078]},
}
CPU_CEILINGS: dict[str, Any] = {
    **CEILINGS,
    "device": "Example CPU @ 2.0 GHz, 2 cores",
    "kind": "cpu",
    "driver": None,
    "threads": 2,
    "figures": {"gemm_float32_tflops": 0.2, "attention_float32_tflops": 0.1, "gemm_bf16_tflops": None},
    "attention_backend": {"float32": "default"},
}
