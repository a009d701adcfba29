"""A trial as a Python program of diffusers and cache-dit alone, which makes the trial's images; nothing is run here.

Every text of the user's is in it as Python writes a string (`repr`).
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zbench import __version__
from zbench.carried import VRAM_LIMIT, Words, notes_of_rest
from zbench.emit.emission import Emission, EmittedFile, commented, python_text
from zbench.methods import attention, quantization
from zbench.methods.cache import method_of
from zbench.methods.dtypes import dtype_on
from zbench.methods.offload import BY_NAME
from zbench.trial import Trial, geometry_of
from zbench.zimage.layout import WEIGHTS_FILE, preset_folder
from zbench.zimage.on_disk import names_a_file

FILE = "generate.py"
TORCHAO = "from torchao.quantization import Float8DynamicActivationFloat8WeightConfig, PerRow, quantize_"
HUB_ID = "Tongyi-MAI/Z-Image-Turbo"

PIPELINE = (
    *("height", "width", "steps", "guidance_scale", "max_sequence_length", "batch_size", "images_per_prompt"),
    *("vae", "vae_tiling", "vae_slicing", "lora", "variant", "weights", "download"),
)
COMPUTE = ("device", "dtype", "compile", "attention_backend", "decode", "quantization")
CLASSES = ("AutoencoderKL", "ZImagePipeline", "ZImageTransformer2DModel")
CARRIES = (
    *(f"pipeline.{key}" for key in PIPELINE),
    *(f"compute.{key}" for key in COMPUTE),
    *(f"workload.{key}" for key in ("seeds", "prompts.text", "prompts.negative_prompt")),
)
REASONS = {
    "parallel": "One device makes the images here (zbench emit --to cache-dit writes what cache-dit can shard)",
    attention.KEY: "This kernel is zbench's own to call; this program's attention is exact",
    "compute.graphs": "A captured forward is zbench's own; the images are the same without it",
    **dict.fromkeys(
        (f"compute.{key}" for key in ("qkv", "rope", "ffn", "text", "norms")),
        "Joined layers and norms, real rotations, short prompts are zbench's own; the images are the same without them",
    ),
    "offload.keep_layers": "diffusers' model offload moves a text encoder whole",
    VRAM_LIMIT: "Nothing holds this program to less memory than the card has",
}


def emit_diffusers(trial: Trial) -> Emission:
    """The program, and notes that name everything that it leaves out."""
    device = "cpu" if trial.compute.device == "cpu" else "cuda"
    offload, offload_notes, offload_keys = _offload(trial, device)
    cache, cache_keys = _cache(trial)
    weights, weight_notes = _weights(trial, device)
    notes = [*weight_notes, *offload_notes]
    style = [] if trial.pipeline.lora is None else ["pipeline.lora_scale", "pipeline.lora_fused"]
    scope = [] if trial.compute.quantization == quantization.NONE else ["compute.scope"]
    carries = {*CARRIES, *style, *scope, *cache_keys, *offload_keys}
    if not attention.is_diffusers(trial.compute.attention_backend):
        carries -= {attention.KEY}
    if weight_notes:
        carries -= {"pipeline.weights"}
    notes += notes_of_rest(trial, Words("diffusers", carries, reasons=REASONS), notes)
    used = [name for name in CLASSES if any(f"{name}." in line for line in weights)]
    imports = [*(["import cache_dit"] if cache else []), "import torch", f"from diffusers import {', '.join(used)}"]
    imports += [TORCHAO] if trial.compute.quantization != quantization.NONE else []
    built = [*weights, *_decoding(trial), *_lora(trial), *_compute(trial), *offload, *_quantised(trial)]
    blocks = [imports, built, cache, _calls(trial)]
    head = commented(f"Made by zbench {__version__}: {trial.label}", *notes)
    text = head + "\n\n".join("\n".join(block) for block in blocks if block) + "\n"
    return Emission("diffusers", (EmittedFile(FILE, text),), tuple(notes))


def _weights(trial: Trial, device: str) -> tuple[list[str], list[str]]:
    """The pipeline, loaded; and what is to be said of its weights."""
    pipeline, notes = trial.pipeline, []
    named = pipeline.weights not in ("auto", "random")
    path = os.path.expanduser(pipeline.weights)
    is_file = named and names_a_file(Path(path))
    source = path if named and not is_file else _base(trial)
    if pipeline.weights == "random":
        notes.append("Random weights are in no file, so the images are others (pipeline.weights=random).")
    lines = [f"device, dtype = {device!r}, torch.{dtype_on(device, trial.compute.dtype).name}"]
    parts = []
    if pipeline.vae is not None:
        vae = python_text(os.path.expanduser(pipeline.vae))
        lines.append(f"vae = AutoencoderKL.from_pretrained({vae}, dtype=dtype)")
        parts.append("vae=vae")
    if is_file:
        notes.append(
            "Weights that are stored with scales or packed are zbench's own to read; this loads plain ones "
            f"(pipeline.weights={pipeline.weights})."
        )
        lines += [
            "transformer = ZImageTransformer2DModel.from_single_file(",
            f"    {python_text(path)}, config={python_text(source)}, subfolder='transformer', dtype=dtype",
            ")",
        ]
        parts.append("transformer=transformer")
    told = {"variant": python_text(pipeline.variant)} if pipeline.variant is not None else {}
    told |= {} if pipeline.download else {"local_files_only": "True"}
    options = "".join(f", {key}={value}" for key, value in told.items())
    own = "".join(f", {part}" for part in parts)
    arguments = f"{python_text(source)}, dtype=dtype, use_safetensors=True{options}{own}"
    lines.append(f"pipe = ZImagePipeline.from_pretrained({arguments})")
    return lines, notes


def _base(trial: Trial) -> str:
    """What `pipeline.weights=auto` leads to: the preset's own folder if weights are in it, else a hub id."""
    folder = preset_folder(trial.pipeline.preset)
    own = any(list((folder / component).glob("*.safetensors*")) for component in WEIGHTS_FILE)
    return str(folder) if own else trial.pipeline.hub_id or HUB_ID


