"""What others call the keys of a config: diffusers, SGLang, cache-dit, its labels (`F1B0_W4_MC3_R0.24`), and habit.

It answers nobody who got a key right: `unknown` asks it where a key or a flag is none.
"""

from dataclasses import fields

from zbench.config import SCHEMAS

ALIASES: dict[str, str] = {
    # diffusers' arguments of a call
    "num_inference_steps": "pipeline.steps",
    "inference_steps": "pipeline.steps",
    "num_steps": "pipeline.steps",
    "images": "pipeline.images_per_prompt",
    "batch": "pipeline.batch_size",
    "bs": "pipeline.batch_size",
    "num_images_per_prompt": "pipeline.images_per_prompt",
    "n": "pipeline.images_per_prompt",
    "cfg": "pipeline.guidance_scale",
    "cfg_scale": "pipeline.guidance_scale",
    "guidance": "pipeline.guidance_scale",
    "true_cfg_scale": "pipeline.guidance_scale",
    "negative": "workload.negative_prompt",
    "prompt_file": "workload.prompts_file",
    "prompt_path": "workload.prompts_file",
    "prompt_file_path": "workload.prompts_file",
    "seed": "workload.seeds",
    "generator": "workload.seeds",
    "max_seq_len": "pipeline.max_sequence_length",
    "max_length": "pipeline.max_sequence_length",
    # sizes
    "size": "pipeline.height and pipeline.width",
    "resolution": "pipeline.height and pipeline.width",
    "h": "pipeline.height",
    "w": "pipeline.width",
    # weights
    "model": "pipeline.weights",
    "model_id": "pipeline.weights",
    "model_path": "pipeline.weights",
    "pretrained_model_name_or_path": "pipeline.weights",
    "checkpoint": "pipeline.weights",
    "vae_path": "pipeline.vae",
    "lora": "pipeline.lora",
    "lora_path": "pipeline.lora",
    "enable_vae_tiling": "pipeline.vae_tiling",
    "enable_vae_slicing": "pipeline.vae_slicing",
    # cache-dit's names, its labels, and SGLang's SGLANG_CACHE_DIT_*
    "rdt": "cache.residual_diff_threshold",
    "threshold": "cache.residual_diff_threshold",
    "fn": "cache.Fn_compute_blocks",
    "bn": "cache.Bn_compute_blocks",
    "mc": "cache.max_continuous_cached_steps",
    "warmup": "cache.max_warmup_steps",
    "warmup_steps": "cache.max_warmup_steps",
    "taylorseer": "cache.enable_taylorseer",
    "ts_order": "cache.taylorseer_order",
    "scm": "cache.scm_preset",
    "steps_computation_mask": "cache.steps_mask",
    "scm_steps_mask": "cache.steps_mask",
    "ts": "cache.enable_taylorseer",
    "enable_cache_dit": "cache=dbcache",
    "enabled": "cache=dbcache",
    # SGLang's flags
    "num_gpus": "hardware.num_devices",
    "gpus": "hardware.num_devices",
    "devices": "hardware.num_devices",
    "world_size": "hardware.num_devices",
    "sp": "parallel.ulysses_size, parallel.ring_size and parallel.gather_size",
    "sp_size": "parallel.ulysses_size, parallel.ring_size and parallel.gather_size",
    "sp_degree": "parallel.ulysses_size, parallel.ring_size and parallel.gather_size",
    "cp_size": "parallel.ulysses_size, parallel.ring_size and parallel.gather_size",
    "tp": "parallel.tp_size",
    "tp_degree": "parallel.tp_size",
    "tensor_parallel_size": "parallel.tp_size",
    "gather": "parallel.gather_size",
    "kv_gather": "parallel.gather_size",
    "kv_gather_size": "parallel.gather_size",
    "kv_gather_degree": "parallel.gather_size",
    "dp": "parallel.dp_size",
    "dp_degree": "parallel.dp_size",
    "data_parallel_size": "parallel.dp_size",
    "cfg_parallel_size": "parallel.cfg_size",
    "cfg_parallel_degree": "parallel.cfg_size",
    "enable_cfg_parallel": "parallel.cfg_size",
    "ulysses": "parallel.ulysses_size",
    "ulysses_degree": "parallel.ulysses_size",
    "ring": "parallel.ring_size",
    "ring_degree": "parallel.ring_size",
    "rotate_method": "parallel.ring_rotate_method",
    "uaa": "parallel.ulysses_anything",
    "vae_parallel": "parallel.vae",
    "vae_parallel_size": "parallel.vae",
    "text_encoder_parallel": "parallel.text_encoder",
    "dit_cpu_offload": "offload=dit",
    "dit_layerwise_offload": "offload=group",
    "text_encoder_cpu_offload": "offload=text_encoder",
    "image_encoder_cpu_offload": "offload=text_encoder",
    "vae_cpu_offload": "offload=vae",
    "pin_cpu_memory": "offload.pin_memory",
    "enable_model_cpu_offload": "offload=all",
    "enable_sequential_cpu_offload": "offload=sequential",
    "enable_torch_compile": "compute=compiled",
    "torch_compile": "compute=compiled",
    "regional_compile": "compute=compiled",
    "cuda_graph": "compute.graphs=all",
    "cuda_graphs": "compute.graphs=all",
    "enable_breakable_cuda_graph": "compute.graphs=all",
    "torch_dtype": "compute.dtype",
    "precision": "compute.dtype",
    "dit_precision": "compute.dtype",
    "attention": "compute.attention_backend",
    # of a server
    "url": "engine.base_url",
    "api_base": "engine.base_url",
    "server": "engine.base_url",
    # of a load, as bench_serving has them
    "request_rate": "workload.rate_per_s",
    "rate": "workload.rate_per_s",
    "max_concurrency": "workload.concurrency",
    "num_prompts": "workload.requests",
    "num_requests": "workload.requests",
    "slo": "workload.latency_objective_s",
    # how it is measured
    "rounds": "measure.min_rounds and measure.max_rounds",
    "repeats": "measure.min_rounds and measure.max_rounds",
    "timeout": "measure.timeout_s",
    "out": "sweep.reports_dir",
    "output": "sweep.reports_dir",
    "output_path": "sweep.reports_dir",
    "trials": "search.n_trials",
}
"""Names in small letters, with `_` for `-`, each with the override that does the same."""

