"""A trial's step skipping and sharding as the YAML that `cache_dit.load_configs` reads; it imports no cache-dit."""

from typing import Any

from zbench.carried import Words, notes_of_rest
from zbench.emit.emission import Emission, EmittedFile, commented, yaml_text
from zbench.methods import attention
from zbench.methods.cache import method_of
from zbench.methods.parallel import ParallelDims, cache_dit_sharding
from zbench.trial import Trial

ELSEWHERE = "Set where the pipeline is loaded and called (zbench emit --to diffusers writes that)"
REASONS = {
    **dict.fromkeys(("pipeline", "workload", "compute", "offload"), ELSEWHERE),
    attention.KEY: "cache-dit has no such kernel; this one is exact",
}
FILE = "cache_dit.yaml"


def emit_cache_dit(trial: Trial) -> Emission:
    """The YAML, and notes that name everything that such a file has no word for."""
    config: dict[str, Any] = {}
    arguments = method_of(trial.cache).cache_dit(trial.pipeline.steps)
    carries = {"cache.method"} if arguments is not None or not method_of(trial.cache).skips else set()
    if arguments is not None:
        config["cache_config"] = dict(arguments.config)
        carries |= {f"cache.{key}" for key in arguments.config}
        if "steps_computation_mask" in arguments.config:
            carries |= {"cache.steps_mask", "cache.scm_preset", "cache.scm_policy", "pipeline.steps"}
        if arguments.mask:
            config["cache_config"] |= {
                "steps_computation_mask": arguments.mask["mask_policy"],
                "num_inference_steps": arguments.mask["total_steps"],
            }
            carries |= {"cache.scm_preset", "cache.scm_policy", "pipeline.steps"}
        if arguments.taylorseer is not None:
            config["cache_config"] |= {"enable_taylorseer": True, **arguments.taylorseer}
            carries |= {"cache.taylorseer_order"}
        carries |= {"cache.enable_taylorseer"}
    sharding = cache_dit_sharding(trial.parallel, trial.compute.attention_backend)
    notes: list[str] = []
    if sharding is not None:
        notes += [f"It takes {sharding.processes} processes (torchrun).", *(f"{note}." for note in sharding.notes)]
        carries |= {f"parallel.{key}" for key in sharding.config}
        carries |= {f"parallel.{key}" for key in ("text_encoder",) if trial.parallel.text_encoder == "tp"}
        carries |= {"parallel.vae"} if trial.parallel.vae == "tiled" else set()
    if sharding is not None and sharding.config:
        config["parallelism_config"] = dict(sharding.config)
    else:
        config["attention_backend"] = attention.of_diffusers(trial.compute.attention_backend)
    carries |= {attention.KEY} if attention.is_diffusers(trial.compute.attention_backend) else set()
    if ParallelDims.of(trial.parallel).ring > 1 and trial.parallel.ring_rotate_method != "p2p":
        notes.append(f"cache-dit's own way to rotate: parallel.ring_rotate_method={trial.parallel.ring_rotate_method}.")
    if arguments is None:
        notes.insert(0, "Without cache_config cache-dit skips no step.")
    notes += notes_of_rest(trial, Words("cache-dit", carries, reasons=REASONS), notes)
    use = "cache_dit.enable_cache(pipe, **cache_dit.load_configs('cache_dit.yaml'))"
    text = commented(f"For cache-dit 1.5.3: {use}", *notes) + yaml_text(config)
    return Emission("cache-dit", (EmittedFile(FILE, text),), tuple(notes))