def _decoding(trial: Trial) -> list[str]:
    return [
        *(["pipe.vae.enable_tiling()"] if trial.pipeline.vae_tiling else []),
        *(["pipe.vae.enable_slicing()"] if trial.pipeline.vae_slicing else []),
    ]


def _lora(trial: Trial) -> list[str]:
    pipeline = trial.pipeline
    if pipeline.lora is None:
        return []
    path = Path(os.path.expanduser(pipeline.lora))
    folder, file = (path.parent, path.name) if names_a_file(path) else (path, None)
    named = "" if file is None else f", weight_name={python_text(file)}"
    lines = [f"pipe.load_lora_weights({python_text(str(folder))}{named}, adapter_name='style', local_files_only=True)"]
    if pipeline.lora_fused:
        return [*lines, f"pipe.fuse_lora(lora_scale={pipeline.lora_scale!r})", "pipe.unload_lora_weights()"]
    return [*lines, f"pipe.set_adapters(['style'], [{pipeline.lora_scale!r}])"]


def _compute(trial: Trial) -> list[str]:
    compute = trial.compute
    lines = [
        f"pipe.transformer.set_attention_backend({python_text(attention.of_diffusers(compute.attention_backend))})"
    ]
    lines += ["pipe.transformer.compile_repeated_blocks(fullgraph=True)"] if compute.compile else []
    lines += ["pipe.vae.to(memory_format=torch.channels_last)"] if compute.decode != "eager" else []
    if compute.decode == "compiled":
        lines += ["torch.backends.cudnn.benchmark = True", "pipe.vae.decoder.compile()"]
    return lines


def _quantised(trial: Trial) -> list[str]:
    """torchao's own words, for the layers that zbench quantises; once the weights are where they stay."""
    compute = trial.compute
    if compute.quantization == quantization.NONE:
        return []
    first, end = quantization.KEPT_ENDS, geometry_of(trial.pipeline).transformer.n_layers - quantization.KEPT_ENDS
    parts = {"attention": ("attention",), "ffn": ("feed_forward",)}.get(compute.scope, ("attention", "feed_forward"))
    return [
        "",
        "",
        "def is_quantised(module, name):",
        "    of = name.split('.')  # such as layers.3.attention.to_q",
        f"    inside = of[0] == 'layers' and len(of) > 3 and {first} <= int(of[1]) < {end} and of[2] in {parts!r}",
        "    return inside and isinstance(module, torch.nn.Linear)",
        "",
        "",
        "by_row = Float8DynamicActivationFloat8WeightConfig(granularity=PerRow(), set_inductor_config=False)",
        "quantize_(pipe.transformer, by_row, filter_fn=is_quantised)",
    ]