LABELS = {
    "F": "cache.Fn_compute_blocks",
    "B": "cache.Bn_compute_blocks",
    "W": "cache.max_warmup_steps",
    "R": "cache.residual_diff_threshold",
    "T": "cache.enable_taylorseer",
    "O": "cache.taylorseer_order",
}
"""The letters of a label, which are capitals."""


def meant(name: str) -> str | None:
    """What somebody may mean by a name that is no key, or no flag; None if nobody knows."""
    plain = name.lstrip("-+~").replace("-", "_")
    if plain in LABELS:
        return LABELS[plain]
    plain = plain.lower().removeprefix("sglang_cache_dit_")
    if plain in ALIASES:
        return _there(ALIASES[plain])
    homes = [
        f"{group}.{item.name}"
        for group, schemas in SCHEMAS.items()
        for item in {item.name: item for schema in schemas.values() for item in fields(schema)}.values()
        if item.name.lower() == plain and item.name not in ("grid", "name", "target", "options")
    ]
    return homes[0] if len(homes) == 1 else None


def _there(override: str) -> str | None:
    """`override`, if this zbench has its keys."""
    keys = override.replace(" and ", ", ").split(", ")
    for key in keys:
        group, dot, name = key.partition("=")[0].partition(".")
        known = {item.name for schema in SCHEMAS.get(group, {}).values() for item in fields(schema)}
        if dot and group in SCHEMAS and name not in known:
            return None
    return override