def _offload(trial: Trial, device: str) -> tuple[list[str], list[str], list[str]]:
    """Lines that place the weights, what is to be said of them, and the keys that they carry."""
    mode = BY_NAME[trial.offload.mode]
    here = ["pipe.to(device)"]
    if not mode.waiting:
        return here, [], ["offload.mode"]
    named = f"offload.mode={mode.name}"
    if mode.name == "group":
        offload = trial.offload
        lines = [
            "pipe.enable_group_offload(",
            "    onload_device=torch.device(device),",
            "    offload_device=torch.device('cpu'),",
            "    offload_type='block_level',",
            f"    num_blocks_per_group={offload.num_blocks_per_group},",
            f"    use_stream={offload.use_stream and device == 'cuda'},",
            f"    low_cpu_mem_usage={not (offload.pin_memory and device == 'cuda')},",
            ")",
        ]
        keys = ["mode", "num_blocks_per_group", *(["use_stream", "pin_memory"] if device == "cuda" else [])]
        return lines, [], [f"offload.{key}" for key in keys]
    if device == "cpu":
        return here, [f"Weights are in host memory anyway, on a CPU ({named})."], []
    if mode.name == "sequential":
        return ["pipe.enable_sequential_cpu_offload(device=device)"], [], ["offload.mode"]
    own = f"zbench copies no weights back to the host ({named}); diffusers' model offload, the nearest, does."
    return ["pipe.enable_model_cpu_offload(device=device)"], [own], []


def _cache(trial: Trial) -> tuple[list[str], list[str]]:
    """Lines that switch step skipping on, and the keys that they carry."""
    method = method_of(trial.cache)
    arguments = method.cache_dit(trial.pipeline.steps)
    if arguments is None:
        return [], [] if method.skips else ["cache.method"]
    config = [f"        {key}={value!r}," for key, value in arguments.config.items()]
    keys = ["method", *arguments.config, "enable_taylorseer"]
    if arguments.mask:
        config.append(f"        steps_computation_mask=cache_dit.steps_mask({_keywords(arguments.mask)}),")
    if arguments.mask or "steps_computation_mask" in arguments.config:
        keys += ["scm_preset", "steps_mask", "scm_policy"]
    lines = ["cache_dit.enable_cache(", "    pipe,", "    cache_config=cache_dit.DBCacheConfig(", *config, "    ),"]
    if arguments.taylorseer is not None:
        seer = _keywords(arguments.taylorseer)
        lines.append(f"    calibrator_config=cache_dit.TaylorSeerCalibratorConfig({seer}),")
        keys.append("taylorseer_order")
    return [*lines, ")"], [f"cache.{key}" for key in keys]


def _keywords(arguments: dict[str, Any]) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in arguments.items())


def _calls(trial: Trial) -> list[str]:
    """One call for every prompt with every seed, as zbench makes it; image k of it has the seed that is k later."""
    return list(_call_lines(trial))


def _call_lines(trial: Trial) -> Iterator[str]:
    pipeline, batch = trial.pipeline, trial.pipeline.batch_size
    has_negative = any(prompt.negative_prompt for prompt in trial.workload.prompts)
    yield "prompts = [  # with what guidance leads away from"
    for prompt in trial.workload.prompts:
        yield f"    ({python_text(prompt.text)}, {python_text(prompt.negative_prompt)}),"
    yield "]"
    yield f"for number, (prompt, {'negative' if has_negative else '_'}) in enumerate(prompts):"
    yield f"    for seed in {trial.workload.seeds!r}:"
    yield "        images = pipe("
    yield f"            prompt={'prompt' if batch == 1 else f'[prompt] * {batch}'},"
    if has_negative:
        every = "negative" if batch == 1 else f"[negative] * {batch}"
        yield f"            negative_prompt={every} if negative else None,"
    yield f"            num_images_per_prompt={pipeline.images_per_prompt},"
    yield f"            height={pipeline.height},"
    yield f"            width={pipeline.width},"
    yield f"            num_inference_steps={pipeline.steps},"
    yield f"            guidance_scale={pipeline.guidance_scale!r},"
    yield f"            max_sequence_length={pipeline.max_sequence_length},"
    yield f"            generator=[torch.Generator('cpu').manual_seed(seed + k) for k in range({pipeline.images})],"
    yield "        ).images"
    yield "        for k, image in enumerate(images):"
    yield "            image.save(f'prompt{number}-seed{seed}-image{k}.png')"
